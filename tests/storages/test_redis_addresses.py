"""Where a Redis is: URLs, clients, and what errors and logs call them."""

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster

from gramkeep import ConfigurationError
from gramkeep.storage_url import storage_from_url
from gramkeep.storages.redis import RedisStorage

NAMES = {
    "redis://": "redis://localhost:6379/0",
    "redis://db.example": "redis://db.example:6379/0",
    "redis://bot:secret@db.example:6380/3": "redis://bot@db.example:6380/3",
    "redis://:s%40cret@db.example/1?timeout=3": "redis://db.example:6379/1",
    "redis://[::1]:7000/2": "redis://[::1]:7000/2",
    "rediss://db.example?ssl_ca_certs=/etc/ca.pem": "rediss://db.example:6379/0",
    "valkey://db.example": "valkey://db.example:6379/0",
    "valkeys://db.example": "valkeys://db.example:6379/0",
    "redis+cluster://a:1,b:2,c": "redis+cluster://a:1,b:2,c:6379",
    "valkeys+cluster://:secret@a:1/0": "valkeys+cluster://a:1",
    "redis+sentinel://bot:secret@a:1,b/main": "redis+sentinel://bot@a:1,b:26379/main/0",
    "rediss+sentinel://a/main/5?sentinel_password=secret": "rediss+sentinel://a:26379/main/5",
}

COMPLAINTS = {
    "redis://a,b/0": "several hosts",
    "redis://db.example/bot": "the database is a number",
    "redis://db.example/0/1": "the database is a number",
    "redis+cluster://a/1": "one database",
    "redis+sentinel://a,b": "say the service",
    "redis+sentinel://a,b/main/bot": "the database is a number",
    "redis://db.example:port/0": "the port is a number",
    "redis://:sec#ret@db.example": "in a password",
    "redis://:sec/ret@db.example": "in a password",
    "redis://db.example?ssl_ca_certs=x": "unknown option ssl_ca_certs",
    "redis://db.example?sentinel_password=x": "unknown option sentinel_password",
    "redis://db.example?timeout=soon": "timeout must be a number of seconds",
    "redis://db.example?timeout=0": "timeout=0",
    "redis://db.example?protocol=4": "protocol",
    "redis://db.example?wait_replicas=-1": "wait_replicas=-1",
    "redis://db.example?wait_replicas=1&wait_timeout=10": "must be less than timeout",
    "rediss://db.example?ssl_cert_reqs=maybe": "ssl_cert_reqs",
    "rediss://db.example?ssl_check_hostname=maybe": "true or false",
}


@pytest.mark.parametrize(("url", "name"), NAMES.items())
async def test_a_storage_is_called_by_its_url_without_the_password(url, name):
    storage = storage_from_url(url)
    assert isinstance(storage, RedisStorage)
    assert storage.name == name
    assert "secret" not in repr(storage)
    await storage.aclose()


@pytest.mark.parametrize(("url", "complaint"), COMPLAINTS.items())
def test_a_url_that_can_not_be_right_is_refused(url, complaint):
    with pytest.raises(ConfigurationError) as raised:
        storage_from_url(url)
    assert complaint in str(raised.value)
    assert "sec" not in str(raised.value).replace("a number of seconds", "")
    assert raised.value.__cause__ is None


async def test_clients_name_their_servers():
    async with (
        Redis(host="db.example", port=6380, db=3, password="secret") as one,
        Redis(unix_socket_path="/run/redis.sock") as local,
    ):
        assert RedisStorage(one).name == "redis://db.example:6380/3"
        assert RedisStorage(local).name == "unix:///run/redis.sock"
    cluster = RedisCluster(startup_nodes=[ClusterNode("a.example", 1), ClusterNode("b.example", 2)])
    storage = RedisStorage(cluster)
    assert storage.name == "redis+cluster://a.example:1,b.example:2"
    assert (storage.transactional, RedisStorage(one).transactional) == (False, True)


def test_what_is_no_client_is_refused():
    with pytest.raises(ConfigurationError, match=r"not str; RedisStorage.from_url\(\) takes a URL"):
        RedisStorage("redis://localhost")
