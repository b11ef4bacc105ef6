"""getUpdates: offsets, long polls, filters, conflicts."""

import asyncio

import pytest

from gramkeep.testing import UsageError, WaitTimeout


def texts(updates):
    return [update["message"]["text"] for update in updates]


async def test_updates_come_again_until_a_higher_offset_acknowledges_them(telegram, result):
    alice = telegram.user("Alice")
    for text in ("a", "b", "c"):
        await alice.write(text)
    first = await result("getUpdates")
    assert texts(first) == ["a", "b", "c"]
    assert texts(await result("getUpdates")) == ["a", "b", "c"]
    assert texts(await result("getUpdates", offset=first[1]["update_id"])) == ["b", "c"]
    assert texts(await result("getUpdates")) == ["b", "c"]
    assert await result("getUpdates", offset=first[2]["update_id"] + 1) == []


async def test_update_ids_increase_by_one(telegram, result):
    alice = telegram.user("Alice")
    for _ in range(3):
        await alice.write("x")
    ids = [update["update_id"] for update in await result("getUpdates")]
    assert ids == [ids[0], ids[0] + 1, ids[0] + 2]
    assert ids[0] > 0


async def test_a_negative_offset_forgets_all_but_the_last_updates(telegram, result):
    alice = telegram.user("Alice")
    for text in ("a", "b", "c", "d"):
        await alice.write(text)
    assert texts(await result("getUpdates", offset=-2)) == ["c", "d"]
    assert texts(await result("getUpdates")) == ["c", "d"]
    assert texts(await result("getUpdates", offset=-10)) == ["c", "d"]


async def test_limit_bounds_a_batch_and_is_itself_bounded_by_100(telegram, result):
    alice = telegram.user("Alice")
    for number in range(103):
        await alice.write(str(number))
    assert texts(await result("getUpdates", limit=2)) == ["0", "1"]
    assert len(await result("getUpdates")) == 100
    assert len(await result("getUpdates", limit=500)) == 100
    assert len(await result("getUpdates", limit=0)) == 1


async def test_a_long_poll_ends_when_an_update_comes(telegram, result):
    alice = telegram.user("Alice")
    poll = asyncio.create_task(result("getUpdates", timeout=50))
    await telegram.bot_listening()
    await alice.write("at last")
    assert texts(await poll) == ["at last"]


async def test_a_long_poll_without_updates_ends_empty(result):
    assert await result("getUpdates", timeout=1) == []


async def test_a_second_long_poll_ends_the_first_with_a_conflict(telegram, call):
    alice = telegram.user("Alice")
    older = asyncio.create_task(call("getUpdates", timeout=50))
    await telegram.bot_listening()
    newer = asyncio.create_task(call("getUpdates", timeout=50))
    assert await older == {
        "ok": False,
        "error_code": 409,
        "description": "Conflict: terminated by other getUpdates request; "
        "make sure that only one bot instance is running",
    }
    await alice.write("hi")
    assert texts((await newer)["result"]) == ["hi"]


async def test_polling_is_a_conflict_while_a_webhook_is_set(call, result):
    await result("setWebhook", url="http://127.0.0.1:9/none")
    answer = await call("getUpdates")
    assert answer["error_code"] == 409
    assert "while webhook is active" in answer["description"]
    await result("deleteWebhook")
    assert await result("getUpdates") == []


async def test_setting_a_webhook_ends_a_long_poll_with_a_conflict(telegram, call, result):
    poll = asyncio.create_task(call("getUpdates", timeout=50))
    await telegram.bot_listening()
    await result("setWebhook", url="http://127.0.0.1:9/none")
    assert (await poll)["description"] == "Conflict: terminated by setWebhook request"


async def test_only_allowed_updates_are_delivered_and_the_setting_lasts(telegram, result):
    alice = telegram.user("Alice")
    await result("getUpdates", allowed_updates=["edited_message"])
    message = await alice.write("hi")
    await alice.edit(message, "hello")
    [update] = await result("getUpdates")
    assert update["edited_message"]["text"] == "hello"


async def test_reactions_are_not_delivered_unless_asked_for(telegram, result):
    alice = telegram.user("Alice")
    message = await alice.write("hi")
    await alice.react(message, "👍")
    await result("getUpdates", allowed_updates=["message_reaction"])
    await alice.react(message, "👎")
    kinds = [sorted(update) for update in await result("getUpdates")]
    assert kinds == [["message", "update_id"], ["message_reaction", "update_id"]]


async def test_an_empty_list_of_allowed_updates_means_the_default(telegram, result):
    alice = telegram.user("Alice")
    await result("getUpdates", allowed_updates=["poll"])
    await result("getUpdates", allowed_updates=[])
    await alice.write("hi")
    assert texts(await result("getUpdates")) == ["hi"]


async def test_held_updates_go_out_together(telegram, result):
    alice = telegram.user("Alice")
    with telegram.hold():
        await alice.write("a")
        assert await result("getUpdates") == []
        with telegram.hold():
            await alice.write("b")
        assert await result("getUpdates") == []
    assert texts(await result("getUpdates")) == ["a", "b"]


async def test_drained_waits_until_the_last_update_is_acknowledged(telegram, result):
    alice = telegram.user("Alice")
    await alice.write("hi")
    [update] = await result("getUpdates")
    with pytest.raises(WaitTimeout, match=r"1 update\(s\) are not acknowledged"):
        await telegram.drained(timeout=0)
    await result("getUpdates", offset=update["update_id"] + 1)
    await telegram.drained(timeout=0)


async def test_any_raw_update_is_delivered_with_an_id_filled_in(telegram, result):
    payload = {"id": "1", "option_ids": [0], "voter_chat": {"id": -1, "type": "channel"}}
    update_id = await telegram.deliver({"poll_answer": payload})
    assert await result("getUpdates") == [{"update_id": update_id, "poll_answer": payload}]


async def test_a_raw_update_keeps_its_own_id_and_later_ones_go_on_from_it(telegram, result):
    await telegram.deliver({"update_id": 900_000_000, "poll": {"id": "1"}})
    await telegram.deliver({"poll": {"id": "2"}})
    ids = [update["update_id"] for update in await result("getUpdates")]
    assert ids == [900_000_000, 900_000_001]


@pytest.mark.parametrize("update", [{}, {"update_id": 1}, {"poll": {}, "message": {}}])
async def test_a_raw_update_has_exactly_one_field(telegram, update):
    with pytest.raises(UsageError, match="one field"):
        await telegram.deliver(update)


async def test_an_update_delivered_twice_comes_again_after_it_was_acknowledged(telegram, result):
    alice = telegram.user("Alice")
    fault = telegram.faults.deliver_twice(times=1)
    await alice.write("a")
    await alice.write("b")
    first = await result("getUpdates")
    assert texts(first) == ["a", "b"]
    offset = first[-1]["update_id"] + 1
    assert texts(await result("getUpdates", offset=offset)) == ["a"]
    assert await result("getUpdates", offset=offset) == []
    await telegram.drained(timeout=0)
    assert fault.used == 1
