"""Bot API methods that send, edit and delete messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gramkeep.testing.telegram import parameters
from gramkeep.testing.telegram.errors import BotApiError, bad_request
from gramkeep.testing.telegram.formatting import parse
from gramkeep.testing.telegram.objects import JSON, Button, Message, Poll, Upload, utf16_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from gramkeep.testing.telegram.chats import Chat
    from gramkeep.testing.telegram.world import World

MAX_TEXT = 4096  # https://core.telegram.org/bots/api#sendmessage, "after entities parsing"
MAX_CAPTION = 1024
MAX_CALLBACK_DATA = 64  # bytes; https://core.telegram.org/bots/api#inlinekeyboardbutton


def find_chat(world: World, params: JSON) -> Chat:
    """Find the chat a call names. Raises `BotApiError` as Telegram refuses it."""
    name = parameters.text(params, "chat_id")
    if name is None:
        raise bad_request("chat_id is empty")
    chat_id = parameters.integer(params, "chat_id")
    connection_id = parameters.text(params, "business_connection_id")
    if connection_id is not None:
        if connection_id not in world.connections:
            raise bad_request("business connection not found")
        chat = world.business_chats.get((connection_id, chat_id))
    else:
        chat = world.chats.get(chat_id)
    if chat is None:
        raise bad_request("chat not found")
    if chat.upgraded_to is not None:
        # https://core.telegram.org/bots/api#responseparameters
        raise BotApiError(
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
            {"migrate_to_chat_id": chat.upgraded_to.id},
        )
    if chat.bot_is_out:
        if chat.type == "private":
            raise BotApiError(403, "Forbidden: bot was blocked by the user")
        raise BotApiError(403, f"Forbidden: bot was kicked from the {chat.type} chat")
    return chat


def send_message(world: World, params: JSON) -> JSON:
    chat = find_chat(world, params)
    text, entities = _read_text(params)
    return _send(world, chat, params, text=text, entities=entities).api()


def send_media(kind: str) -> Callable[[World, JSON], JSON]:
    """Make sendPhoto or sendDocument: the file itself is accepted and forgotten."""

    def send(world: World, params: JSON) -> JSON:
        chat = find_chat(world, params)
        media = params.get(kind)
        if isinstance(media, str) and media.startswith("attach://"):
            # https://core.telegram.org/bots/api#sending-files: the file is another part's
            media = params.get(media.removeprefix("attach://"))
        if media is None or media == "":
            raise bad_request(f"there is no {kind} in the request")
        file: JSON = {
            "file_id": media if isinstance(media, str) else f"file-{world.new_id()}",
            "file_unique_id": world.new_id(),
        }
        if isinstance(media, Upload):
            file["file_size"] = len(media.content)
        if kind == "photo":
            fields: JSON = {"photo": [file | {"width": 1, "height": 1}]}
        else:
            name = media.name if isinstance(media, Upload) else "document"
            fields = {"document": file | {"file_name": name}}
        if (raw := parameters.text(params, "caption")) is not None:
            caption, entities = parse(raw, parameters.text(params, "parse_mode"))
            if utf16_length(caption) > MAX_CAPTION:
                raise bad_request("message caption is too long")
            fields |= {"caption": caption, "caption_entities": entities}
        return _send(world, chat, params, text=None, fields=fields).api()

    return send


def send_poll(world: World, params: JSON) -> JSON:
    chat = find_chat(world, params)
    parameters.required(params, ["question"])
    options = [
        str(option.get("text", "")) if isinstance(option, dict) else str(option)
        for option in parameters.listed(params, "options")
    ]
    if not options:
        raise bad_request("poll must have at least 1 option")
    poll = Poll(
        id=world.new_id(),
        question=str(params["question"]),
        options=options,
        is_anonymous=parameters.flag({"is_anonymous": True} | params, "is_anonymous"),
        allows_multiple_answers=parameters.flag(params, "allows_multiple_answers"),
    )
    return _send(world, chat, params, text=None, poll=poll).api()


def stop_poll(world: World, params: JSON) -> JSON:
    poll = _find_message(world, params, "poll to stop").poll
    if poll is None:
        raise bad_request("message with poll to stop not found")
    if poll.is_closed:
        raise bad_request("poll has already been closed")
    poll.is_closed = True
    world.deliver("poll", poll.api())
    return poll.api()


def edit_message_text(world: World, params: JSON) -> JSON | bool:
    if parameters.text(params, "inline_message_id") is not None:
        _read_text(params)
        return True
    message = _own_message(world, params)
    text, entities = _read_text(params)
    if message.text is None:
        raise bad_request("there is no text in the message to edit")
    return _edit(world, message, params, text, entities)


def edit_message_reply_markup(world: World, params: JSON) -> JSON | bool:
    if parameters.text(params, "inline_message_id") is not None:
        return True
    message = _own_message(world, params)
    return _edit(world, message, params, message.text, message.entities)


def delete_message(world: World, params: JSON) -> bool:
    message = _find_message(world, params, "message to delete")
    message.deleted = True
    world.bell.ring()
    return True


def _edit(
    world: World, message: Message, params: JSON, text: str | None, entities: list[JSON]
) -> JSON:
    buttons, _ = _read_markup(params)
    if text == message.text and buttons == message.buttons:
        raise bad_request(
            "message is not modified: specified new message content and reply markup are exactly "
            "the same as a current content and reply markup of the message"
        )
    # An edit without reply_markup takes the inline keyboard away.
    message.buttons = buttons
    world.change_text(message, text, entities)
    message.chat.unread_edits.append(message)
    return message.api()


def _find_message(world: World, params: JSON, what: str) -> Message:
    message = find_chat(world, params).message(parameters.integer(params, "message_id"))
    if message is None:
        raise bad_request(f"{what} not found")
    return message


def _own_message(world: World, params: JSON) -> Message:
    message = _find_message(world, params, "message to edit")
    if message.sender is not world.bot:
        raise bad_request("message can't be edited")
    return message


def _read_text(params: JSON) -> tuple[str, list[JSON]]:
    """Read a message's text and entities, which `entities` gives or else `parse_mode`."""
    text, entities = parse(
        parameters.text(params, "text") or "", parameters.text(params, "parse_mode")
    )
    if not text.strip():
        raise bad_request("message text is empty")
    if utf16_length(text) > MAX_TEXT:
        raise bad_request("message is too long")
    return text, parameters.listed(params, "entities") or entities


def _send(
    world: World,
    chat: Chat,
    params: JSON,
    *,
    text: str | None,
    entities: list[JSON] | None = None,
    fields: JSON | None = None,
    poll: Poll | None = None,
) -> Message:
    buttons, keyboard = _read_markup(params)
    thread_id = parameters.integer(params, "message_thread_id") or None
    if thread_id is not None and chat.is_forum and thread_id not in {t.id for t in chat.topics}:
        raise bad_request("message thread not found")
    return world.add_message(
        chat,
        world.bot,
        text,
        entities=entities,
        reply_to=_replied_to(chat, params),
        thread_id=thread_id,
        buttons=buttons,
        keyboard=keyboard,
        parse_mode=parameters.text(params, "parse_mode"),
        fields=fields,
        poll=poll,
    )


def _replied_to(chat: Chat, params: JSON) -> Message | None:
    """Read `reply_parameters`, or `reply_to_message_id` of older clients."""
    reply = params.get("reply_parameters", params)
    if not isinstance(reply, dict):
        raise bad_request("object expected as reply parameters")
    name = "reply_to_message_id" if reply is params else "message_id"
    message_id = parameters.integer(reply, name)
    if not message_id:
        return None
    message = chat.message(message_id)
    if message is None and not parameters.flag(reply, "allow_sending_without_reply"):
        raise bad_request("message to be replied not found")
    return message


def _read_markup(params: JSON) -> tuple[list[list[Button]], JSON | None]:
    """Read inline buttons; any other reply markup is kept as it came."""
    markup = params.get("reply_markup")
    if markup is None:
        return [], None
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    if "inline_keyboard" not in markup:
        return [], markup
    rows = markup["inline_keyboard"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise bad_request("can't parse inline keyboard: an array of arrays of buttons is expected")
    return [[_read_button(button) for button in row] for row in rows], None


def _read_button(raw: Any) -> Button:
    if not isinstance(raw, dict):
        raise bad_request("can't parse inline keyboard button: an object is expected")
    raw = {name: value for name, value in raw.items() if value is not None}
    if not raw.get("text"):
        raise bad_request('can\'t parse inline keyboard button: Field "text" must not be empty')
    data = raw.get("callback_data")
    if data is not None and not 0 < len(str(data).encode()) <= MAX_CALLBACK_DATA:
        raise bad_request("BUTTON_DATA_INVALID")
    return Button(text=raw["text"], callback_data=data, url=raw.get("url"), raw=raw)
