"""Keys, whatever stands in them, and how they are found again."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import asyncio

import pytest

from gramkeep.storage import ANY, DELETE, Put, Storage
from gramkeep.testing.conformance.base import Hooks, promptly, put, scanned, store, values

AT_ONCE = 250

STRANGE_KEYS = [
    *("a", "A", "a:", "a:b", "ab", "aB", ":a", "a::b"),
    *("../../x", "../x", "x", "./x", "u/7", "u", "u/", "/u/7", "u//7", "C:\\x", "~", "."),
    *("*", "**", "?", "%", "_", "%_", "a%", "[a]", "[^a]", "{a}", "\\", "\\*", "^a$"),
    *("'", '"', "';--", "$where", "a\0", "a\0b", "\0", "\n", "a\n", "\t", "\x7f"),
    *(" ", "  ", " a", "a ", "a  ", "0", "00", "-0", "None", "null", "%00", "%2e%2e"),
    *("привет", "Привет", "🙂", "🙃", "é", "e\u0301", "ß", "ss", "\ufeffa", "a\u200b"),
    *("\ud7ff", "\uffff", "\U0010ffff", "a\U0010ffff", "a\uffff", "a\U00010000"),
    *("k" * 300, "k" * 299 + "l", "k" * 299),
]

PREFIXES = [
    *("a", "A", "a:", "*", "?", "%", "_", "[a]", "\\", "{", "^", ".", "../", "u/", "'", "$"),
    *("a\0", "a ", "é", "e", "При", "🙂", "\ud7ff", "\uffff", "\U0010ffff", "a\uffff"),
    *("k" * 299, "k" * 300, "k" * 301, "absent"),
]


async def fill(storage: Storage, keys: list[str]) -> None:
    """Store something under each of many keys, in several calls."""
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        answers = await storage.put([Put(key, key.encode(), ANY) for key in some])
        assert answers == [True] * len(some)


class Keys(Hooks):
    """Strange keys, and scans."""

    @pytest.mark.parametrize("key", STRANGE_KEYS, ids=ascii)
    async def test_any_key_leads_to_its_value(self, storage: Storage, key: str) -> None:
        await store(storage, key, b"1")
        assert await values(storage, key) == [b"1"]
        assert await scanned(storage) == [key]
        assert await put(storage, key, DELETE) is True
        assert await scanned(storage) == []

    async def test_no_two_keys_collide(self, storage: Storage) -> None:
        await fill(storage, STRANGE_KEYS)
        assert await values(storage, *STRANGE_KEYS) == [key.encode() for key in STRANGE_KEYS]
        assert await scanned(storage) == sorted(STRANGE_KEYS)

    async def test_deleting_one_key_deletes_no_other(self, storage: Storage) -> None:
        await fill(storage, STRANGE_KEYS)
        left = sorted(STRANGE_KEYS)
        for key in STRANGE_KEYS:
            assert await put(storage, key, DELETE) is True
            left.remove(key)
            assert await scanned(storage) == left

    async def test_an_empty_storage_has_no_keys(self, storage: Storage) -> None:
        assert await scanned(storage) == []
        assert await scanned(storage, "a") == []

    async def test_a_scan_gives_every_key_once(self, storage: Storage) -> None:
        keys = [f"key:{n}" for n in range(self.many)]
        await fill(storage, keys)
        await fill(storage, keys[:AT_ONCE])  # written twice, and yet one key
        assert await scanned(storage) == sorted(keys)
        assert await scanned(storage, "key:") == sorted(keys)

    @pytest.mark.parametrize("prefix", PREFIXES, ids=ascii)
    async def test_a_prefix_is_taken_literally(self, storage: Storage, prefix: str) -> None:
        await fill(storage, STRANGE_KEYS)
        expected = sorted(key for key in STRANGE_KEYS if key.startswith(prefix))
        assert await scanned(storage, prefix) == expected

    async def test_an_empty_prefix_gives_all_keys(self, storage: Storage) -> None:
        await fill(storage, ["a", "b:c", " "])
        assert await scanned(storage, "") == [" ", "a", "b:c"]

    async def test_keys_may_come_and_go_during_a_scan(self, storage: Storage) -> None:
        staying = [f"{n:04} stays" for n in range(self.many)]
        going = [f"{n:04} goes" for n in range(0, self.many, 25)]
        await fill(storage, sorted([*staying, *going]))
        seen: list[str] = []
        async with promptly():
            async for key in storage.scan():
                seen.append(key)
                if going and len(seen) % 20 == 0:
                    # From the front, which most scans have passed: a page counted from there
                    # would leave keys out.
                    gone, coming = going.pop(0), f"{len(seen):04} comes"
                    changes = [Put(gone, DELETE, ANY), Put(coming, b"1", ANY)]
                    assert await storage.put(changes) == [True, True]
        assert sorted(seen) == sorted(set(seen)), "a key came twice"
        assert set(staying) - set(seen) == set(), "keys that stayed were not seen"

    async def test_a_scan_holds_nobody_up(self, storage: Storage) -> None:
        await fill(storage, [f"key:{n}" for n in range(self.many)])
        async with promptly():
            async for key in storage.scan("key:"):
                assert await put(storage, key, b"rewritten") is True
                assert await put(storage, "key beside", b"1") is True
                assert await values(storage, key, "key beside") == [b"rewritten", b"1"]
                break  # and a scan that is given up holds nobody up either
            assert await put(storage, "key beside", b"2") is True
            assert len(await scanned(storage)) == self.many + 1

    async def test_a_scan_does_not_hold_up_another_handle(self, storage: Storage) -> None:
        await fill(storage, [f"key:{n}" for n in range(self.many)])
        async with self.reopened(storage) as second, promptly():
            async for key in storage.scan():
                assert await put(second, key, b"rewritten") is True
                assert await values(storage, key) == [b"rewritten"]
                break

    async def test_two_scans_do_not_disturb_each_other(self, storage: Storage) -> None:
        keys = [f"key:{n}" for n in range(self.many)]
        await fill(storage, [*keys, "other"])
        everything, some, other = await asyncio.gather(
            scanned(storage), scanned(storage, "key:"), scanned(storage, "other")
        )
        assert everything == sorted([*keys, "other"])
        assert some == sorted(keys)
        assert other == ["other"]
