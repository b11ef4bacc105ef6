"""Changes on their way into the table: what they take of a packet, and how they went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gramkeep.storage import Lease, Put
from gramkeep.storages.mysql.connections import Result
from gramkeep.storages.mysql.statements import Statements, id_of, replaces

PUTS_AT_ONCE: Final = 250  # changes in one transaction, to bound how long it holds its locks
OVERHEAD: Final = 4096  # bytes of a packet, at most, that a change takes besides keys and values


class Change:
    """A put with its place in the call, its id, and the most that it can take of a packet."""

    __slots__ = ("id", "place", "put", "size")

    def __init__(self, put: Put, place: int) -> None:
        self.put = put
        self.place = place
        self.id = id_of(put.key)
        value = put.value if isinstance(put.value, bytes) else b""
        expected = put.expected if replaces(put) and isinstance(put.expected, bytes) else b""
        self.size = 2 * (len(value) + len(expected) + 10 * len(self.id)) + OVERHEAD


class Batch:
    """The statements that carry changes out, in one transaction, and what their results mean."""

    def __init__(
        self, statements: Statements, changes: Sequence[Change], lease: Lease | None
    ) -> None:
        self.statements: list[str] = []
        self._together: Sequence[Change] = [change for change in changes if replaces(change.put)]
        if len(self._together) < 2:  # noqa: PLR2004 - one alone is cheaper so
            self._together = ()
        else:
            pairs = [(change.id, change.put) for change in self._together]
            self.statements += statements.replace(pairs, lease)
        self._last: dict[int, int] = {}  # by place, the index of a change's last statement
        together = {change.place for change in self._together}
        for change in changes:
            if change.place not in together:
                self.statements += statements.put(change.put, change.id, lease)
                self._last[change.place] = len(self.statements) - 1

    def outcomes(self, results: Sequence[Result]) -> dict[int, bool]:
        """Tell by place which changes were done."""
        done = {place: results[index].changed > 0 for place, index in self._last.items()}
        if self._together:
            ids = {id_ for (id_,) in results[1].rows}
            done |= {change.place: change.id in ids for change in self._together}
        return done


class TooLarge(Exception):
    """A change doesn't fit into a packet."""

    def __init__(self, change: Change) -> None:
        super().__init__(change.put.key)
        self.change = change


def in_order(puts: Sequence[Put]) -> list[Change]:
    """Give the changes in the order of their ids, in which all transactions lock their rows."""
    changes = [Change(put, place) for place, put in enumerate(puts)]
    changes.sort(key=lambda change: change.id)
    return changes


def fitting(changes: Sequence[Change], largest: int) -> list[list[Change]]:
    """Group changes so that each group fits into a packet of ``largest`` bytes.

    Raises `TooLarge`.
    """
    groups: list[list[Change]] = []
    room = 0
    for change in changes:
        if change.size > largest:
            raise TooLarge(change)
        if change.size > room or len(groups[-1]) == PUTS_AT_ONCE:
            groups.append([])
            room = largest
        groups[-1].append(change)
        room -= change.size
    return groups
