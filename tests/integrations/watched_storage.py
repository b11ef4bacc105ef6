"""A storage that tells what it was asked, and can be switched off."""

from collections.abc import Sequence

from gramkeep import MemorySessionStorage, StorageUnavailable
from gramkeep.storage import Lease, Put, Record


class WatchedStorage(MemorySessionStorage):
    """Really keeps sessions, counts what it is asked for, and fails while it ``is_down``."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.writes: list[str] = []
        self.is_down = False

    @property
    def calls(self) -> int:
        return len(self.reads) + len(self.writes)

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        self._answer()
        self.reads.extend(keys)
        return await super().get(keys)

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        self._answer()
        self.writes.extend(put.key for put in puts)
        return await super().put(puts, lease, atomic=atomic)

    def _answer(self) -> None:
        if self.is_down:
            raise StorageUnavailable(storage=self.name, reason="it is switched off")
