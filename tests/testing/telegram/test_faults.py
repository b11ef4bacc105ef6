"""Faults: what the bot sees, how often, and how they end."""

import asyncio
import time

import aiohttp
import pytest
from aiogram import Dispatcher
from aiogram.exceptions import TelegramRetryAfter, TelegramServerError
from aiogram.types import Message

from gramkeep.testing import UsageError


async def test_too_many_requests_tells_when_to_try_again(telegram, call):
    fault = telegram.faults.too_many_requests(retry_after=3, times=2)
    for _ in range(2):
        assert await call("getMe") == {
            "ok": False,
            "error_code": 429,
            "description": "Too Many Requests: retry after 3",
            "parameters": {"retry_after": 3},
        }
    assert (await call("getMe"))["ok"]
    assert fault.used == 2


async def test_a_fault_hits_only_its_methods_in_any_case(telegram, call):
    telegram.faults.server_error(503, "Service Unavailable", methods={"sendmessage"})
    alice = telegram.user("Alice")
    assert (await call("getMe"))["ok"]
    answer = await call("sendMessage", chat_id=alice.id, text="hi")
    assert (answer["error_code"], answer["description"]) == (503, "Service Unavailable")
    assert alice.chat.messages == []


async def test_a_fault_ends_with_its_block_or_when_cleared(telegram, call):
    with telegram.faults.server_error():
        assert (await call("getMe"))["error_code"] == 502
    assert (await call("getMe"))["ok"]
    fault = telegram.faults.server_error()
    fault.clear()
    assert (await call("getMe"))["ok"]
    telegram.faults.server_error()
    telegram.faults.clear()
    assert (await call("getMe"))["ok"]


async def test_a_slow_call_is_carried_out_after_the_delay(telegram, call):
    telegram.faults.slow(0.05, methods={"getMe"})
    before = time.monotonic()
    assert (await call("getMe"))["ok"]
    assert time.monotonic() - before >= 0.05


async def test_a_dropped_request_is_not_carried_out(telegram, call):
    telegram.faults.drop_request(times=1)
    alice = telegram.user("Alice")
    with pytest.raises(aiohttp.ClientError):
        await call("sendMessage", chat_id=alice.id, text="hi")
    assert alice.chat.messages == []
    assert telegram.calls[-1].dropped
    assert not telegram.calls[-1].ok


async def test_a_dropped_answer_hides_a_call_that_was_carried_out(telegram, call):
    telegram.faults.drop_answer(times=1)
    alice = telegram.user("Alice")
    with pytest.raises(aiohttp.ClientError):
        await call("sendMessage", chat_id=alice.id, text="hi")
    assert (await alice.next_answer()).text == "hi"
    assert telegram.calls[-1].dropped
    assert telegram.calls[-1].ok


async def test_updates_in_a_dropped_answer_come_again(telegram, call):
    telegram.faults.drop_answer(times=1, methods={"getUpdates"})
    await telegram.user("Alice").write("hi")
    with pytest.raises(aiohttp.ClientError):
        await call("getUpdates")
    [update] = (await call("getUpdates"))["result"]
    assert update["message"]["text"] == "hi"


async def test_faults_of_methods_nobody_knows_are_refused(telegram):
    with pytest.raises(UsageError, match="sendTelepathy"):
        telegram.faults.drop_request(methods={"sendTelepathy"})
    with pytest.raises(UsageError, match="takes a set"):
        telegram.faults.drop_request(methods="getMe")


async def test_aiogram_knows_the_faults_by_their_names(telegram, aiogram_bot):
    alice = telegram.user("Alice")
    telegram.faults.too_many_requests(retry_after=7, times=1)
    with pytest.raises(TelegramRetryAfter) as caught:
        await aiogram_bot.send_message(alice.id, "hi")
    assert caught.value.retry_after == 7
    telegram.faults.server_error(times=1)
    with pytest.raises(TelegramServerError):
        await aiogram_bot.send_message(alice.id, "hi")


async def test_an_aiogram_bot_lives_through_faults_of_get_updates(telegram, polling):
    dispatcher = Dispatcher()
    seen = []

    @dispatcher.message()
    async def note(message: Message):
        seen.append(message.text)
        await message.answer(message.text)

    alice = telegram.user("Alice")
    telegram.faults.drop_answer(times=1, methods={"getUpdates"})
    telegram.faults.deliver_twice(times=1)
    async with polling(dispatcher):
        await alice.write("hi")
        await alice.answers(2, timeout=10)
    assert seen == ["hi", "hi"]


async def test_a_fault_can_be_switched_on_while_a_call_waits(telegram, call):
    poll = asyncio.create_task(call("getUpdates", timeout=50))
    await telegram.bot_listening()
    telegram.faults.drop_answer(times=1)
    await telegram.user("Alice").write("hi")
    with pytest.raises(aiohttp.ClientError):
        await poll
