"""Encrypted and compressed sessions, from the bot to the storage and back."""

from dataclasses import dataclass, field

import msgspec
import pytest

from gramkeep import (
    CompressedCodec,
    EncryptedCodec,
    JSONCodec,
    MemorySessionStorage,
    MessagePackCodec,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    Sessions,
    SessionTooLarge,
)
from gramkeep.storage import ANY, Put

OLD, NEW = (bytes([n]) * 32 for n in (1, 2))


@dataclass
class Diary:
    pages: list[str] = field(default_factory=list)


class CountingStorage(MemorySessionStorage):
    def __init__(self):
        super().__init__()
        self.puts = []

    async def put(self, puts, lease=None, *, atomic=False):
        self.puts.extend(puts)
        return await super().put(puts, lease, atomic=atomic)

    async def value(self, key):
        (record,) = await self.get([key])
        return record and record.value


@pytest.fixture
def storage():
    return CountingStorage()


def diaries(storage, *keys, codec=None, **options):
    if keys:
        codec = EncryptedCodec(list(keys), codec or JSONCodec())
    return Sessions(initial=Diary, storage=storage, codec=codec, **options)


async def write(sessions, key="42", page="dear diary"):
    async with sessions.open(key) as session:
        session.data.pages.append(page)


CODECS = [
    EncryptedCodec([NEW]),
    EncryptedCodec([NEW], MessagePackCodec()),
    EncryptedCodec([NEW], CompressedCodec(above=0)),
    CompressedCodec(above=0),
    MessagePackCodec(),
]


@pytest.mark.parametrize("codec", CODECS, ids=str)
async def test_a_session_loads_as_it_was_saved_and_unchanged_ones_are_not_written(storage, codec):
    sessions = diaries(storage, codec=codec)
    await write(sessions)
    assert len(storage.puts) == 1
    async with sessions.open("42") as session:
        assert session.data == Diary(["dear diary"])
    async with sessions.open("42") as session:
        session.data = Diary(["dear diary"])
    async with sessions.open("new") as session:
        assert session.is_new
    assert len(storage.puts) <= 2  # data that is assigned over an unread session is written
    assert await sessions.get("42") == Diary(["dear diary"])
    assert [key async for key, _ in sessions.items()] == ["42"]


@pytest.mark.parametrize("codec", CODECS, ids=str)
async def test_saving_twice_in_one_update_writes_what_changed_and_no_more(storage, codec):
    sessions = diaries(storage, codec=codec)
    async with sessions.open("42") as session:
        session.data.pages.append("one")
        await session.save()
        await session.save()
        assert len(storage.puts) == 1
        session.data.pages.append("two")
    assert len(storage.puts) == 2
    assert await sessions.get("42") == Diary(["one", "two"])


async def test_what_is_stored_is_encrypted(storage):
    await write(diaries(storage, NEW))
    assert (await storage.value("42")).startswith(b"\xc1e\x01")
    assert b"diary" not in await storage.value("42")


async def test_encryption_binds_the_prefix_too(storage):
    await write(diaries(storage, NEW, prefix="a:"))
    await storage.put([Put("b:42", await storage.value("a:42"), ANY)])
    with pytest.raises(SessionDecodeError, match="moved or copied to this one"):
        await diaries(storage, NEW, prefix="b:").get("42")


async def test_a_session_that_can_not_be_decrypted_is_left_alone(storage):
    await write(diaries(storage, OLD))
    before = await storage.value("42")
    with pytest.raises(SessionDecodeError, match=r"not one of the 1 in keys=.*left as it is"):
        await write(diaries(storage, NEW))
    assert await storage.value("42") == before


async def test_a_session_moved_by_its_manager_is_encrypted_for_its_new_key(storage):
    sessions = diaries(storage, NEW)
    await write(sessions)
    assert await sessions.move("42", "-10042")
    assert await sessions.get("-10042") == Diary(["dear diary"])
    assert await storage.value("42") is None


async def test_the_size_that_counts_is_the_one_that_is_stored(storage):
    long = "the same words " * 1000
    await write(diaries(storage, codec=CompressedCodec(), max_bytes=500), page=long)
    with pytest.raises(SessionTooLarge) as caught:
        await write(diaries(storage, max_bytes=500, codec=JSONCodec()), "43", long)
    assert caught.value.size > 15_000
    exact = len(msgspec.json.encode(Diary(["x"])))
    with pytest.raises(SessionTooLarge) as caught:
        await write(diaries(storage, NEW, max_bytes=exact + 34), "44", "x")
    assert caught.value.size == exact + 35


async def test_what_a_codec_refuses_to_seal_is_not_saved(storage):
    codec = CompressedCodec(above=10, max_expanded=50)
    with pytest.raises(SessionEncodeError, match="max_expanded=50"):
        await write(diaries(storage, codec=codec), page="x" * 100)
    assert storage.puts == []


async def test_another_writer_between_two_saves_is_noticed(storage):
    sessions = diaries(storage, NEW)
    with pytest.raises(SessionConflict):
        async with sessions.open("42") as session:
            session.data.pages.append("one")
            await session.save()
            other = EncryptedCodec([NEW]).bind(Diary)
            sealed = other.seal(other.encode(Diary(["other"]), "42"), "42")
            await storage.put([Put("42", sealed, ANY)])
            session.data.pages.append("two")
    assert await sessions.get("42") == Diary(["other"])


async def test_after_a_rotation_migrate_all_brings_every_session_to_the_first_key(storage):
    await write(diaries(storage, OLD), "old")
    rotated = diaries(storage, NEW, OLD)
    await write(rotated, "new")
    report = await rotated.migrate_all(dry_run=True)
    assert (report.migrated, report.current, report.failed) == (1, 1, {})
    report = await rotated.migrate_all()
    assert (report.migrated, report.current, report.failed) == (1, 1, {})
    alone = diaries(storage, NEW)
    assert await alone.get("old") == await alone.get("new") == Diary(["dear diary"])
    report = await alone.migrate_all()
    assert (report.migrated, report.current) == (0, 2)


async def test_encryption_is_turned_on_over_stored_sessions(storage):
    await write(diaries(storage, codec=JSONCodec()))
    plain = await storage.value("42")
    with pytest.raises(SessionDecodeError, match="it is not encrypted"):
        await diaries(storage, NEW).get("42")
    both = diaries(storage, codec=EncryptedCodec([NEW], accept_plain=True))
    async with both.open("42") as session:
        assert session.data == Diary(["dear diary"])
    assert await storage.value("42") == plain
    assert (await both.migrate_all()).migrated == 1
    assert await diaries(storage, NEW).get("42") == Diary(["dear diary"])


async def test_encrypted_sessions_are_migrated(storage):
    await write(diaries(storage, NEW))
    new = diaries(storage, NEW, migrations={1: lambda old: {"pages": ["title", *old["pages"]]}})
    assert await new.get("42") == Diary(["title", "dear diary"])
    assert (await new.migrate_all()).migrated == 1
    assert (await new.migrate_all()).current == 1
    await write(new, page="more")
    assert await new.get("42") == Diary(["title", "dear diary", "more"])
