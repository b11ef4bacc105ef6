"""The table of Bot API methods, apart from those about receiving updates (server.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gramkeep.testing.telegram import parameters, sending
from gramkeep.testing.telegram.errors import bad_request
from gramkeep.testing.telegram.sending import find_chat

if TYPE_CHECKING:
    from collections.abc import Callable

    from gramkeep.testing.telegram.objects import JSON
    from gramkeep.testing.telegram.world import World

    Method: TypeAlias = Callable[[World, JSON], Any]


def _get_me(world: World, _: JSON) -> JSON:
    # https://core.telegram.org/bots/api#getme: a User with the fields "returned only in getMe".
    return world.bot.api() | {
        "can_join_groups": True,
        "can_read_all_group_messages": True,
        "supports_inline_queries": True,
        "can_connect_to_business": True,
        "has_main_web_app": False,
        "has_topics_enabled": False,
        "allows_users_to_create_topics": False,
        "can_manage_bots": False,
        "supports_guest_queries": False,
        "supports_join_request_queries": False,
    }


def _get_chat(world: World, params: JSON) -> JSON:
    # https://core.telegram.org/bots/api#chatfullinfo, with its required fields.
    gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription")
    return find_chat(world, params).api() | {
        "accent_color_id": 0,
        "max_reaction_count": 11,
        "accepted_gift_types": dict.fromkeys((*gifts, "gifts_from_channels"), False),
    }


def _get_chat_member(world: World, params: JSON) -> JSON:
    chat = find_chat(world, params)
    user_id = parameters.integer(params, "user_id")
    account = world.bot if user_id == world.bot.id else world.users.get(user_id)
    if account is None:
        raise bad_request("user not found")
    return world.member(chat, account)


def _get_chat_member_count(world: World, params: JSON) -> int:
    return len(find_chat(world, params).members) + 1  # and the bot


def _send_chat_action(world: World, params: JSON) -> bool:
    find_chat(world, params)
    if parameters.text(params, "action") is None:
        raise bad_request("wrong parameter action in request")
    return True


def _let_in(world: World, params: JSON, *, approve: bool) -> bool:
    chat = find_chat(world, params)
    user = world.users.get(parameters.integer(params, "user_id"))
    if user is None:
        raise bad_request("user not found")
    if user in chat.members:
        raise bad_request("USER_ALREADY_PARTICIPANT")
    if approve:
        chat.members.append(user)
        world.bell.ring()
    return True


def _answer(kind: str, id_name: str) -> Method:
    def answer(world: World, params: JSON) -> bool:
        query = world.queries.get(str(params.get(id_name, "")))
        if query is None or query.kind != kind:
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        query.answer = params
        world.bell.ring()
        return True

    return answer


def _scope(params: JSON) -> str:
    """Commands are kept per scope and language: https://core.telegram.org/bots/api#setmycommands."""
    scope = params.get("scope", {"type": "default"})
    if not isinstance(scope, dict):
        raise bad_request("can't parse BotCommandScope: an object is expected")
    return f"{sorted(scope.items())} {params.get('language_code', '')}"


def _set_my_commands(world: World, params: JSON) -> bool:
    world.commands[_scope(params)] = parameters.listed(params, "commands")
    return True


def _get_my_commands(world: World, params: JSON) -> list[JSON]:
    return world.commands.get(_scope(params), [])


def _delete_my_commands(world: World, params: JSON) -> bool:
    world.commands.pop(_scope(params), None)
    return True


def _nothing(_world: World, _params: JSON) -> bool:
    return True


METHODS: dict[str, Method] = {
    "getMe": _get_me,
    "logOut": _nothing,
    "close": _nothing,
    "sendMessage": sending.send_message,
    "sendPhoto": sending.send_media("photo"),
    "sendDocument": sending.send_media("document"),
    "sendPoll": sending.send_poll,
    "stopPoll": sending.stop_poll,
    "sendChatAction": _send_chat_action,
    "editMessageText": sending.edit_message_text,
    "editMessageReplyMarkup": sending.edit_message_reply_markup,
    "deleteMessage": sending.delete_message,
    "answerCallbackQuery": _answer("callback_query", "callback_query_id"),
    "answerInlineQuery": _answer("inline_query", "inline_query_id"),
    "answerPreCheckoutQuery": _answer("pre_checkout_query", "pre_checkout_query_id"),
    "answerShippingQuery": _answer("shipping_query", "shipping_query_id"),
    "getChat": _get_chat,
    "getChatMember": _get_chat_member,
    "getChatMemberCount": _get_chat_member_count,
    "approveChatJoinRequest": lambda world, params: _let_in(world, params, approve=True),
    "declineChatJoinRequest": lambda world, params: _let_in(world, params, approve=False),
    "setMyCommands": _set_my_commands,
    "getMyCommands": _get_my_commands,
    "deleteMyCommands": _delete_my_commands,
}
