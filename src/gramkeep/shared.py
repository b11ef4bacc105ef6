"""What all kinds of session in one storage share in a process: it is the records that matter."""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from gramkeep.calls import Calls
from gramkeep.leases import Leases
from gramkeep.locks import KeyLocks
from gramkeep.storage import Storage


class Shared:
    """One storage's queues, in which updates wait for their turn, its calls, and its leases."""

    def __init__(self, storage: Storage) -> None:
        self.queues = KeyLocks()
        self.calls = Calls(storage)
        self.leases = Leases(self.calls, self.queues, storage.name)
        self.kinds: WeakSet[Any] = WeakSet()  # those who share them
        self._storage = storage  # while this lives its id is its own

    def disown(self) -> None:
        """Begin anew, in a forked child: what the parent's updates hold is another's."""
        self.queues.disown()
        self.calls.disown()
        self.leases.disown()
        for kind in self.kinds:
            kind.disown()


# By identity, as a storage may compare by value.
_shared: WeakValueDictionary[int, Shared] = WeakValueDictionary()


def shared_over(storage: Storage) -> Shared:
    """Give what this process has for a storage already, or make it."""
    shared = _shared.get(id(storage))
    if shared is None:
        shared = _shared[id(storage)] = Shared(storage)
    return shared


def _disown_all() -> None:
    for shared in _shared.values():
        shared.disown()


if hasattr(os, "register_at_fork"):  # to ask for the process's id each time takes longer
    os.register_at_fork(after_in_child=_disown_all)
