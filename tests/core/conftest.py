import pytest
from hypothesis import settings

from gramkeep.storage import ANY, Put
from gramkeep.storages.memory import MemorySessionStorage

# No examples are kept on disk, and a busy machine fails nothing.
settings.register_profile("core", database=None, deadline=None, max_examples=100)
settings.load_profile("core")


class ObservedStorage(MemorySessionStorage):
    """A memory storage that counts what is asked of it, and can be held up or made to fail."""

    def __init__(self, time_to_live=None):
        super().__init__(time_to_live)
        self.gets = []
        self.puts = []
        self.closed = 0
        self.before_get = None  # coroutine functions, called before the storage answers
        self.before_put = None

    async def get(self, keys):
        self.gets.extend(keys)
        if self.before_get is not None:
            await self.before_get()
        return await super().get(keys)

    async def put(self, puts, lease=None, *, atomic=False):
        self.puts.extend(puts)
        if self.before_put is not None:
            await self.before_put()
        return await super().put(puts, lease, atomic=atomic)

    async def aclose(self):
        self.closed += 1
        await super().aclose()

    async def value(self, key):
        """What is stored, past all counting."""
        (record,) = await super().get([key])
        return None if record is None else record.value

    async def place(self, key, value, ttl=None):
        """Store as another process would, past all counting."""
        change = Put(key, value, ANY, ttl)
        assert await super().put([change]) == [True]


@pytest.fixture
def storage():
    return ObservedStorage()
