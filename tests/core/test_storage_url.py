"""From a URL to its storage, and what may be said of it."""

import pytest

from gramkeep import ConfigurationError, MemorySessionStorage
from gramkeep.storage_url import BACKENDS, storage_from_url
from gramkeep.storages.sqlite import SQLiteStorage
from gramkeep.storages.url_options import without_password


def test_a_url_gives_the_storage_it_names(tmp_path, monkeypatch):
    assert isinstance(storage_from_url("memory://"), MemorySessionStorage)
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///bot.db", "sqlite:////var/lib/bot.db"):
        storage = storage_from_url(url)
        assert isinstance(storage, SQLiteStorage)
        assert storage.name == url
    assert list(tmp_path.iterdir()) == []  # nothing is opened before it is used


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("bot.db", "has no scheme"),
        ("sqlite:bot.db", "has no scheme"),
        ("", "has no scheme"),
        ("oracle://host/db", "unknown scheme 'oracle'"),
        ("SQLITE3://bot.db", "unknown scheme"),
        ("memory://somewhere", "memory:// takes nothing more"),
        ("memory:///path", "memory:// takes nothing more"),
        ("memory://?x=1", "memory:// takes nothing more"),
        ("redis://[oops", "redis"),
        ("memory://[oops", "memory"),
        ("sqlite://[oops", "sqlite"),
        ("sqlite://bot.db", "write sqlite:///bot.db"),
        ("sqlite:///", "write sqlite:///bot.db"),
        ("sqlite://", "write sqlite:///bot.db"),
        ("sqlite:///:memory:", "needs the path of a file"),
        ("sqlite:///bot.db?mode=ro", "unknown option mode"),
        ("sqlite:///bot.db?busy_timeout=soon", "busy_timeout must be a number of seconds"),
        ("sqlite:///bot.db?busy_timeout=0", "busy_timeout=0.0 must be"),
        ("sqlite:///bot.db?busy_timeout=-1", "busy_timeout=-1.0 must be"),
        ("sqlite:///bot.db?busy_timeout=inf", "busy_timeout=inf must be"),
        ("sqlite:///bot.db?synchronous=off", "synchronous='off' must be"),
        ("sqlite:///bot.db?table=", "table='' is no name"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_with_the_reason(url, text):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(url)
    assert text in str(caught.value)


def test_the_error_for_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url("oracle://host")
    for scheme in BACKENDS:
        assert f"{scheme}://" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "oracle://user:xq7zw9@host/db",
        "oracle://:xq7zw9@host",
        "oracle://user:xq7zw9@host:5432/db",
        "oracle://user:xq7zw9@host:5432/db@home",
        "oracle://user:xq7:zw9@host",
        "oracle://user:xq7zw9:@host",
        "oracle://user:xq7@zw9@host",
        "oracle://user:xq7/zw9@host",
        "oracle://user:xq7zw9@host1,user:xq7zw9@host2/db",
        "oracle://host/db?password=xq7zw9",
        "oracle://host/db?user=u&password=xq7zw9&x=1",
        "oracle://host/db?Password=xq7zw9",
        "oracle://host/db?secret_access_key=xq7zw9",
    ],
)
def test_no_part_of_a_password_is_ever_said(url):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(url)
    for text in (str(caught.value), without_password(url)):
        assert "xq7" not in text
        assert "zw9" not in text
        assert "ho" in text  # still to be told from others


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///bot.db",
        "redis://host:6379/0",
        "postgresql://user@host/db",
        "mongodb://host1:27017,host2:27017/db?replicaSet=rs0",
    ],
)
def test_a_url_without_a_password_is_said_as_it_is(url):
    assert without_password(url) == url
