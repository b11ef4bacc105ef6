"""What MySQLStorage is told, by keywords and by URL, and what it makes of it."""

import shutil
import ssl

import asyncmy
import pytest
import trustme
from servers.mariadb import USER, connect_arguments, query, running_server
from servers.process import server_folder

from gramkeep.errors import ConfigurationError, StorageUnavailable
from gramkeep.storage import ANY, DELETE, Lease, Put
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.mysql import MySQLStorage

pytest_plugins = ["servers.mariadb_fixtures"]

LEASE = Lease("one", 60)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_a_url_leads_to_the_storage(scheme):
    storage = storage_from_url(f"{scheme}://bot:secret@db.example:3307/bots?table=mine")
    assert isinstance(storage, MySQLStorage)
    assert storage.name == "mysql://db.example:3307/bots?table=mine"
    assert "`bots`.`mine`" in storage.ddl
    assert "`bots`.`mine_leases`" in storage.ddl


def test_a_url_tells_all_options():
    storage = MySQLStorage.from_url(
        "mysql://bot@localhost/bots?create=false&max_connections=3&connect_timeout=1.5"
        "&command_timeout=2&tls=true&unix_socket=/run/mysqld/mysqld.sock"
    )
    assert storage.name == "mysql:///run/mysqld/mysqld.sock/bots"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://bot:secret@localhost", "names no database"),
        ("mysql://bot:secret@localhost/", "names no database"),
        ("mysql:///bots", "write mysql://"),
        ("mysql://bot:secret@localhost/bots?tabel=x", "unknown option tabel; there are"),
        ("mysql://bot:secret@localhost/bots?create=1", "create must be true or false"),
        ("mysql://bot:secret@localhost/bots?max_connections=0", "must be at least 1"),
        ("mysql://bot:secret@localhost/bots?command_timeout=0", "command_timeout=0.0 must be"),
        ("mysql://bot:secret@localhost/bots?table=", "no name for a table"),
        ("mysql://bot:secret@localhost/bots?tls_ca=/absent.pem", "tls_ca can't be read"),
        ("mysql://bot:secret@localhost:port/bots", "can't be read"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_and_no_password(url, says):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("table", ["", "a\0b", "x" * 58, "ends in a space "])
def test_what_can_be_no_table_is_refused(table):
    with pytest.raises(ConfigurationError, match="no name for a table"):
        MySQLStorage("mysql://localhost/bots", table=table)


def test_options_in_a_url_are_not_overlooked_where_keywords_tell_them():
    with pytest.raises(ConfigurationError, match="from_url"):
        MySQLStorage("mysql://localhost/bots?table=mine")


@pytest.mark.parametrize("table", ["x" * 57, "a `quoted` \"name\" 'of' %s", "сессии", "select"])
async def test_any_name_of_a_table_will_do(mariadb_database, table):
    storage = MySQLStorage(mariadb_database, table=table)
    await storage.put([Put("key", b"1", ANY)])
    assert [record.value for record in await storage.claim(["key"], LEASE)] == [b"1"]
    assert [key async for key in storage.scan()] == ["key"]
    await storage.aclose()


async def test_two_tables_of_a_database_share_nothing(mariadb_database):
    one, two = (
        MySQLStorage(mariadb_database, table="one"),
        MySQLStorage(mariadb_database, table="two"),
    )
    await one.put([Put("key", b"1", ANY)])
    await one.claim(["key"], LEASE)
    assert await two.claim(["key"], Lease("two", 60)) == [None]
    await one.aclose()
    await two.aclose()


async def test_the_tables_can_be_made_by_somebody_who_may_more(mariadb_database, mariadb):
    made_by_root = MySQLStorage(mariadb_database)
    await query(
        mariadb_database,
        *made_by_root.ddl.split(";\n")[:2],
        "DROP USER IF EXISTS bot",
        "CREATE USER bot IDENTIFIED BY 'päss/wörd@:'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON gramkeep_sessions TO bot",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON gramkeep_sessions_leases TO bot",
    )
    name = connect_arguments(mariadb_database)["database"]
    url = f"mysql://bot:p%C3%A4ss%2Fw%C3%B6rd%40%3A@127.0.0.1:{mariadb.port}/{name}"
    for options in ({}, {"create": False}):
        storage = MySQLStorage(url, **options)
        assert await storage.claim(["key"], LEASE) == [None]
        assert await storage.put([Put("key", DELETE, ANY)], LEASE) == [True]
        await storage.setup()
        await storage.aclose()


async def test_tables_that_are_missing_are_named_with_the_way_to_make_them(mariadb_database):
    storage = MySQLStorage(mariadb_database, create=False)
    with pytest.raises(StorageUnavailable, match=r"doesn't exist .*storage\.setup\(\)"):
        await storage.get(["key"])
    await storage.setup()
    await storage.setup()
    assert await storage.get(["key"]) == [None]
    await storage.aclose()


async def test_a_table_dropped_meanwhile_is_not_made_up_again(mariadb_database):
    storage = MySQLStorage(mariadb_database)
    await storage.put([Put("key", b"1", ANY)])
    await query(mariadb_database, "DROP TABLE gramkeep_sessions")
    with pytest.raises(StorageUnavailable, match="doesn't exist"):
        await storage.get(["key"])
    await storage.aclose()


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(mariadb):
    storage = MySQLStorage(f"mysql://nobody:secret@127.0.0.1:{mariadb.port}/bots")
    with pytest.raises(StorageUnavailable, match="Access denied") as caught:
        await storage.get(["key"])
    assert "secret" not in f"{caught.value!r} {caught.value} {storage!r} {storage.name}"
    await storage.aclose()


async def test_a_pool_takes_the_name_of_a_database(mariadb_database):
    arguments = connect_arguments(mariadb_database)
    name = arguments.pop("database")
    async with asyncmy.create_pool(**arguments, minsize=0) as pool:
        storage = MySQLStorage(pool, database=name)
        assert await storage.put([Put("key", b"1", ANY)]) == [True]
        assert storage.name == f"mysql:///{name}"
        await storage.aclose()


@pytest.fixture(scope="module")
def certificates():
    """Give a folder with the certificate of a server, and that of the authority behind it."""
    folder = server_folder("tls", user=USER)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tls_server(certificates):
    certificate = certificates / "server.pem"
    with running_server(
        f"--ssl-cert={certificate}", f"--ssl-key={certificate}", "--require-secure-transport=ON"
    ) as server:
        yield server


async def test_tls_is_spoken_with_a_server_whose_certificate_is_trusted(tls_server, certificates):
    socket = f"unix_socket={tls_server.socket}"
    by_socket = MySQLStorage.from_url(f"{tls_server.url('mysql')}?{socket}")
    assert await by_socket.put([Put("key", b"1", ANY)]) == [True]
    await by_socket.aclose()

    trusting = MySQLStorage.from_url(
        f"{tls_server.url('mysql')}?tls_ca={certificates / 'authority.pem'}"
    )
    assert [record.value for record in await trusting.get(["key"])] == [b"1"]
    await trusting.aclose()


async def test_a_certificate_of_nobody_known_is_refused(tls_server):
    storage = MySQLStorage(tls_server.url("mysql"), tls=True)
    with pytest.raises(StorageUnavailable, match="certificate verify failed"):
        await storage.get(["key"])
    await storage.aclose()


async def test_a_server_that_wants_tls_is_not_spoken_to_without(tls_server):
    storage = MySQLStorage(tls_server.url("mysql"))
    with pytest.raises(StorageUnavailable, match=r"insecure transport|Access denied"):
        await storage.get(["key"])
    await storage.aclose()


async def test_a_server_without_tls_is_not_spoken_to_where_tls_is_wanted(mariadb_database):
    context = ssl.create_default_context()
    storage = MySQLStorage(mariadb_database, tls=context)
    with pytest.raises(StorageUnavailable):
        await storage.get(["key"])
    await storage.aclose()
