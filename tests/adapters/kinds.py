"""Adapters as users write them, over a dict."""

import asyncio


class ThreeMethods:
    """Sync, the least there can be; deletes like a dict."""

    def __init__(self, data=None):
        self.data = {} if data is None else data

    def read(self, key):
        return self.data.get(key)

    def write(self, key, value):
        self.data[key] = value

    def delete(self, key):
        del self.data[key]


class Listing(ThreeMethods):
    """Sync, and tells its keys: by a view, which changes under whoever iterates over it."""

    def read_all_keys(self):
        return self.data.keys()


class Async:
    """All seven, async."""

    def __init__(self, data=None):
        self.data = {} if data is None else data

    async def read(self, key):
        await asyncio.sleep(0)
        return self.data.get(key)

    async def write(self, key, value):
        await asyncio.sleep(0)
        self.data[key] = value
        await asyncio.sleep(0)

    async def delete(self, key):
        await asyncio.sleep(0)
        self.data.pop(key, None)

    async def has(self, key):
        return key in self.data

    async def read_all_keys(self):
        for key in list(self.data):
            await asyncio.sleep(0)
            yield key

    async def read_all_values(self):
        for value in list(self.data.values()):
            await asyncio.sleep(0)
            yield value

    async def read_all_entries(self):
        for entry in list(self.data.items()):
            await asyncio.sleep(0)
            yield entry
