"""What the bot says: transcripts, waiting for answers, edits and calls."""

import asyncio

import pytest

from gramkeep.testing import UsageError, WaitTimeout


@pytest.fixture
def alice(telegram):
    return telegram.user("Alice")


@pytest.fixture
def say(result):
    async def send(chat, text, **params):
        return await result("sendMessage", chat_id=chat.id, text=text, **params)

    return send


async def test_no_answer_is_missed_when_several_come_at_once(alice, say):
    for text in ("a", "b", "c"):
        await say(alice, text)
    assert [(await alice.next_answer()).text for _ in range(3)] == ["a", "b", "c"]


async def test_two_who_wait_get_different_answers_in_the_order_of_waiting(alice, say):
    first = asyncio.create_task(alice.next_answer())
    second = asyncio.create_task(alice.next_answer())
    await asyncio.sleep(0)
    await say(alice, "a")
    await say(alice, "b")
    assert (await first).text == "a"
    assert (await second).text == "b"


async def test_answers_of_different_chats_do_not_mix(telegram, alice, say):
    bob = telegram.user("Bob")
    group = telegram.group("Friends", [alice, bob])
    await say(bob, "to Bob")
    await say(group, "to all")
    await say(alice, "to Alice")
    assert (await alice.next_answer()).text == "to Alice"
    assert (await group.next_answer()).text == "to all"
    assert (await bob.next_answer()).text == "to Bob"


async def test_answers_of_all_chats_can_be_awaited_together(telegram, alice, say):
    bob = telegram.user("Bob")
    waiting = asyncio.create_task(telegram.answers(3))
    await say(bob, "1")
    await say(alice, "2")
    await say(bob, "3")
    assert [answer.text for answer in await waiting] == ["1", "2", "3"]
    await say(alice, "4")
    assert [answer.text for answer in await telegram.answers(1, chat=alice.chat)] == ["4"]


async def test_too_few_answers_are_an_error_with_the_transcript_and_stay_unread(
    telegram, alice, say
):
    await alice.write("hello?")
    await say(alice, "yes", reply_markup={"inline_keyboard": [[{"text": "A", "url": "b"}]]})
    with pytest.raises(WaitTimeout) as caught:
        await alice.answers(2, timeout=0.01)
    error = str(caught.value)
    assert "for 2 unread message(s) of the bot, there are 1" in error
    assert "1 Alice: hello?" in error
    assert "2 Test bot: yes  (buttons: ['A'])" in error
    assert "sendMessage" in error
    with pytest.raises(WaitTimeout, match="there are 1"):
        await telegram.answers(2, timeout=0)
    assert (await alice.next_answer(timeout=0)).text == "yes"


async def test_a_bot_that_never_called_is_named_in_the_error(alice):
    with pytest.raises(WaitTimeout, match="no call at all, not even getUpdates"):
        await alice.next_answer(timeout=0)


async def test_a_failed_test_says_so(alice):
    assert issubclass(WaitTimeout, AssertionError)


async def test_a_waiter_that_was_cancelled_takes_no_answer(alice, say):
    waiting = asyncio.create_task(alice.next_answer())
    await asyncio.sleep(0)
    waiting.cancel()
    await say(alice, "a")
    assert (await alice.next_answer()).text == "a"


async def test_an_edit_changes_the_message_and_can_be_awaited(alice, say, result):
    sent = await say(alice, "1", reply_markup={"inline_keyboard": [[BUTTON]]})
    message = await alice.next_answer()
    edited = await result(
        "editMessageText", chat_id=alice.id, message_id=sent["message_id"], text="2"
    )
    assert edited["text"] == "2"
    assert edited["edit_date"] >= edited["date"]
    assert (await alice.next_edit()) is message
    assert (message.text, message.edits, message.buttons) == ("2", ["1"], [])
    with pytest.raises(WaitTimeout, match="edited, before: \\['1'\\]"):
        await alice.next_edit(timeout=0)


BUTTON = {"text": "A", "callback_data": "a"}


async def test_a_keyboard_of_buttons_that_write_is_kept_as_it_came(alice, say):
    keyboard = {"keyboard": [[{"text": "Yes"}]], "resize_keyboard": True}
    await say(alice, "?", reply_markup=keyboard)
    assert (await alice.next_answer()).keyboard == keyboard


async def test_calls_are_recorded_and_can_be_awaited(telegram, alice, call):
    waiting = asyncio.create_task(telegram.wait_for_call("sendChatAction"))
    await call("sendChatAction", chat_id=alice.id, action="typing")
    await call("sendChatAction", chat_id=1, action="typing")
    first = await waiting
    second = await telegram.wait_for_call("SENDCHATACTION")
    assert (first.ok, first.result, first.params["action"]) == (True, True, "typing")
    assert (second.ok, second.error) == (False, "400 Bad Request: chat not found")
    assert telegram.calls == [first, second]


async def test_waiting_for_a_call_in_vain_is_an_error(telegram):
    with pytest.raises(WaitTimeout, match="a call of sendMessage"):
        await telegram.wait_for_call("sendMessage", timeout=0)
    with pytest.raises(UsageError, match="sendTelepathy"):
        await telegram.wait_for_call("sendTelepathy")


async def test_an_upgraded_group_tells_the_bot_in_both_chats(telegram, alice, result):
    group = telegram.group("Friends", [alice])
    new = await group.upgrade()
    old_notice, new_notice = [update["message"] for update in await result("getUpdates")]
    assert (old_notice["chat"]["id"], old_notice["migrate_to_chat_id"]) == (group.id, new.id)
    assert (new_notice["chat"]["id"], new_notice["migrate_from_chat_id"]) == (new.id, group.id)
    assert (old_notice["chat"]["type"], new_notice["chat"]["type"]) == ("group", "supergroup")
    assert new.members == [alice]
    await alice.write("hi", chat=new)
    with pytest.raises(UsageError, match="was upgraded"):
        await alice.write("hi", chat=group)
    with pytest.raises(UsageError, match="no group that could be upgraded"):
        await group.upgrade()
    with pytest.raises(UsageError, match="nobody is in 'Empty'"):
        await telegram.group("Empty").upgrade()


async def test_the_notices_of_an_upgrade_can_come_in_the_other_order(telegram, alice, result):
    await telegram.group("Friends", [alice]).upgrade(by=alice, new_chat_first=True)
    fields = [sorted(update["message"]) for update in await result("getUpdates")]
    assert "migrate_from_chat_id" in fields[0]
    assert "migrate_to_chat_id" in fields[1]


async def test_writing_to_an_upgraded_group_names_the_new_one(telegram, alice, call):
    group = telegram.group("Friends", [alice])
    new = await group.upgrade()
    assert await call("sendMessage", chat_id=group.id, text="hi") == {
        "ok": False,
        "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": new.id},
    }


async def test_the_transcript_of_the_server_shows_every_chat_with_messages(telegram, alice, say):
    telegram.user("Silent")
    channel = telegram.channel("News")
    await channel.post("Extra")
    await say(alice, "hi")
    assert telegram.transcript() == (
        f"private chat 'Alice' ({alice.id}):\n  1 Test bot: hi\n"
        f"channel chat 'News' ({channel.id}):\n  1 News: Extra"
    )
