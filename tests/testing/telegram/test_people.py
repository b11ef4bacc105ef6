"""What people do, and the updates it makes; aiogram's models check that they are well formed."""

import asyncio

import pytest
from aiogram.types import Update

from gramkeep.testing import UsageError, WaitTimeout

EVERYTHING = sorted(set(Update.model_fields) - {"update_id"})


@pytest.fixture
def updates(result):
    """Fetch and acknowledge what is waiting, each as (type, aiogram object)."""

    async def fetch():
        raw = await result("getUpdates", allowed_updates=EVERYTHING)
        if raw:
            await result("getUpdates", offset=raw[-1]["update_id"] + 1)
        parsed = [Update.model_validate(update) for update in raw]
        return [(update.event_type, update.event) for update in parsed]

    return fetch


@pytest.fixture
async def alice(telegram, updates):
    await updates()  # from now on every type is allowed
    return telegram.user("Alice", last_name="Liddell", username="alice")


@pytest.fixture
def bob(telegram):
    return telegram.user("Bob", language_code=None, is_premium=True)


async def test_a_private_chat_has_the_id_and_name_of_its_user(alice, updates):
    await alice.write("hi")
    [(kind, message)] = await updates()
    assert kind == "message"
    assert message.chat.id == message.from_user.id == alice.id > 0
    assert (message.chat.type, message.chat.first_name) == ("private", "Alice")
    assert (message.from_user.full_name, message.from_user.username) == ("Alice Liddell", "alice")


async def test_message_ids_increase_within_a_chat(alice, updates):
    await alice.write("a")
    await alice.write("b")
    [(_, first), (_, second)] = await updates()
    assert second.message_id == first.message_id + 1


async def test_messages_of_private_chats_and_groups_have_ids_of_one_sequence(
    telegram, alice, bob, result
):
    group = telegram.group("Friends", members=[alice])
    written = [
        await alice.write("a"),
        await bob.write("b"),
        await alice.write("c", chat=group),
        await alice.write("d"),
    ]
    sent = await result("sendMessage", chat_id=bob.id, text="e")
    assert [*(message.id for message in written), sent["message_id"]] == [1, 2, 3, 4, 5]


async def test_supergroups_channels_and_business_accounts_number_messages_for_themselves(
    telegram, alice, bob
):
    owner = telegram.user("Owner")
    supergroup, other = (telegram.supergroup(name, members=[alice]) for name in "AB")
    channel = telegram.channel("News")
    connection = await owner.connect_business()
    await alice.write("private")
    for chat in (supergroup, other):
        assert [(await alice.write(text, chat=chat)).id for text in "xy"] == [1, 2]
    assert [(await channel.post(text)).id for text in "xy"] == [1, 2]
    customers = [
        await customer.write("hi", chat=connection.chat(customer)) for customer in (alice, bob)
    ]
    assert [message.id for message in customers] == [1, 2]


async def test_a_command_is_an_entity_counted_in_utf_16_units(alice, updates):
    await alice.write("/start x 👍 /help@test_bot a/b /ü")
    [(_, message)] = await updates()
    found = [(e.type, e.extract_from(message.text)) for e in message.entities]
    assert found == [("bot_command", "/start"), ("bot_command", "/help@test_bot")]
    assert message.entities[1].offset == 12


async def test_entities_and_fields_can_be_given(alice, updates):
    await alice.write("/no", entities=[])
    await alice.write(None, fields={"sticker": STICKER, "media_group_id": "1"})
    [(_, plain), (_, sticker)] = await updates()
    assert plain.entities is None
    assert sticker.text is None
    assert sticker.sticker.emoji == "👍"


STICKER = {
    "file_id": "f",
    "file_unique_id": "u",
    "type": "regular",
    "width": 1,
    "height": 1,
    "is_animated": False,
    "is_video": False,
    "emoji": "👍",
}


async def test_an_edit_keeps_the_id_and_tells_the_new_text(alice, updates):
    message = await alice.write("helo")
    await alice.edit(message, "hello")
    [_, (kind, edited)] = await updates()
    assert (kind, edited.message_id, edited.text) == ("edited_message", message.id, "hello")
    assert edited.edit_date >= int(message.time)
    assert message.edits == ["helo"]


async def test_a_reply_carries_the_message_but_not_what_that_replied_to(
    telegram, alice, bob, updates
):
    group = telegram.group("Friends", [alice, bob])
    first = await alice.write("1", chat=group)
    second = await bob.write("2", reply_to=first)
    await alice.write("3", reply_to=second)
    *_, (_, third) = await updates()
    assert third.reply_to_message.text == "2"
    assert third.reply_to_message.reply_to_message is None
    assert third.message_thread_id is None


async def test_a_reply_in_a_supergroup_has_a_thread_but_is_in_no_topic(telegram, alice, updates):
    group = telegram.supergroup("Friends", [alice])
    first = await alice.write("1", chat=group)
    second = await alice.write("2", reply_to=first)
    await alice.write("3", reply_to=second)
    *_, (_, third) = await updates()
    assert third.message_thread_id == first.id
    assert third.is_topic_message is None


async def test_groups_supergroups_and_channels_have_their_kinds_of_ids(telegram, alice):
    assert -1_000_000_000_000 < telegram.group("A", [alice]).id < 0
    assert str(telegram.supergroup("B", [alice]).id).startswith("-100")
    assert str(telegram.channel("C").id).startswith("-100")


async def test_messages_in_a_topic_carry_its_thread(telegram, alice, updates):
    forum = telegram.supergroup("Team", [alice], forum=True)
    news = forum.topic("News")
    message = await alice.write("hi", topic=news)
    await alice.write("re", reply_to=message)
    await alice.write("general", chat=forum)
    (_, in_topic), (_, reply), (_, general) = await updates()
    assert in_topic.chat.is_forum
    assert (in_topic.message_thread_id, in_topic.is_topic_message) == (news.id, True)
    assert (reply.message_thread_id, reply.is_topic_message) == (news.id, True)
    assert (general.message_thread_id, general.is_topic_message) == (None, None)


async def test_a_channel_posts_without_a_user(telegram, alice, updates):
    channel = telegram.channel("News")
    post = await channel.post("Extra")
    await channel.edit_post(post, "Extra!")
    [(kind, message), (edit_kind, edited)] = await updates()
    assert (kind, message.text, message.from_user) == ("channel_post", "Extra", None)
    assert message.sender_chat.id == channel.id
    assert (edit_kind, edited.text) == ("edited_channel_post", "Extra!")


async def test_a_button_is_pressed_by_text_or_callback_data(alice, result, updates):
    keyboard = [[{"text": "Yes", "callback_data": "y"}, {"text": "y", "callback_data": "z"}]]
    await ask(alice, result, keyboard)
    message = await alice.next_answer()
    await alice.press(message, "Yes")
    await alice.press(message, "z")
    await alice.press(message, "y")
    pressed = [event for kind, event in await updates() if kind == "callback_query"]
    assert [query.data for query in pressed] == ["y", "z", "z"]
    assert pressed[0].message.message_id == message.id
    assert pressed[0].from_user.id == alice.id


async def test_a_press_can_be_awaited_until_the_bot_answers_it(alice, result):
    await ask(alice, result, [[{"text": "Yes", "callback_data": "y"}]])
    query = await alice.press(await alice.next_answer(), "Yes")
    with pytest.raises(WaitTimeout, match="callback_query of Alice Liddell was not answered"):
        await query.answered(timeout=0)
    waiting = asyncio.create_task(query.answered())
    await result("answerCallbackQuery", callback_query_id=query.id, text="Done", show_alert=True)
    assert (await waiting)["text"] == "Done"


async def test_pressing_what_is_not_there_lists_the_buttons(alice, result):
    keyboard = [[{"text": "Yes", "callback_data": "y"}], [{"text": "Site", "url": "http://a.b"}]]
    await ask(alice, result, keyboard)
    message = await alice.next_answer()
    with pytest.raises(UsageError, match=r"no button 'No', only: 'Yes' \(y\), 'Site' \(http://a.b"):
        await alice.press(message, "No")
    with pytest.raises(UsageError, match="no callback data"):
        await alice.press(message, "Site")


async def ask(user, result, keyboard):
    markup = {"inline_keyboard": keyboard}
    await result("sendMessage", chat_id=user.id, text="Sure?", reply_markup=markup)


async def test_an_inline_button_is_pressed_without_a_chat(alice, updates):
    inline_message_id = await alice.choose_inline_result("r1", "cats")
    await alice.press_inline(inline_message_id, "more")
    [(kind, chosen), (_, pressed)] = await updates()
    assert (kind, chosen.result_id, chosen.query) == ("chosen_inline_result", "r1", "cats")
    assert pressed.inline_message_id == chosen.inline_message_id
    assert (pressed.message, pressed.data) == (None, "more")


async def test_queries_are_answered_by_their_ids(alice, result, updates):
    inline = await alice.inline_query("cats")
    checkout = await alice.pre_checkout("order 1", amount=500)
    shipping = await alice.shipping("order 1")
    kinds = [kind for kind, _ in await updates()]
    assert kinds == ["inline_query", "pre_checkout_query", "shipping_query"]
    await result("answerInlineQuery", inline_query_id=inline.id, results=[])
    await result("answerPreCheckoutQuery", pre_checkout_query_id=checkout.id, ok=True)
    await result("answerShippingQuery", shipping_query_id=shipping.id, ok=False)
    assert (await inline.answered())["results"] == []
    assert (await checkout.answered())["ok"] is True
    assert (await shipping.answered())["ok"] is False


async def test_an_unknown_query_is_too_old(call):
    answer = await call("answerCallbackQuery", callback_query_id="1")
    assert answer["description"].startswith("Bad Request: query is too old")


async def test_a_reaction_tells_the_old_and_the_new(alice, updates):
    message = await alice.write("hi")
    await alice.react(message, "👍")
    await alice.react(message)
    [_, (kind, first), (_, second)] = await updates()
    assert kind == "message_reaction"
    assert [reaction.emoji for reaction in first.new_reaction] == ["👍"]
    assert [reaction.emoji for reaction in second.old_reaction] == ["👍"]
    assert second.new_reaction == []


async def test_a_vote_counts_and_names_the_voter_unless_anonymous(telegram, alice, bob, result):
    send = {"chat_id": alice.id, "question": "Tea?", "options": ["yes", {"text": "no"}]}
    await result("sendPoll", **send, is_anonymous=False)
    open_poll = (await alice.next_answer()).poll
    await alice.vote(open_poll, "yes")
    await alice.vote(open_poll)
    with pytest.raises(UsageError, match="no option 'maybe'"):
        await alice.vote(open_poll, "maybe")
    received = [Update.model_validate(update) for update in await result("getUpdates")]
    assert [update.event_type for update in received] == ["poll", "poll_answer"] * 2
    assert received[0].poll.options[0].voter_count == 1
    assert (received[1].poll_answer.user.id, received[1].poll_answer.option_ids) == (alice.id, [0])
    assert received[3].poll_answer.option_ids == []


async def test_a_stopped_poll_is_an_update_without_chat_and_user(alice, result, updates, call):
    await result("sendPoll", chat_id=alice.id, question="Tea?", options=["yes", "no"])
    message = await alice.next_answer()
    await alice.vote(message.poll, "no")
    await result("stopPoll", chat_id=alice.id, message_id=message.id)
    received = await updates()
    assert [kind for kind, _ in received] == ["poll", "poll"]
    assert received[1][1].is_closed
    with pytest.raises(UsageError, match="closed"):
        await alice.vote(message.poll, "yes")
    again = await call("stopPoll", chat_id=alice.id, message_id=message.id)
    assert again["description"] == "Bad Request: poll has already been closed"


async def test_joining_and_leaving_are_told_twice(telegram, alice, bob, updates):
    group = telegram.group("Friends", [alice])
    await bob.join(group)
    await bob.leave(group)
    [(_, came), (kind, joined), (_, went), (_, left)] = await updates()
    assert [user.id for user in came.new_chat_members] == [bob.id]
    assert (kind, joined.new_chat_member.status) == ("chat_member", "member")
    assert went.left_chat_member.id == bob.id
    assert left.new_chat_member.status == "left"
    with pytest.raises(UsageError, match="Bob is not in the group chat 'Friends'"):
        await bob.leave(group)


async def test_a_join_request_can_be_approved(telegram, alice, bob, result, updates):
    group = telegram.supergroup("Friends", [alice])
    await bob.ask_to_join(group)
    [(kind, request)] = await updates()
    assert (kind, request.chat.id, request.user_chat_id) == ("chat_join_request", group.id, bob.id)
    await result("approveChatJoinRequest", chat_id=group.id, user_id=bob.id)
    assert bob in group.members


async def test_a_blocked_bot_is_told_and_cannot_write(alice, call, updates):
    await alice.block_bot()
    [(kind, change)] = await updates()
    assert (kind, change.new_chat_member.status) == ("my_chat_member", "kicked")
    answer = await call("sendMessage", chat_id=alice.id, text="hi")
    assert answer["error_code"] == 403
    assert answer["description"] == "Forbidden: bot was blocked by the user"
    with pytest.raises(UsageError, match="would see nothing"):
        await alice.write("hi")
    await alice.unblock_bot()
    await alice.write("hi")
    [(_, change), _] = await updates()
    assert change.new_chat_member.status == "member"


async def test_a_bot_removed_from_a_group_cannot_write_there(telegram, alice, call):
    group = telegram.group("Friends", [alice])
    await alice.remove_bot(group)
    answer = await call("sendMessage", chat_id=group.id, text="hi")
    assert answer["description"] == "Forbidden: bot was kicked from the group chat"
    await alice.add_bot(group)
    assert (await call("sendMessage", chat_id=group.id, text="hi"))["ok"]


async def test_business_messages_have_their_own_chat_and_updates(alice, bob, result, updates):
    connection = await alice.connect_business()
    chat = connection.chat(bob)
    message = await bob.write("open today?", chat=chat)
    await bob.edit(message, "open?")
    await result(
        "sendMessage", chat_id=bob.id, business_connection_id=connection.id, text="until six"
    )
    await bob.delete(message)
    answer = await chat.next_answer()
    assert answer.api()["sender_business_bot"]["is_bot"]
    assert answer.api()["from"]["id"] == alice.id
    assert bob.chat.messages == []
    received = await updates()
    assert [kind for kind, _ in received] == [
        "business_connection",
        "business_message",
        "edited_business_message",
        "deleted_business_messages",
    ]
    assert received[0][1].id == connection.id
    assert received[1][1].business_connection_id == connection.id
    assert received[1][1].chat.id == bob.id
    assert received[3][1].message_ids == [message.id]


async def test_what_nobody_could_do_is_refused(telegram, alice, bob):
    group = telegram.group("Friends", [alice])
    other = telegram.group("Others", [alice])
    channel = telegram.channel("News", [alice])
    forum = telegram.supergroup("Team", [alice], forum=True)
    message = await alice.write("hi", chat=group)
    with pytest.raises(
        UsageError, match=r"Bob is not in the group chat 'Friends' \(members: Alice"
    ):
        await bob.write("hi", chat=group)
    with pytest.raises(UsageError, match="Bob is not in the private chat 'Alice Liddell'"):
        await bob.write("hi", chat=alice.chat)
    with pytest.raises(UsageError, match="use its post"):
        await alice.write("hi", chat=channel)
    with pytest.raises(UsageError, match="let one of its members write"):
        await group.post("hi")
    with pytest.raises(UsageError, match="forum=True"):
        group.topic("News")
    with pytest.raises(UsageError, match="has no topic 'News'"):
        await alice.write("hi", chat=group, topic=forum.topic("News"))
    with pytest.raises(UsageError, match="is not in 'Others'"):
        await alice.write("hi", chat=other, reply_to=message)
    with pytest.raises(UsageError, match="Bob did not write"):
        await bob.edit(message, "ho")
    with pytest.raises(UsageError, match="already"):
        await alice.join(group)
    with pytest.raises(UsageError, match="already"):
        telegram.user("Carol", user_id=alice.id)
    with pytest.raises(UsageError, match="already"):
        telegram.group("Twin", chat_id=group.id)
