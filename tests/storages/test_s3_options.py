"""How S3Storage is told where the sessions are."""

import asyncio
from datetime import timedelta

import pytest
from obstore.store import S3Store
from servers.s3 import BUCKET, s3_server  # noqa: F401 - a fixture

from gramkeep import ConfigurationError, Sessions
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.s3 import S3Storage


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket/bots/shop/", "s3://my.bucket/bots/shop"),
        ("s3://bucket/a%20b", "s3://bucket/a b"),
        (
            "s3://bucket/p?endpoint=https://s3.example.com&region=eu-central-1&timeout=3",
            "s3://bucket/p?endpoint=https://s3.example.com",
        ),
        (
            "s3://bucket/p?access_key_id=AKIA1&secret_access_key=hunter2&session_token=t0ken",
            "s3://bucket/p",
        ),
        ("s3://bucket?connect_timeout=1&max_connections=5", "s3://bucket"),
    ],
)
def test_a_url_names_the_place_and_the_name_has_no_secrets(url, name):
    storage = storage_from_url(url)
    assert type(storage) is S3Storage
    assert storage.name == name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://", "s3://bucket/prefix"),
        ("s3:///prefix", "s3://bucket/prefix"),
        ("s3://key:hunter2@bucket", "s3://bucket/prefix"),
        ("s3://bucket?secret_access_key=hunter2&bucket=x", "unknown option bucket"),
        ("s3://bucket?timeout=soon", "timeout must be a number of seconds"),
        ("s3://bucket?timeout=0", "timeout=0.0 must be"),
        ("s3://bucket?max_connections=many", "max_connections must be a whole number"),
        ("s3://bucket?max_connections=0", "max_connections=0 must be"),
        ("s3://bucket?endpoint=example.com", "endpoint= must be http://host or https://host"),
        ("s3://bucket?endpoint=https://k:hunter2@example.com", "without a name or password"),
        ("s3://bucket/../other", "none of them . or .."),
        ("s3://bucket/a//b", "names with a slash between them"),
        ("s3://bucket/%2e", "none of them . or .."),
    ],
)
def test_a_url_that_names_no_place_says_so_without_its_secrets(url, says):
    with pytest.raises(ConfigurationError) as caught:
        storage_from_url(url)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("",), {}, "the name of a bucket"),
        (("a/b",), {}, "the name of a bucket"),
        ((None,), {}, "the name of a bucket"),
        (("b",), {"timeout": -1}, "timeout=-1"),
        (("b",), {"connect_timeout": timedelta(0)}, "connect_timeout="),
        (("b",), {"max_connections": True}, "max_connections=True"),
        (("b",), {"max_connections": 1.5}, "max_connections=1.5"),
        ((S3Store("b"),), {"region": "eu-central-1"}, "region: the S3Store .* has its own"),
    ],
)
def test_wrong_options_are_refused_at_once(arguments, options, says):
    with pytest.raises(ConfigurationError, match=says):
        S3Storage(*arguments, **options)


def test_the_name_of_a_users_store_is_its_bucket_with_both_prefixes():
    store = S3Store("bucket", prefix="bots", secret_access_key="hunter2", access_key_id="k")
    assert S3Storage(store, "shop").name == "s3://bucket/bots/shop"
    assert S3Storage(store).name == "s3://bucket/bots"


def test_an_environment_that_makes_no_sense_is_told_while_setting_up(monkeypatch):
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "perhaps")
    with pytest.raises(ConfigurationError, match="obstore can't make an S3 client"):
        S3Storage("bucket")


def test_making_a_storage_asks_nobody():
    S3Storage("bucket", endpoint="http://127.0.0.1:1")
    asyncio.run(S3Storage("bucket", endpoint="http://127.0.0.1:1").aclose())


async def test_what_is_not_given_comes_from_the_environment(s3_server, monkeypatch):  # noqa: F811
    for name, value in s3_server.options.items():
        variable = {"endpoint": "ENDPOINT_URL"}.get(name, name.upper())
        monkeypatch.setenv(f"AWS_{variable}", value)
    async with Sessions(initial=dict, storage=f"s3://{BUCKET}/environment") as sessions:
        await sessions.update("42", lambda _: {"count": 1})
        assert await sessions.get("42") == {"count": 1}


async def test_a_url_with_everything_in_it_opens(s3_server):  # noqa: F811
    async with Sessions(initial=dict, storage=s3_server.url()) as sessions:
        await sessions.update("url", lambda _: {"count": 1})
        assert await sessions.get("url") == {"count": 1}
