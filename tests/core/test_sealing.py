"""Sessions that are compressed or encrypted on their way to the storage."""

from dataclasses import dataclass, field

import pytest

from gramkeep import (
    CompressedCodec,
    EncryptedCodec,
    MessagePackCodec,
    SessionDecodeError,
    Sessions,
    SessionTooLarge,
)
from gramkeep.storage import ANY, Put

OLD, NEW = EncryptedCodec.generate_key(), EncryptedCodec.generate_key()


@dataclass
class Diary:
    pages: list[str] = field(default_factory=list)


async def write_page(sessions, key, page):
    async with sessions.open(key) as session:
        session.data.pages.append(page)


CODECS = [
    EncryptedCodec([OLD]),
    CompressedCodec(above=10),
    EncryptedCodec([OLD], CompressedCodec(MessagePackCodec(), above=10)),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("migrations", [None, {1: dict}])
async def test_what_did_not_change_is_not_written_and_what_did_is(storage, codec, migrations):
    sessions = Sessions(initial=Diary, storage=storage, codec=codec, migrations=migrations)
    for page in ("one", "two" * 100, "three"):
        await write_page(sessions, "a", page)
    assert len(storage.puts) == 3
    assert b"two" * 100 not in await storage.value("a")
    for _ in range(3):
        async with sessions.open("a") as session:
            assert session.data.pages == ["one", "two" * 100, "three"]
            session.data.pages = list(session.data.pages)
    assert len(storage.puts) == 3
    async with sessions.open("a") as session:
        await session.save()
        session.data.pages.append("four")
        await session.save()
        await session.save()
        session.data.pages.append("five")
    assert len(storage.puts) == 5
    assert len((await sessions.get("a")).pages) == 5


async def test_a_record_moved_under_another_key_is_refused(storage):
    sessions = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([OLD]))
    await write_page(sessions, "a", "secret")
    stolen = await storage.value("a")
    await storage.put([Put("b", stolen, ANY)])
    with pytest.raises(SessionDecodeError, match="session 'b'"):
        await sessions.get("b")
    assert await storage.value("b") == stolen


async def test_move_encrypts_for_the_new_key(storage):
    sessions = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([OLD]))
    await write_page(sessions, "a", "secret")
    assert await sessions.move("a", "b")
    assert await sessions.get("b") == Diary(["secret"])


async def test_migrate_all_brings_everything_under_the_first_key(storage):
    for number in range(5):
        old = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([OLD]))
        await write_page(old, str(number), "page")
    both = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([NEW, OLD]))
    await write_page(both, "0", "another")
    assert (await both.migrate_all(dry_run=True)).migrated == 4
    report = await both.migrate_all()
    assert (report.migrated, report.current) == (4, 1)
    new = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([NEW]))
    assert [len((await new.get(str(n))).pages) for n in range(5)] == [2, 1, 1, 1, 1]


async def test_turning_encryption_on_encrypts_what_is_there(storage):
    await write_page(Sessions(initial=Diary, storage=storage), "a", "plain")
    strict = Sessions(initial=Diary, storage=storage, codec=EncryptedCodec([OLD]))
    with pytest.raises(SessionDecodeError, match="accept_plain=True"):
        await strict.get("a")
    codec = EncryptedCodec([OLD], accept_plain=True)
    moving = Sessions(initial=Diary, storage=storage, codec=codec)
    assert (await moving.migrate_all()).migrated == 1
    assert await strict.get("a") == Diary(["plain"])


async def test_the_limit_counts_what_is_stored(storage):
    page = "x" * 5000
    tight = {"initial": Diary, "storage": storage, "max_bytes": 1000}
    with pytest.raises(SessionTooLarge):
        await write_page(Sessions(**tight), "a", page)
    await write_page(Sessions(**tight, codec=CompressedCodec()), "a", page)
    assert len(await storage.value("a")) < 1000
