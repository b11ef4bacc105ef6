"""Bot methods: results as aiogram reads them, and refusals in Telegram's words."""

import pytest
from aiogram.exceptions import TelegramMigrateToChat
from aiogram.types import (
    BotCommand,
    BotCommandScopeAllPrivateChats,
    BufferedInputFile,
    ReplyParameters,
)


@pytest.fixture
def alice(telegram):
    return telegram.user("Alice")


async def test_aiogram_reads_the_results_of_all_methods(telegram, aiogram_bot, alice):
    bot = aiogram_bot
    bob = telegram.user("Bob")
    group = telegram.group("Friends", [alice])
    assert (await bot.get_me()).id == bot.id
    assert (await bot.get_chat(group.id)).title == "Friends"
    assert (await bot.get_chat_member(group.id, alice.id)).status == "creator"
    assert (await bot.get_chat_member(group.id, bob.id)).status == "left"
    assert (await bot.get_chat_member(group.id, bot.id)).status == "member"
    assert await bot.get_chat_member_count(group.id) == 2
    assert await bot.send_chat_action(group.id, "typing")
    photo = await bot.send_photo(alice.id, BufferedInputFile(b"x", "a.png"), caption="Look")
    assert (photo.photo[0].file_size, photo.caption) == (1, "Look")
    document = await bot.send_document(alice.id, "known-file-id")
    assert document.document.file_id == "known-file-id"
    poll = await bot.send_poll(alice.id, "Tea?", ["yes", "no"], is_anonymous=False)
    assert not poll.poll.is_anonymous
    assert (await bot.stop_poll(alice.id, poll.message_id)).is_closed
    assert await bot.delete_message(alice.id, poll.message_id)
    [update] = await bot.get_updates()
    assert update.poll.is_closed
    assert await bot.log_out()
    assert await bot.close()


async def test_commands_are_kept_per_scope(aiogram_bot):
    commands = [BotCommand(command="start", description="Start")]
    private = BotCommandScopeAllPrivateChats()
    assert await aiogram_bot.set_my_commands(commands, scope=private)
    assert await aiogram_bot.get_my_commands() == []
    [command] = await aiogram_bot.get_my_commands(scope=private)
    assert (command.command, command.description) == ("start", "Start")
    assert await aiogram_bot.delete_my_commands(scope=private)
    assert await aiogram_bot.get_my_commands(scope=private) == []


async def test_a_reply_and_a_topic_are_kept(telegram, aiogram_bot, alice):
    forum = telegram.supergroup("Team", [alice], forum=True)
    news = forum.topic("News")
    question = await alice.write("?", topic=news)
    sent = await aiogram_bot.send_message(
        forum.id,
        "<b>!</b>",
        message_thread_id=news.id,
        reply_parameters=ReplyParameters(message_id=question.id),
        parse_mode="HTML",
    )
    assert (sent.message_thread_id, sent.is_topic_message) == (news.id, True)
    assert sent.reply_to_message.message_id == question.id
    answer = await forum.next_answer()
    assert answer.text == "!"
    assert (answer.reply_to, answer.thread_id, answer.parse_mode) == (question, news.id, "HTML")


async def test_aiogram_learns_of_an_upgraded_group(telegram, aiogram_bot, alice):
    group = telegram.group("Friends", [alice])
    new = await group.upgrade()
    with pytest.raises(TelegramMigrateToChat) as caught:
        await aiogram_bot.send_message(group.id, "hi")
    assert caught.value.migrate_to_chat_id == new.id


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"chat_id": 1}, "chat not found"),
        ({"chat_id": ""}, "chat_id is empty"),
        ({"text": ""}, "message text is empty"),
        ({"text": " \n"}, "message text is empty"),
        ({"text": "👍" * 2049}, "message is too long"),
        ({"parse_mode": "RTF"}, "unsupported parse_mode"),
        ({"reply_parameters": {"message_id": 99}}, "message to be replied not found"),
        ({"reply_to_message_id": 99}, "message to be replied not found"),
        ({"reply_parameters": 1}, "object expected as reply parameters"),
        ({"reply_markup": 1}, "object expected as reply markup"),
        (
            {"reply_markup": {"inline_keyboard": [{"text": "A"}]}},
            "can't parse inline keyboard: an array of arrays of buttons is expected",
        ),
        (
            {"reply_markup": {"inline_keyboard": [["A"]]}},
            "can't parse inline keyboard button: an object is expected",
        ),
        (
            {"reply_markup": {"inline_keyboard": [[{"text": ""}]]}},
            'can\'t parse inline keyboard button: Field "text" must not be empty',
        ),
        ({"business_connection_id": "1"}, "business connection not found"),
    ],
)
async def test_a_bad_message_is_refused_in_telegrams_words(alice, call, params, why):
    answer = await call("sendMessage", **({"chat_id": alice.id, "text": "hi"} | params))
    assert (answer["error_code"], answer["description"]) == (400, f"Bad Request: {why}")
    assert alice.chat.messages == []


@pytest.mark.parametrize("button", [{"callback_data": "x" * 65}, {"callback_data": ""}])
async def test_callback_data_is_1_to_64_bytes_long(alice, call, button):
    markup = {"inline_keyboard": [[{"text": "A"} | button]]}
    answer = await call("sendMessage", chat_id=alice.id, text="hi", reply_markup=markup)
    assert answer["description"] == "Bad Request: BUTTON_DATA_INVALID"


async def test_html_becomes_entities_counted_in_utf_16_units(alice, result):
    sent = await result(
        "sendMessage",
        chat_id=alice.id,
        parse_mode="html",
        text='👍 <b>1 &lt; <i>2</i></b> <a href="http://a.b">/go</a> &#64;&copy;'
        '<pre><code class="language-py">x</code></pre><s></s>',
    )
    assert sent["text"] == "👍 1 < 2 /go @&copy;x"
    assert sent["entities"] == [
        {"type": "bold", "offset": 3, "length": 5},
        {"type": "italic", "offset": 7, "length": 1},
        {"type": "text_link", "offset": 9, "length": 3, "url": "http://a.b"},
        {"type": "bot_command", "offset": 9, "length": 3},
        {"type": "pre", "offset": 20, "length": 1, "language": "py"},
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I <3 you", 'Unsupported start tag "3"'),
        ("Hi <b", "Unclosed start tag"),
        ("<h1>Hi</h1>", 'Unsupported start tag "h1"'),
        ("<span>Hi</span>", 'Unsupported start tag "span"'),
        ("<!-- Hi -->", 'Unsupported start tag "!-- Hi "'),
        ("<b>Hi", 'Can\'t find end tag corresponding to start tag "b"'),
        ("<b>Hi</i>", 'Unmatched end tag, expected "</b>", found "</i>"'),
        ("Hi</b>", 'Unexpected end tag "b"'),
    ],
)
async def test_html_that_telegram_cannot_parse_is_refused(alice, call, text, why):
    answer = await call("sendMessage", chat_id=alice.id, text=text, parse_mode="HTML")
    assert answer["description"] == f"Bad Request: can't parse entities: {why}"


async def test_markup_without_a_parse_mode_is_text(alice, result):
    sent = await result("sendMessage", chat_id=alice.id, text="I <3 <b>you</b>")
    assert sent["text"] == "I <3 <b>you</b>"
    assert "entities" not in sent


async def test_a_lost_reply_can_be_sent_all_the_same(alice, result):
    reply = {"message_id": 99, "allow_sending_without_reply": True}
    sent = await result("sendMessage", chat_id=alice.id, text="hi", reply_parameters=reply)
    assert "reply_to_message" not in sent


async def test_a_topic_that_is_not_there_is_refused(telegram, alice, call):
    forum = telegram.supergroup("Team", [alice], forum=True)
    answer = await call("sendMessage", chat_id=forum.id, text="hi", message_thread_id=99)
    assert answer["description"] == "Bad Request: message thread not found"


async def test_edits_that_cannot_be_are_refused(alice, call, result):
    own = await result("sendMessage", chat_id=alice.id, text="hi")
    photo = await result("sendPhoto", chat_id=alice.id, photo="f")
    foreign = await alice.write("hi")

    async def edit(message_id, text):
        answer = await call("editMessageText", chat_id=alice.id, message_id=message_id, text=text)
        return answer["description"].removeprefix("Bad Request: ")

    assert (await edit(own["message_id"], "hi")).startswith("message is not modified")
    assert await edit(own["message_id"], "") == "message text is empty"
    assert await edit(99, "ho") == "message to edit not found"
    assert await edit(foreign.id, "ho") == "message can't be edited"
    assert await edit(photo["message_id"], "ho") == "there is no text in the message to edit"


async def test_buttons_can_be_changed_alone(alice, result):
    bold = [{"type": "bold", "offset": 0, "length": 2}]
    sent = await result("sendMessage", chat_id=alice.id, text="hi", entities=bold)
    markup = {"inline_keyboard": [[{"text": "A", "callback_data": "a"}]]}
    target = {"chat_id": alice.id, "message_id": sent["message_id"]}
    edited = await result("editMessageReplyMarkup", **target, reply_markup=markup)
    assert edited["reply_markup"] == markup
    assert edited["entities"] == bold
    message = await alice.next_edit()
    assert (message.text, message.button_texts, message.edits) == ("hi", ["A"], [])


async def test_an_inline_message_can_be_edited(result):
    assert await result("editMessageText", inline_message_id="1", text="hi") is True
    assert await result("editMessageReplyMarkup", inline_message_id="1") is True


async def test_a_deleted_message_is_gone(alice, call, result):
    sent = await result("sendMessage", chat_id=alice.id, text="hi")
    target = {"chat_id": alice.id, "message_id": sent["message_id"]}
    assert await result("deleteMessage", **target) is True
    assert (await call("deleteMessage", **target))["description"] == (
        "Bad Request: message to delete not found"
    )
    assert alice.chat.messages[0].deleted


async def test_other_refusals(alice, call):
    async def why(method, **params):
        return (await call(method, **params))["description"].removeprefix("Bad Request: ")

    assert await why("getChat", chat_id=1) == "chat not found"
    assert await why("getChatMember", chat_id=alice.id, user_id=1) == "user not found"
    assert await why("sendPhoto", chat_id=alice.id) == "there is no photo in the request"
    assert await why("sendPhoto", chat_id=alice.id, photo="f", caption="x" * 1025) == (
        "message caption is too long"
    )
    assert await why("sendPoll", chat_id=alice.id, question="?", options=[]) == (
        "poll must have at least 1 option"
    )
    assert await why("setMyCommands", scope=1) == (
        "can't parse BotCommandScope: an object is expected"
    )
