"""Changes: what a put expects, what it does, and what it answers."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Storage
from gramkeep.testing.conformance.base import (
    Hooks,
    find,
    put,
    read,
    scanned,
    skip_unless_transactional,
    store,
    values,
)


class Changes(Hooks):
    """Compare-and-set, DELETE, KEEP, several at once, and atomically."""

    async def test_a_put_that_expects_anything_is_always_done(self, storage: Storage) -> None:
        assert await put(storage, "key", b"first", ANY) is True
        assert await put(storage, "key", b"second", ANY) is True
        assert await values(storage, "key") == [b"second"]

    async def test_a_put_that_expects_absence_stores_what_is_not_there(
        self, storage: Storage
    ) -> None:
        assert await put(storage, "key", b"first", ABSENT) is True
        assert await values(storage, "key") == [b"first"]

    async def test_a_put_that_expects_absence_replaces_nothing(self, storage: Storage) -> None:
        await store(storage, "key", b"")  # empty, and yet not absent
        assert await put(storage, "key", b"second", ABSENT) is False
        assert await values(storage, "key") == [b""]

    async def test_a_put_that_expects_the_stored_value_replaces_it(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        assert await put(storage, "key", b"second", (await read(storage, "key")).token) is True
        assert await put(storage, "key", b"third", (await read(storage, "key")).token) is True
        assert await values(storage, "key") == [b"third"]

    async def test_a_put_that_expects_an_older_value_is_refused(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        stale = (await read(storage, "key")).token
        await store(storage, "key", b"other")
        assert await put(storage, "key", b"second", stale) is False
        assert await values(storage, "key") == [b"other"]

    async def test_a_token_is_used_up_by_its_own_change(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        token = (await read(storage, "key")).token
        assert await put(storage, "key", b"second", token) is True
        assert await put(storage, "key", b"third", token) is False
        assert await values(storage, "key") == [b"second"]

    async def test_a_put_that_expects_a_deleted_value_is_refused(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        stale = (await read(storage, "key")).token
        assert await put(storage, "key", DELETE) is True
        assert await put(storage, "key", b"second", stale) is False
        assert await find(storage, "key") is None
        assert await scanned(storage) == []

    async def test_a_token_holds_as_long_as_the_value_does(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        token = (await read(storage, "key")).token
        await read(storage, "key")
        await store(storage, "key 2", b"other")
        assert await put(storage, "key", b"second", ABSENT) is False
        assert await put(storage, "key", b"second", token) is True
        assert await values(storage, "key", "key 2") == [b"second", b"other"]

    async def test_tokens_read_together_are_each_of_their_own_key(self, storage: Storage) -> None:
        keys = [f"key {n}" for n in range(5)]
        await storage.put([Put(key, b"old " + key.encode(), ANY) for key in keys])
        records = [record for record in await storage.get(keys) if record is not None]
        puts = [
            Put(key, b"new " + key.encode(), record.token)
            for key, record in zip(keys, records, strict=True)
        ]
        assert await storage.put(puts[::-1]) == [True] * len(keys)
        assert await values(storage, *keys) == [b"new " + key.encode() for key in keys]

    async def test_a_refusal_stands_at_its_own_place_and_the_rest_is_done(
        self, storage: Storage
    ) -> None:
        await storage.put([Put(key, b"old", ANY) for key in ("a", "b", "c", "d")])
        records = await storage.get(["a", "b", "c", "d"])
        tokens = [record.token for record in records if record is not None]
        await store(storage, "b", b"other")
        await store(storage, "d", b"other")
        answers = await storage.put(
            [
                Put("a", b"new", tokens[0]),
                Put("b", b"new", tokens[1]),
                Put("e", b"new", ABSENT),
                Put("c", DELETE, ABSENT),
                Put("d", DELETE, tokens[3]),
                Put("f", b"new", ANY),
            ]
        )
        assert answers == [True, False, True, False, False, True]
        stored = await values(storage, "a", "b", "c", "d", "e", "f")
        assert stored == [b"new", b"other", b"old", b"other", b"new", b"new"]

    async def test_changes_of_every_kind_go_into_one_call(self, storage: Storage) -> None:
        await storage.put([Put(key, b"old", ANY) for key in ("deleted", "kept", "replaced")])
        answers = await storage.put(
            [
                Put("kept", KEEP, ANY),
                Put("made", b"new", ABSENT, 60),
                Put("deleted", DELETE, ANY),
                Put("replaced", b"new", ANY),
            ]
        )
        assert answers == [True] * 4
        stored = await values(storage, "deleted", "kept", "replaced", "made")
        assert stored == [None, b"old", b"new", b"new"]
        assert (await read(storage, "made")).expires_at is not None
        assert (await read(storage, "replaced")).expires_at is None

    async def test_a_deleted_key_is_gone_and_its_neighbours_are_not(self, storage: Storage) -> None:
        await storage.put([Put(key, b"1", ANY) for key in ("a", "a:b", "ab")])
        assert await put(storage, "a", DELETE, (await read(storage, "a")).token) is True
        assert await values(storage, "a", "a:b", "ab") == [None, b"1", b"1"]
        assert await scanned(storage) == ["a:b", "ab"]

    async def test_deleting_what_is_not_there_is_done_already(self, storage: Storage) -> None:
        assert await put(storage, "key", DELETE, ANY) is True
        assert await put(storage, "key", DELETE, ABSENT) is True
        await store(storage, "key", b"1")
        assert await put(storage, "key", DELETE, ANY) is True
        assert await put(storage, "key", DELETE, ANY) is True
        assert await find(storage, "key") is None

    async def test_a_delete_that_expects_something_else_is_refused(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        stale = (await read(storage, "key")).token
        await store(storage, "key", b"second")
        assert await put(storage, "key", DELETE, stale) is False
        assert await put(storage, "key", DELETE, ABSENT) is False
        assert await values(storage, "key") == [b"second"]

    async def test_a_deleted_key_can_be_made_again(self, storage: Storage) -> None:
        await store(storage, "key", b"first", ttl=60)
        await put(storage, "key", DELETE)
        assert await put(storage, "key", b"second", ABSENT) is True
        record = await read(storage, "key")
        assert (record.value, record.expires_at) == (b"second", None)

    async def test_keep_leaves_the_value_and_its_token(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        token = (await read(storage, "key")).token
        assert await put(storage, "key", KEEP, ANY) is True
        assert await put(storage, "key", KEEP, token, 60) is True
        assert await put(storage, "key", KEEP, token) is True
        assert await values(storage, "key") == [b"first"]
        assert await put(storage, "key", b"second", token) is True

    async def test_keep_makes_nothing_of_what_is_not_there(self, storage: Storage) -> None:
        assert await put(storage, "key", KEEP, ANY) is True
        assert await put(storage, "key", KEEP, ANY, 60) is True
        assert await put(storage, "key", KEEP, ABSENT, 60) is True
        assert await find(storage, "key") is None
        assert await scanned(storage) == []
        assert await put(storage, "key", b"first", ABSENT) is True

    async def test_a_keep_that_expects_something_else_is_refused(self, storage: Storage) -> None:
        await store(storage, "key", b"first")
        stale = (await read(storage, "key")).token
        await store(storage, "key", b"second")
        assert await put(storage, "key", KEEP, stale, 60) is False
        assert await put(storage, "key", KEEP, ABSENT, 60) is False
        assert (await read(storage, "key")).expires_at is None
        await put(storage, "key", DELETE)
        assert await put(storage, "key", KEEP, stale, 60) is False

    async def test_an_atomic_put_does_all_when_all_is_as_expected(self, storage: Storage) -> None:
        skip_unless_transactional(storage)
        await storage.put([Put(key, b"old", ANY) for key in ("replaced", "deleted", "kept")])
        token = (await read(storage, "replaced")).token
        puts = [
            Put("replaced", b"new", token),
            Put("deleted", DELETE, ANY),
            Put("kept", KEEP, ANY, 60),
            Put("made", b"new", ABSENT),
        ]
        assert await storage.put(puts, atomic=True) == [True] * len(puts)
        stored = await values(storage, "replaced", "deleted", "kept", "made")
        assert stored == [b"new", None, b"old", b"new"]
        assert (await read(storage, "kept")).expires_at is not None

    async def test_one_refusal_undoes_an_atomic_put(self, storage: Storage) -> None:
        skip_unless_transactional(storage)
        await storage.put([Put(key, b"old", ANY) for key in ("replaced", "deleted", "kept", "x")])
        others = [
            Put("replaced", b"new", ANY),
            Put("deleted", DELETE, ANY),
            Put("kept", KEEP, ANY, 60),
            Put("made", b"new", ABSENT),
        ]
        for place in range(len(others) + 1):
            puts = [*others[:place], Put("x", b"new", ABSENT), *others[place:]]
            answers = await storage.put(puts, atomic=True)
            assert len(answers) == len(puts)
            assert answers[place] is False
            stored = await values(storage, "replaced", "deleted", "kept", "x", "made")
            assert stored == [b"old", b"old", b"old", b"old", None]
            assert (await read(storage, "kept")).expires_at is None
