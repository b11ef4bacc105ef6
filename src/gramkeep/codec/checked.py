"""Which bytes were checked lately: that they load as the value they were made of."""

from __future__ import annotations

from typing import Final

REMEMBERED: Final = 10_000  # of each of two generations: two megabytes at most


class Checked:
    """Knows bytes by their hash, and forgets those that were checked long ago.

    Two different ones may have one hash. So it is good for what costs a little, and nothing but
    that, where it is wrong.
    """

    def __init__(self) -> None:
        self._latest: set[int] = set()
        self._before: set[int] = set()

    def add(self, encoded: bytes) -> None:
        """Note that these were checked."""
        if len(self._latest) >= REMEMBERED:
            self._latest, self._before = set(), self._latest
        self._latest.add(hash(encoded))

    def __contains__(self, encoded: bytes) -> bool:
        known = hash(encoded)
        return known in self._latest or known in self._before
