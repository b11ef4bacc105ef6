"""How calls reach the server: methods, tokens, encodings; how it starts and stops."""

import asyncio
import json
import logging
import socket

import aiohttp
import pytest

from gramkeep.testing import TelegramServer, UsageError


async def test_get_me_describes_the_bot(telegram, result):
    me = await result("getMe")
    assert me["id"] == int(telegram.token.split(":")[0])
    assert me["is_bot"] is True
    assert me["username"] == "test_bot"
    assert me["can_join_groups"] is True


@pytest.mark.parametrize("method", ["getMe", "getme", "GETME"])
async def test_method_names_are_case_insensitive(telegram, result, method):
    assert (await result(method))["is_bot"] is True
    assert telegram.calls[-1].method == "getMe"


async def test_a_wrong_token_is_unauthorized(telegram, http):
    async with http.get(f"{telegram.url}/bot42:wrong/getMe") as got:
        assert got.status == 401
        assert await got.json() == {
            "ok": False,
            "error_code": 401,
            "description": "Unauthorized",
        }


async def test_an_unknown_method_is_not_found_and_named_in_the_log(call, caplog):
    with caplog.at_level(logging.WARNING, "gramkeep.testing.telegram"):
        answer = await call("sendTelepathy")
    assert answer == {"ok": False, "error_code": 404, "description": "Not Found"}
    assert "sendTelepathy" in caplog.text


async def test_a_path_outside_the_bot_api_is_named_in_the_log(telegram, http, caplog):
    async with http.get(f"{telegram.url}/{telegram.token}/getMe") as got:
        assert got.status == 404
    assert "/bot<token>/<method>" in caplog.text


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["query", "urlencoded", "multipart", "json"])
async def test_parameters_are_read_from_every_encoding_with_get_and_post(
    telegram, http, verb, encoding
):
    alice = telegram.user("Alice")
    keyboard = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}
    flat = {"chat_id": str(alice.id), "text": "é & +", "reply_markup": json.dumps(keyboard)}
    multipart = aiohttp.FormData(default_to_multipart=True)
    for name, value in flat.items():
        multipart.add_field(name, value)
    body = {
        "query": {"params": flat},
        "urlencoded": {"data": flat},
        "multipart": {"data": multipart},
        "json": {"json": {"chat_id": alice.id, "text": "é & +", "reply_markup": keyboard}},
    }[encoding]
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    async with http.request(verb, url, **body) as got:
        assert (await got.json())["ok"]
    answer = await alice.next_answer()
    assert answer.text == "é & +"
    assert answer.button_texts == ["Yes"]


async def test_query_and_body_are_merged(telegram, http):
    alice = telegram.user("Alice")
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    async with http.post(url, params={"chat_id": alice.id}, data={"text": "hi"}) as got:
        assert (await got.json())["result"]["text"] == "hi"


async def test_an_uploaded_file_is_recorded_with_its_name(telegram, http):
    alice = telegram.user("Alice")
    form = aiohttp.FormData()
    form.add_field("chat_id", str(alice.id))
    form.add_field("caption", "Look")
    form.add_field("document", b"\x00\xff", filename="a.bin", content_type="application/x-a")
    url = f"{telegram.url}/bot{telegram.token}/sendDocument"
    async with http.post(url, data=form) as got:
        message = (await got.json())["result"]
    assert message["document"]["file_name"] == "a.bin"
    assert message["caption"] == "Look"
    upload = telegram.calls[-1].params["document"]
    assert (upload.name, upload.content_type, upload.content) == (
        "a.bin",
        "application/x-a",
        b"\x00\xff",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"data": b"{", "headers": {"Content-Type": "application/json"}},
        {"data": b"[]", "headers": {"Content-Type": "application/json"}},
        {"data": b"\xff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"data": {"reply_markup": "{"}},
    ],
)
async def test_a_body_that_cannot_be_parsed_is_a_bad_request(telegram, http, body):
    url = f"{telegram.url}/bot{telegram.token}/sendMessage"
    async with http.post(url, **body) as got:
        assert got.status == 400
        assert (await got.json())["description"].startswith("Bad Request: ")


async def test_stopping_twice_does_nothing_and_leaves_no_task_or_socket():
    before = asyncio.all_tasks()
    server = TelegramServer()
    await server.start()
    host, port = server.url.removeprefix("http://").split(":")
    await server.stop()
    await server.stop()
    assert asyncio.all_tasks() == before
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


async def test_stopping_ends_a_long_poll_and_a_slow_call(http):
    before = asyncio.all_tasks()
    async with TelegramServer() as telegram:
        telegram.faults.slow(60, methods={"getMe"})
        url = f"{telegram.url}/bot{telegram.token}"
        calls = [
            asyncio.create_task(http.get(f"{url}/getUpdates", params={"timeout": 50})),
            asyncio.create_task(http.get(f"{url}/getMe")),
        ]
        await telegram.bot_listening()
        while len(telegram.calls) < 2:
            await asyncio.sleep(0)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, aiohttp.ClientResponse):
            assert outcome.status == 500
            outcome.release()
        else:
            assert isinstance(outcome, aiohttp.ClientError)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_stopped_server_can_be_started_again_at_the_same_address(http):
    telegram = TelegramServer()
    await telegram.start()
    url = telegram.url
    await telegram.stop()
    await telegram.start()
    try:
        assert telegram.url == url
        async with http.get(f"{url}/bot{telegram.token}/getMe") as got:
            assert got.status == 200
    finally:
        await telegram.stop()


async def test_a_server_that_is_not_running_has_no_url():
    with pytest.raises(UsageError, match="not running"):
        _ = TelegramServer().url


async def test_starting_twice_is_refused(telegram):
    with pytest.raises(UsageError, match="running already"):
        await telegram.start()


async def test_a_taken_port_is_an_os_error(telegram):
    with pytest.raises(OSError):
        await TelegramServer(port=int(telegram.url.rsplit(":", 1)[1])).start()


@pytest.mark.parametrize("token", ["", "42", "x:y", "42:", "42: a"])
def test_a_token_no_bot_could_have_is_refused(token):
    with pytest.raises(UsageError, match="token"):
        TelegramServer(token=token)
