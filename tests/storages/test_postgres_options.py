"""What PostgresStorage is told, by keywords and by URL, and what it makes in the database."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from gramkeep.errors import ConfigurationError, SessionEncodeError, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, Lease, Put
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.postgres import PostgresStorage

pytest_plugins = ["servers.postgres_fixtures"]

LEASE = Lease("one", 60)
PASSWORD = "p@ss:w/rd?"
QUOTED_PASSWORD = "p%40ss%3Aw%2Frd%3F"


@pytest.fixture
async def connection(postgres_database):
    made = await asyncpg.connect(postgres_database)
    yield made
    await made.close()


@pytest.fixture
async def role(connection):
    """Make a role that may log in, with a password, and nothing else."""
    await connection.execute("DROP ROLE IF EXISTS gramkeep_bot")
    await connection.execute(f"CREATE ROLE gramkeep_bot LOGIN PASSWORD '{PASSWORD}'")
    yield "gramkeep_bot"
    await connection.execute("DROP OWNED BY gramkeep_bot; DROP ROLE gramkeep_bot")


def as_role(url, role):
    return re.sub("//[^@/]*@", f"//{role}:{QUOTED_PASSWORD}@", url)


async def used(storage, key="key"):
    """Use every kind of call once, and close the storage."""
    try:
        assert await storage.put([Put(key, b"1", ABSENT)]) == [True]
        (record,) = await storage.claim([key], LEASE)
        assert await storage.put([Put(key, b"2", record.token)], LEASE) == [True]
        assert [found async for found in storage.scan()] == [key]
        assert await storage.prune(1) == 0
    finally:
        await storage.aclose()


# URLs and names


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_leads_to_the_storage_and_names_it_without_its_password(scheme):
    storage = storage_from_url(f"{scheme}://bot:{QUOTED_PASSWORD}@db.example:5433/bots?table=mine")
    assert isinstance(storage, PostgresStorage)
    assert storage.name == f"{scheme}://bot:***@db.example:5433/bots"
    assert '"mine"' in storage.ddl
    assert '"mine_leases"' in storage.ddl


async def test_what_is_not_an_option_of_the_storage_goes_to_the_driver(postgres_database):
    options = "table=mine&application_name=my%20bot&max_connections=2&sslmode=disable"
    storage = PostgresStorage.from_url(f"{postgres_database}?{options}")
    await storage.put([Put("key", b"1", ANY)])
    connection = await asyncpg.connect(postgres_database)
    names = await connection.fetch("SELECT application_name FROM pg_stat_activity")
    assert "my bot" in {row[0] for row in names}
    assert await connection.fetchval("SELECT count(*) FROM mine") == 1
    await connection.close()
    await storage.aclose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://h/d?max_connections=many", "max_connections must be a whole number"),
        ("postgresql://h/d?max_connections=0", "max_connections=0"),
        ("postgresql://h/d?create=yes", "create must be true or false"),
        ("postgresql://h/d?layout=gramio", "layout='gramio'"),
        ("postgresql://h/d?connect_timeout=-1", "connect_timeout=-1"),
        ("postgresql://h/d?command_timeout=0", "command_timeout=0"),
        (f"postgresql://h/d?table={'t' * 53}", "1 to 52 bytes"),
        ("postgresql://h/d?table=a&leases=a", "the name of the table itself"),
        ("postgresql://h/d?schema=", "schema=''"),
    ],
)
def test_a_wrong_option_is_refused_by_name(url, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        storage_from_url(url)


@pytest.mark.parametrize("url", ["bots", "mysql://h/d", "host=h dbname=d", ""])
def test_what_is_no_url_of_postgresql_is_refused(url):
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host"):
        PostgresStorage(url)


def test_an_option_in_the_url_that_belongs_into_a_keyword_is_refused():
    with pytest.raises(ConfigurationError, match=r"layout, table: give it .* as a keyword"):
        PostgresStorage("postgresql://h/d?table=mine&layout=grammy")


async def test_no_error_shows_the_password():
    for url in (
        f"postgresql://bot:{QUOTED_PASSWORD}@127.0.0.1:1/bots",
        "postgresql://bot:se/cret@127.0.0.1:1/bots",  # not escaped, and so not to be read
        "postgresql://bot:secret@127.0.0.1:secret/bots",
    ):
        storage = PostgresStorage(url)
        with pytest.raises((StorageUnavailable, ConfigurationError)) as caught:
            await storage.get(["key"])
        texts = [str(caught.value), repr(caught.value), storage.name, repr(storage)]
        cause = caught.value.__cause__
        texts += [] if cause is None else [str(cause)]
        for text in texts:
            assert "cret@" not in text
            assert "secret" not in text.replace(":secret/", "")
            assert PASSWORD not in text
            assert QUOTED_PASSWORD not in text
        await storage.aclose()


async def test_a_wrong_password_and_a_missing_database_are_said(postgres_database):
    storage = PostgresStorage(postgres_database + "_not_there")
    with pytest.raises(StorageUnavailable, match=r'database ".*_not_there" does not exist'):
        await storage.get(["key"])
    await storage.aclose()


# The tables


async def test_the_tables_are_made_at_first_use_and_what_is_there_is_left(
    postgres_database, connection
):
    for key in ("one", "two"):
        storage = PostgresStorage(postgres_database)
        assert await storage.put([Put(key, b"1", ABSENT)]) == [True]
        await storage.setup()
        await storage.aclose()
    keys = await connection.fetch("SELECT key FROM gramkeep_sessions ORDER BY key")
    assert [row[0] for row in keys] == ["one", "two"]
    kinds = await connection.fetch(
        "SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'gramkeep%' ORDER BY 1"
    )
    assert [(row[0], row[1]) for row in kinds] == [
        ("gramkeep_sessions", b"p"),
        ("gramkeep_sessions_expires_at", b"p"),
        ("gramkeep_sessions_leases", b"u"),
        ("gramkeep_sessions_leases_pkey", b"u"),
        ("gramkeep_sessions_pkey", b"p"),
    ]


@pytest.mark.parametrize("layout", ["gramkeep", "grammy"])
async def test_many_that_start_at_once_make_the_tables_together(postgres_database, layout):
    storages = [PostgresStorage(postgres_database, layout=layout) for _ in range(12)]
    await asyncio.gather(*(storage.get(["key"]) for storage in storages))
    await asyncio.gather(*(storage.aclose() for storage in storages))


async def test_somebody_else_who_makes_the_tables_at_once_is_no_error(
    postgres_database, connection
):
    """Nothing keeps them out: they make a table of the same name in a transaction of theirs."""
    storage = PostgresStorage(postgres_database, layout="grammy")
    async with connection.transaction():
        await connection.execute('CREATE TABLE "sessions" ("key" VARCHAR NOT NULL, "value" TEXT)')
        await connection.execute('CREATE UNIQUE INDEX IDX_sessions ON "sessions" ("key")')
        reading = asyncio.create_task(storage.get(["key"]))
        await asyncio.sleep(0.3)
        assert not reading.done()
    assert await reading == [None]
    await storage.aclose()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"table": "mine"}, ["mine", "mine_leases"]),
        ({"table": "My Se.ss\"io'ns", "schema": "public"}, ["My Se.ss\"io'ns"]),
        ({"table": 'My "Schema".sess""ions'}, ['sess""ions', 'sess""ions_leases']),
        ({"table": "{value}", "leases": "%s; --"}, ["{value}", "%s; --"]),
        ({"table": "t" * 52}, ["t" * 52, "t" * 52 + "_leases", "t" * 52 + "_expires_at"]),
        ({"table": "ü" * 26}, ["ü" * 26]),
    ],
)
async def test_any_name_will_do_for_tables(postgres_database, connection, names, expected):
    await connection.execute('DROP SCHEMA IF EXISTS "My ""Schema""" CASCADE')
    await connection.execute('CREATE SCHEMA "My ""Schema"""')
    for layout in ("gramkeep", "grammy"):
        await used(PostgresStorage(postgres_database, layout=layout, **names))
        made = {row[0] for row in await connection.fetch("SELECT relname FROM pg_class")}
        assert made >= set(expected) - {"t" * 52 + "_expires_at"}
        await connection.execute(
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
            'DROP SCHEMA "My ""Schema""" CASCADE; CREATE SCHEMA "My ""Schema"""'
        )


async def test_with_create_false_the_error_says_how_the_tables_are_made(
    postgres_database, connection
):
    storage = PostgresStorage(postgres_database, create=False)
    for call in (storage.get(["key"]), storage.claim(["key"], LEASE)):
        with pytest.raises(StorageUnavailable, match=r"does not exist: .*storage\.setup\(\).*ddl"):
            await call
    await connection.execute(storage.ddl)
    await connection.execute(storage.ddl)
    await used(storage)


async def test_setup_makes_the_tables_whatever_create_says(postgres_database):
    storage = PostgresStorage(postgres_database, create=False)
    await storage.setup()
    await storage.setup()
    await used(storage)


async def test_a_table_that_is_dropped_is_not_made_up_again(postgres_database, connection):
    storage = PostgresStorage(postgres_database)
    await storage.put([Put("key", b"1", ANY)])
    await connection.execute("DROP TABLE gramkeep_sessions")
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="does not exist"):
            await storage.get(["key"])
    await storage.aclose()


@pytest.mark.parametrize("layout", ["gramkeep", "grammy"])
async def test_a_role_that_may_make_no_tables_uses_those_that_are_there(
    postgres_database, connection, role, layout
):
    url = as_role(postgres_database, role)
    storage = PostgresStorage(url, layout=layout)
    with pytest.raises(StorageUnavailable, match=r"no schema .*the schema has to be there"):
        await storage.get(["key"])
    await connection.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    with pytest.raises(StorageUnavailable, match=r"permission denied.*run.* `storage\.ddl`"):
        await storage.get(["key"])
    await connection.execute(storage.ddl)
    with pytest.raises(StorageUnavailable, match=r"permission denied for .*SELECT, INSERT"):
        await storage.get(["key"])
    await connection.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    )
    await used(storage)


async def test_a_table_of_another_form_is_left_and_the_error_says_so(postgres_database, connection):
    await connection.execute("CREATE TABLE gramkeep_sessions (id int)")
    storage = PostgresStorage(postgres_database)
    with pytest.raises(StorageUnavailable, match="another form"):
        await storage.get(["key"])
    await storage.aclose()
    grammy = PostgresStorage(postgres_database, layout="grammy")
    await connection.execute('CREATE TABLE sessions ("key" VARCHAR NOT NULL, "value" TEXT)')
    await connection.execute(grammy.ddl.partition("\n")[2].partition("\n")[2])  # without the index
    with pytest.raises(StorageUnavailable, match="another form"):
        await grammy.put([Put("key", b"1", ANY)])
    await grammy.aclose()


# What is stored


async def test_what_stands_in_the_table_can_be_read_there(postgres_database, connection):
    storage = PostgresStorage(postgres_database)
    await storage.put([Put("user:42", b'{"count":1}', ANY, 60), Put("a\0\1b", b"\0\xff", ANY)])
    rows = await connection.fetch(
        "SELECT key, value, extract(epoch FROM expires_at - now()) FROM gramkeep_sessions "
        "ORDER BY key"
    )
    (odd, value, _), (key, json, left) = rows
    assert (odd, value) == ("a\x010000\x010001b", b"\0\xff")
    assert (key, json) == ("user:42", b'{"count":1}')
    assert 58 < left <= 60
    assert [key async for key in storage.scan("a\0")] == ["a\0\1b"]
    assert [key async for key in storage.scan("a\1")] == []
    await storage.aclose()


async def test_half_a_surrogate_pair_is_a_key_like_others(postgres_database):
    storage = PostgresStorage(postgres_database)
    keys = ["\ud83c", "a\udc00b", "a\ud83c"]
    await storage.put([Put(key, b"1", ANY) for key in keys])
    assert sorted([key async for key in storage.scan()]) == sorted(keys)
    assert [key async for key in storage.scan("a\udc00")] == ["a\udc00b"]
    await used(PostgresStorage(postgres_database, table="other"), "\ud83c")
    await storage.aclose()


async def test_a_key_too_long_for_an_index_is_refused_and_nothing_else_is(postgres_database):
    storage = PostgresStorage(postgres_database)
    longest = "k" * 2600
    too_long = "😀" * 651
    assert await storage.put([Put(longest, b"1", ANY)]) == [True]
    assert await storage.get([too_long, longest]) == [None, (await storage.get([longest]))[0]]
    calls = [
        storage.put([Put("beside", b"1", ANY), Put(too_long, b"1", ANY)]),
        storage.claim(["beside", too_long], LEASE),
    ]
    for call in calls:
        with pytest.raises(SessionEncodeError, match=r"2604 bytes, .* at most 2600") as caught:
            await call
        assert (caught.value.key, caught.value.storage) == (too_long, storage.name)
    assert await storage.get(["beside"]) == [None]
    assert await storage.claim(["beside"], Lease("two", 60)) == [None]
    assert await storage.put([Put(longest, DELETE, ANY)]) == [True]
    await storage.aclose()


async def test_a_key_that_the_databases_encoding_lacks_is_refused(postgres_server, connection):
    """Others in the same call are not written either; `Sessions` then asks for each alone."""
    await connection.execute("DROP DATABASE IF EXISTS gramkeep_latin")
    make = "CREATE DATABASE gramkeep_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    await connection.execute(make)
    storage = PostgresStorage(postgres_server.url("gramkeep_latin"))
    await storage.put([Put("Köln", "привет".encode(), ANY)])
    for call in (storage.get(["привет"]), storage.claim(["привет"], LEASE)):
        with pytest.raises(StorageUnavailable, match="LATIN1"):
            await call
    with pytest.raises(SessionEncodeError, match="LATIN1") as caught:
        await storage.put([Put("привет", b"1", ANY)])
    assert caught.value.key == "привет"
    assert [key async for key in storage.scan()] == ["Köln"]
    await storage.aclose()
    await connection.execute("DROP DATABASE gramkeep_latin WITH (FORCE)")


async def test_prefixes_are_searched_for_in_the_index(postgres_database, connection):
    storage = PostgresStorage(postgres_database)
    await storage.put([Put("user:1", b"1", ANY)])
    await connection.execute(
        "INSERT INTO gramkeep_sessions SELECT 'chat:' || n, '' FROM generate_series(1, 20000) n;"
        "ANALYZE gramkeep_sessions"
    )
    statement, *arguments = storage._layout.page(storage._statements, "user:", None, 500)
    plan = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT TEXT) {statement}", *arguments)
    text = "\n".join(row[0] for row in plan)
    assert "Index Cond" in text
    assert "Filter: (" in text  # the lifetimes
    assert "Rows Removed by Filter" not in text
    assert [key async for key in storage.scan("user:")] == ["user:1"]
    await storage.aclose()


async def test_expired_sessions_are_swept_while_others_are_written(postgres_database, connection):
    storage = PostgresStorage(postgres_database)
    await storage.setup()
    await connection.execute(
        "INSERT INTO gramkeep_sessions SELECT 'old:' || n, '', now() - interval '1 s' "
        "FROM generate_series(1, 700) n;"
        "INSERT INTO gramkeep_sessions_leases SELECT 'old:' || n, 'dead', now() - interval '1 s', "
        "NULL, now(), now() FROM generate_series(1, 300) n"
    )
    await storage.put([Put("new", b"1", ANY, 60)])
    async with asyncio.timeout(20):
        while await connection.fetchval("SELECT count(*) FROM gramkeep_sessions") != 1:
            await asyncio.sleep(0.05)
    assert await connection.fetchval("SELECT count(*) FROM gramkeep_sessions_leases") == 0
    await storage.aclose()


async def test_pruning_removes_as_many_as_it_may_and_no_others(postgres_database, connection):
    storage = PostgresStorage(postgres_database)
    await storage.get(["key"])
    await connection.execute(
        "INSERT INTO gramkeep_sessions SELECT 'old:' || n, '', now() - interval '1 s' "
        "FROM generate_series(1, 25) n;"
        "INSERT INTO gramkeep_sessions "
        "VALUES ('new', '', now() + interval '60 s'), ('ever', '', NULL)"
    )
    assert [await storage.prune(10) for _ in range(4)] == [10, 10, 5, 0]
    assert [key async for key in storage.scan()] == ["ever", "new"]
    await storage.aclose()


def test_the_tables_of_the_documentation_are_those_that_are_made():
    page = (Path(__file__).parents[2] / "docs/storages/postgres.md").read_text("utf-8")
    (shown,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert shown == PostgresStorage("postgresql://h/d").ddl
