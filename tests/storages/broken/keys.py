"""Storages that mistake keys, or lose sight of them."""

import asyncio
import fnmatch
import posixpath

import msgspec

from .unbroken import Unbroken, caught_by


@caught_by(("test_any_key_leads_to_its_value", "./x"), ("test_any_key_leads_to_its_value", "u//7"))
class TakesKeysForPaths(Unbroken):
    def apply(self, put):
        super().apply(msgspec.structs.replace(put, key=posixpath.normpath(put.key)))

    def find(self, key):
        return super().find(posixpath.normpath(key))


@caught_by("test_no_two_keys_collide")
class IgnoresCase(Unbroken):
    def apply(self, put):
        same = [key for key in self.data if key.casefold() == put.key.casefold()]
        super().apply(msgspec.structs.replace(put, key=same[0] if same else put.key))


@caught_by("test_an_empty_storage_has_no_keys")
class ScansItsOwnEntries(Unbroken):
    async def scan(self, prefix=""):
        yield "version of the schema"
        async for key in super().scan(prefix):
            yield key


@caught_by("test_a_scan_gives_every_key_once")
class ScansOnePage(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data)[:500]:
            if key.startswith(prefix):
                yield key


@caught_by("test_a_scan_gives_every_key_once")
class ScansTwice(Unbroken):
    async def scan(self, prefix=""):
        for key in [*self.data, *self.data][: len(self.data) + 1]:
            if key.startswith(prefix):
                yield key


@caught_by(
    ("test_a_prefix_is_taken_literally", "*"),
    ("test_a_prefix_is_taken_literally", "?"),
    ("test_a_prefix_is_taken_literally", "[a]"),
)
class ScansByGlob(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data):
            if fnmatch.fnmatchcase(key, prefix + "*"):
                yield key


@caught_by(("test_a_prefix_is_taken_literally", "a"))
class ScansIgnoringCase(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data):
            if key.casefold().startswith(prefix.casefold()):
                yield key


@caught_by(("test_a_prefix_is_taken_literally", "a"))
class ScansUpToTheLastOfThePlane(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data):
            if prefix <= key < prefix + "\uffff":
                yield key


@caught_by("test_an_empty_prefix_gives_all_keys")
class NeedsAPrefix(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data):
            if prefix and key.startswith(prefix):
                yield key


@caught_by("test_keys_may_come_and_go_during_a_scan")
class ScansByOffset(Unbroken):
    async def scan(self, prefix=""):
        offset = 0
        while page := list(self.data)[offset : offset + 100]:
            for key in page:
                yield key
            offset += len(page)


@caught_by("test_a_scan_holds_nobody_up", "test_a_scan_does_not_hold_up_another_handle")
class LocksWhileScanning(Unbroken):
    def __init__(self, data=None, lock=None):
        super().__init__(data)
        self.lock = lock or asyncio.Lock()

    def reopen(self):
        return type(self)(self.data, self.lock)

    async def scan(self, prefix=""):
        async with self.lock:
            async for key in super().scan(prefix):
                yield key

    async def put(self, puts, lease=None, *, atomic=False):
        async with self.lock:
            return await super().put(puts)


@caught_by("test_two_scans_do_not_disturb_each_other")
class ScansWithOneCursor(Unbroken):
    async def scan(self, prefix=""):
        self.left = [key for key in self.data if key.startswith(prefix)]
        while self.left:
            yield self.left.pop()
            await asyncio.sleep(0)
