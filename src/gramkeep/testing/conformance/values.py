"""What is stored is read back: exactly, in order, and by nobody else's hand."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

import pytest

from gramkeep.storage import ANY, Put, Storage
from gramkeep.testing.conformance.base import Hooks, find, read, store, values

EXACT_BYTES = {
    "empty": b"",
    "one NUL": b"\0",
    "NULs between": b"a\0b\0",
    "every byte": bytes(range(256)),
    "not UTF-8": b"\xff\xfe\x80",
    "line ends": b"\r\n a \n\r",
    "a number": b"007.0",
    "null": b"null",
    "JSON with spaces": b'{ "b": 1,\n "a": "\xd1\x8f" }',
    "1 MiB": bytes(range(256)) * 4096,
}


class Values(Hooks):
    """Reading, and the bytes read."""

    async def test_the_storage_has_a_name_for_errors_and_logs(self, storage: Storage) -> None:
        assert isinstance(storage.name, str)
        assert storage.name

    async def test_a_missing_key_reads_as_none(self, storage: Storage) -> None:
        assert await storage.get(["missing"]) == [None]

    async def test_answers_come_in_the_order_of_the_keys(self, storage: Storage) -> None:
        await storage.put([Put(key, key.encode(), ANY) for key in ("a", "b", "c")])
        assert await values(storage, "c", "x", "a", "y", "b") == [b"c", None, b"a", None, b"b"]
        assert await values(storage, "a", "b", "c") == [b"a", b"b", b"c"]

    async def test_a_key_asked_for_twice_is_answered_twice(self, storage: Storage) -> None:
        await store(storage, "a", b"1")
        assert await values(storage, "a", "x", "a", "x") == [b"1", None, b"1", None]

    async def test_calls_about_nothing_are_answered_by_nothing(self, storage: Storage) -> None:
        assert await storage.get([]) == []
        assert await storage.put([]) == []

    async def test_many_keys_go_into_one_call(self, storage: Storage) -> None:
        stored = {f"key {n}": b"value %d" % n for n in range(self.many)}
        answers = await storage.put([Put(key, value, ANY) for key, value in stored.items()])
        assert answers == [True] * self.many
        assert await values(storage, *reversed(stored)) == list(reversed(stored.values()))

    @pytest.mark.parametrize("value", EXACT_BYTES.values(), ids=EXACT_BYTES)
    async def test_bytes_come_back_exactly(self, storage: Storage, value: bytes) -> None:
        await store(storage, "key", value)
        record = await read(storage, "key")
        # Compared outside of the assert, which would print a mebibyte.
        is_same = record.value == value
        assert is_same, f"{len(record.value)} bytes came back, {len(value)} were stored"
        assert type(record.value) is bytes, "only bytes can't be changed by who reads them"

    async def test_a_stored_value_replaces_the_one_before(self, storage: Storage) -> None:
        await store(storage, "key", b"a long value, to be replaced whole")
        await store(storage, "key", b"short")
        assert await values(storage, "key") == [b"short"]
        await store(storage, "key", b"")
        assert await values(storage, "key") == [b""]

    async def test_lists_given_and_received_are_the_callers_to_change(
        self, storage: Storage
    ) -> None:
        puts = [Put("a", b"1", ANY), Put("b", b"2", ANY)]
        keys = ["a", "b"]
        answers = await storage.put(puts)
        puts.clear()
        answers.clear()
        records = await storage.get(keys)
        keys.clear()
        records.reverse()
        records.append(None)
        assert await values(storage, "a", "b") == [b"1", b"2"]
        assert await find(storage, "c") is None
