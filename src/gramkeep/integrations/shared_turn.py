"""An update whose sessions several handlers may share, as one passes it on to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from gramkeep.integrations.turns import Turn
from gramkeep.middleware import SessionPlugin


class SharedTurn(Turn):
    """The sessions of one update, and its places in their queues, for one handler after another.

    Places that nobody will ask for are given up, so that other updates needn't wait. While one is
    held, none that was given up may be taken again: two updates could wait for each other in a
    circle. So those are kept that the handlers ``ahead`` ask for, which are called if this one
    passes the update on; and if no session is used so far, all are given up, and all taken again
    in one step for the next handler that asks for any.
    """

    _is_used = False
    _are_given_up = False

    async def begin(self, plugins: Collection[SessionPlugin[Any]] | None = None) -> None:
        """Take the places in the queues of the sessions; see `Turn.begin`."""
        self._is_used = self._are_given_up = False
        await super().begin(plugins)

    def take(self) -> None:
        """Have the places, for a handler or filter that will use a session."""
        self._is_used = True
        if self._are_given_up:
            self._are_given_up = False
            for plugin, handle in self.handles.items():
                if not plugin.lazy:
                    plugin.sessions.reserve(handle)

    def keep_for(
        self, asked: Collection[SessionPlugin[Any]], ahead: Iterable[SessionPlugin[Any]]
    ) -> None:
        """Keep the places of what a handler asks for, and of what those ahead may ask for."""
        if asked:
            self.take()
        if len(asked) == len(self.handles):
            return
        needed = {*asked, *ahead} if self._is_used else ()
        for plugin, handle in self.handles.items():
            if plugin not in needed:
                plugin.sessions.withdraw(handle)
        self._are_given_up = not self._is_used
