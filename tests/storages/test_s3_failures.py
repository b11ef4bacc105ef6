"""What S3Storage does when the server, or the way to it, fails."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from obstore.store import S3Store
from servers.process import free_port
from servers.s3 import BUCKET, S3Server, s3_server  # noqa: F401 - a fixture

from gramkeep import Sessions, StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, Put
from gramkeep.storages.s3 import S3Storage
from gramkeep.testing.proxy import TCPProxy

PATIENCE = 30.0  # seconds, where a server that is there must answer
IMPATIENCE = 1.0  # where none does


async def put(storage, key, value, expected=ANY, ttl=None):
    (answer,) = await storage.put([Put(key, value, expected, ttl)])
    return answer


async def value(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


async def token(storage, key):
    (record,) = await storage.get([key])
    return record.token


@pytest.fixture
async def proxy(s3_server):  # noqa: F811
    async with TCPProxy("127.0.0.1", s3_server.port) as proxy:
        yield proxy


@pytest.fixture
async def storage(s3_server, proxy):  # noqa: F811
    """A storage whose way leads through the proxy, with a session under ``old``."""
    options = s3_server.options | {"endpoint": f"http://{proxy.address}"}
    storage = S3Storage(BUCKET, f"test-{time.time_ns():x}", timeout=PATIENCE, **options)
    await put(storage, "old", b"1")
    yield storage
    await storage.aclose()


# No answer


async def test_a_server_that_is_not_there_is_told_in_good_time(s3_server):  # noqa: F811
    options = s3_server.options | {"endpoint": f"http://127.0.0.1:{free_port()}"}
    storage = S3Storage(BUCKET, **options)
    start = time.monotonic()
    for call in (storage.get(["42"]), put(storage, "42", b"1", ABSENT), anext(storage.scan())):
        with pytest.raises(StorageUnavailable) as caught:
            await call
        assert caught.value.storage == storage.name
        assert "Debug source" not in str(caught.value)
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("how", ["stall", "drop_answers"])
async def test_waiting_for_an_answer_ends_and_the_storage_recovers(
    storage, proxy, how, monkeypatch
):
    getattr(proxy, how)()
    monkeypatch.setattr(storage._open().objects, "_timeout", IMPATIENCE)
    start = time.monotonic()
    calls = (
        storage.get(["old"]),
        put(storage, "new", b"1", ABSENT),
        put(storage, "old", DELETE),
        storage.prune(10),
        anext(storage.scan()),
    )
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, StorageUnavailable)
        assert "no answer within 1 s" in answer.reason
    assert time.monotonic() - start < 2 * IMPATIENCE + 4  # not one after the other
    proxy.resume()
    monkeypatch.undo()
    assert await value(storage, "old") == b"1"
    assert await put(storage, "42", b"1", ABSENT) is True


async def answered(call):
    """Make a call twenty times at once, until a server that may be slow has answered them all."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(StorageUnavailable):
                return await asyncio.gather(*map(call, range(20)))


async def test_a_server_that_was_killed_and_came_back_is_found_again():
    server = S3Server()
    try:
        server.start()
        storage = S3Storage(BUCKET, timeout=3, **server.options)
        assert await answered(lambda n: put(storage, f"{n}", b"1")) == [True] * 20
        server.kill()
        with pytest.raises(StorageUnavailable):
            await storage.get(["1"])
        with pytest.raises(StorageUnavailable):
            await put(storage, "1", b"2")
        server.start()
        assert await answered(lambda n: put(storage, f"{n}", b"2")) == [True] * 20
        assert await answered(lambda n: value(storage, f"{n}")) == [b"2"] * 20
    finally:
        server.remove()


async def test_connections_that_died_unnoticed_fail_no_call(storage, proxy):
    for _ in range(3):
        await asyncio.gather(*(storage.get(["old"]) for _ in range(10)))
        assert proxy.open > 0
        proxy.cut()
        await asyncio.sleep(0.05)
        assert await put(storage, "old", b"2", await token(storage, "old")) is True
        proxy.cut()
        await asyncio.sleep(0.05)
        assert await put(storage, "old", b"1", await token(storage, "old")) is True


async def test_there_are_no_more_connections_than_was_said(s3_server, proxy):  # noqa: F811
    options = s3_server.options | {"endpoint": f"http://{proxy.address}"}
    storage = S3Storage(BUCKET, f"test-{time.time_ns():x}", max_connections=3, **options)
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, proxy.open)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    await storage.put([Put(f"{n}", b"1", ANY) for n in range(100)])
    await asyncio.gather(*(storage.get([f"{n}"]) for n in range(100)))
    watching.cancel()
    assert 0 < most <= 2 * 3  # one client reads, one writes


# Answers that get lost


async def do_and_lose_the_answer(proxy, call):
    """Cut the connection when the server has done what it was asked, and let the call go on."""
    proxy.drop_answers()
    task = asyncio.create_task(call)
    await asyncio.wait_for(proxy.dropped(), PATIENCE)
    proxy.resume()
    return await task


async def test_a_write_whose_answer_was_lost_is_known_to_be_done(storage, proxy):
    call = put(storage, "new", b"1", ABSENT)
    assert await do_and_lose_the_answer(proxy, call) is True
    basis = await token(storage, "new")
    assert await do_and_lose_the_answer(proxy, put(storage, "new", b"2", basis)) is True
    assert await value(storage, "new") == b"2"
    basis = await token(storage, "new")
    assert await do_and_lose_the_answer(proxy, put(storage, "new", DELETE, basis)) is True
    assert await value(storage, "new") is None


@pytest.mark.parametrize("is_token", [True, False])
async def test_a_refusal_whose_answer_was_lost_is_not_known_to_be_one(storage, proxy, is_token):
    """What is there may have been written over ours, too."""
    basis = await token(storage, "old") if is_token else ABSENT
    await put(storage, "old", b"2")
    with pytest.raises(StorageUnavailable, match="whether the session was written is not known"):
        await do_and_lose_the_answer(proxy, put(storage, "old", b"3", basis))
    assert await value(storage, "old") == b"2"


async def test_a_write_that_got_lost_on_its_way_is_done_again(storage, proxy):
    for basis, content in ((await token(storage, "old"), b"2"), (ABSENT, b"new")):
        key = "new" if basis is ABSENT else "old"
        proxy.stall()
        task = asyncio.create_task(put(storage, key, content, basis))
        await asyncio.sleep(0.1)
        proxy.cut()
        proxy.resume()
        assert await task is True
        assert await value(storage, key) == content


async def test_a_write_of_which_nothing_is_known_raises_and_says_so(storage, proxy):
    basis = await token(storage, "old")
    proxy.drop_answers()
    task = asyncio.create_task(put(storage, "old", b"3", basis))
    await asyncio.wait_for(proxy.dropped(), PATIENCE)
    proxy.refuse()
    proxy.cut()
    with pytest.raises(StorageUnavailable, match="whether the session was written is not known"):
        await task
    proxy.resume()
    assert await value(storage, "old") == b"3"


async def test_under_a_bad_network_no_acknowledged_increment_is_lost(storage, proxy):
    """Each connection lives a few milliseconds, at the wrong moments."""
    acknowledged = unknown = 0
    is_over = False

    async def cut():
        lives, before = 0.015, 0
        while not is_over:
            await asyncio.sleep(lives)
            proxy.cut()
            # The longer the longer nothing gets done, as on a machine that takes more for it.
            lives = 0.015 if acknowledged > before else lives * 1.1
            before = acknowledged

    cutting = asyncio.create_task(cut())
    async with Sessions(initial=lambda: 0, data_type=int, storage=storage) as sessions:
        end = time.monotonic() + 3
        while time.monotonic() < end or acknowledged <= 3:
            try:
                await sessions.update("counter", lambda count: count + 1)
                acknowledged += 1
            except StorageUnavailable:
                unknown += 1
        is_over = True
        await cutting
        stored = await sessions.get("counter") or 0
    assert acknowledged <= stored <= acknowledged + unknown


# Answers that are none


class Answering(BaseHTTPRequestHandler):
    """A server that answers every request with the same."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self.server.answers(self.command)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 14:32:25 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    def log_message(self, *_):
        pass


@asynccontextmanager
async def answering(answers):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    server.answers = answers
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        credentials = {"access_key_id": "k", "secret_access_key": "s"}
        yield S3Storage("b", endpoint=endpoint, timeout=PATIENCE, **credentials)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


@pytest.mark.parametrize("body", [b"", b"<h1>Not Found</h1>", b"<Code>NoSuchBucket</Code>"])
async def test_a_server_that_knows_nothing_does_not_say_that_there_is_no_session(body):
    async with answering(lambda _: (404, body)) as storage:
        for call in (storage.get(["42"]), put(storage, "42", b"1"), anext(storage.scan())):
            with pytest.raises(StorageUnavailable):
                await call


async def test_a_server_that_heeds_no_conditions_is_refused_before_anything_is_written():
    methods = []

    def answers(method):
        methods.append(method)
        missing = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
        return (404, missing) if method == "GET" else (200, b"")

    async with answering(answers) as storage:
        assert await value(storage, "42") is None
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match="whatever the condition"):
                await put(storage, "42", b"1", ABSENT)


async def test_a_server_that_is_busy_for_a_moment_is_asked_again():
    busy = [503, 503, 200]

    def answers(method):
        return (busy.pop(0), b"1") if method == "GET" else (500, b"")

    async with answering(answers) as storage:
        assert await value(storage, "42") == b"1"
        assert busy == []


# Wrong places and credentials


@pytest.mark.parametrize(
    ("option", "wrong", "says"),
    [
        ("secret_access_key", "hunter2", "SignatureDoesNotMatch"),
        ("access_key_id", "nobody", "InvalidAccessKeyId"),
    ],
)
async def test_wrong_credentials_are_said_to_be_it(s3_server, option, wrong, says):  # noqa: F811
    storage = S3Storage(BUCKET, **s3_server.options | {option: wrong})
    for call in (
        storage.get(["42"]),
        put(storage, "42", b"1", ABSENT),
        put(storage, "42", DELETE),
        anext(storage.scan()),
        storage.prune(10),
    ):
        with pytest.raises(StorageUnavailable, match="the credentials were refused") as caught:
            await call
        assert says in caught.value.reason
        assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r} {storage.name}"


async def test_a_bucket_that_is_not_there_is_no_bucket_without_sessions(s3_server):  # noqa: F811
    storage = S3Storage("not-there", **s3_server.options)
    for call in (storage.get(["42"]), anext(storage.scan()), storage.prune(10)):
        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            await call


# Processes and event loops


def test_a_storage_goes_on_in_another_event_loop(s3_server):  # noqa: F811
    storage = S3Storage(BUCKET, f"test-{time.time_ns():x}", max_connections=2, **s3_server.options)

    async def count():
        record = (await storage.get(["42"]))[0]
        count = 0 if record is None else int(record.value)
        await asyncio.gather(*(put(storage, f"beside {n}", b"1") for n in range(20)))
        assert await put(storage, "42", b"%d" % (count + 1), record.token if record else ABSENT)
        return count + 1

    assert [asyncio.run(count()) for _ in range(3)] == [1, 2, 3]


FORKED = """
import asyncio, os, sys
from gramkeep import StorageUnavailable
from gramkeep.storages.s3 import S3Storage

storage = S3Storage.from_url(sys.argv[1])
if sys.argv[2] == "used":
    asyncio.run(storage.get(["42"]))
child = os.fork()
if child == 0:
    try:
        print(asyncio.run(storage.get(["42"])), flush=True)
    except StorageUnavailable as error:
        print(error.reason, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(asyncio.run(storage.get(["42"])), flush=True)
os._exit(0)  # obstore's threads may abort a process that ends in the moment of an answer
"""


@pytest.mark.parametrize(
    ("use", "says"), [("used", "Fork before the first use"), ("new", "[None]")]
)
def test_a_forked_process_can_use_it_unless_it_was_used_before(
    s3_server,  # noqa: F811
    use,
    says,
):
    run = subprocess.run(
        [sys.executable, "-c", FORKED, s3_server.url(), use],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ,
    )
    in_child, in_parent = run.stdout.splitlines()
    assert says in in_child
    assert in_parent == "[None]"


async def test_over_tls_with_a_client_of_the_users(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (tmp_path / "certificate.pem").write_bytes(chain)
    server = S3Server(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
    options = server.options | {"endpoint": f"https://127.0.0.1:{server.tls_port}"}
    try:
        server.start()
        root = authority.cert_pem.bytes().decode()
        client = S3Store(BUCKET, client_options={"root_certificate": root}, **options)
        assert await put(S3Storage(client), "42", b"1", ABSENT) is True
        with pytest.raises(StorageUnavailable):
            await S3Storage(BUCKET, **options).get(["42"])
    finally:
        server.remove()
