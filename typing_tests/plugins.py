"""What type checkers must see of ``session(...)`` for every framework; never run."""

from dataclasses import dataclass
from typing import Any, assert_type

import gramkeep
from gramkeep import SessionOptions, Sessions, per_user
from gramkeep.integrations import aiogram, ptb, pyrogram, telebot, telethon


@dataclass
class Counter:
    count: int = 0


user = SessionOptions(initial=Counter, get_session_key=per_user)
chat = SessionOptions(initial=list[str], lazy=True)
many = Sessions(data_type=Counter)

# At a module's top, where a type checker that can't tell a type asks for an annotation.
multi = gramkeep.session(type="multi", user=user, chat=chat)
lazy_multi = gramkeep.lazy_session(type="multi", user=user, chat=chat, key="memory")
by_type = gramkeep.session(data_type=Counter)
untyped = gramkeep.lazy_session(storage="memory://")
told = gramkeep.session[Counter | None](data_type=Counter)

aiogram_multi = aiogram.session(type="multi", user=user, chat=chat)
aiogram_lazy_multi = aiogram.lazy_session(type="multi", user=user, chat=chat)
aiogram_by_type = aiogram.session(data_type=Counter)
aiogram_untyped = aiogram.lazy_session(storage="memory://")

ptb_multi = ptb.session(type="multi", user=user, chat=chat)
ptb_lazy_multi = ptb.lazy_session(type="multi", user=user, chat=chat)
ptb_by_type = ptb.session(data_type=Counter)
ptb_untyped = ptb.lazy_session(storage="memory://")

telebot_multi = telebot.session(type="multi", user=user, chat=chat)
telebot_lazy_multi = telebot.lazy_session(type="multi", user=user, chat=chat)
telebot_by_type = telebot.session(data_type=Counter)
telebot_untyped = telebot.lazy_session(storage="memory://")

telethon_multi = telethon.session(type="multi", user=user, chat=chat)
telethon_lazy_multi = telethon.lazy_session(type="multi", user=user, chat=chat)
telethon_by_type = telethon.session(data_type=Counter)
telethon_untyped = telethon.lazy_session(storage="memory://")

pyrogram_multi = pyrogram.session(type="multi", user=user, chat=chat)
pyrogram_lazy_multi = pyrogram.lazy_session(type="multi", user=user, chat=chat)
pyrogram_by_type = pyrogram.session(data_type=Counter)
pyrogram_untyped = pyrogram.lazy_session(storage="memory://")


def without_a_type() -> None:
    for plugin in (multi, lazy_multi, by_type, untyped):
        assert_type(plugin.sessions, Sessions[Any])
    for of_aiogram in (aiogram_multi, aiogram_lazy_multi, aiogram_by_type, aiogram_untyped):
        assert_type(of_aiogram.sessions, Sessions[Any])
    for of_ptb in (ptb_multi, ptb_lazy_multi, ptb_by_type, ptb_untyped):
        assert_type(of_ptb.sessions, Sessions[Any])
    for of_telebot in (telebot_multi, telebot_lazy_multi, telebot_by_type, telebot_untyped):
        assert_type(of_telebot.sessions, Sessions[Any])
    for of_telethon in (telethon_multi, telethon_lazy_multi, telethon_by_type, telethon_untyped):
        assert_type(of_telethon.sessions, Sessions[Any])
    for of_pyrogram in (pyrogram_multi, pyrogram_lazy_multi, pyrogram_by_type, pyrogram_untyped):
        assert_type(of_pyrogram.sessions, Sessions[Any])


def with_a_type() -> None:
    assert_type(told.sessions, Sessions[Counter | None])
    assert_type(gramkeep.session(initial=Counter), gramkeep.session[Counter])
    assert_type(aiogram.session(initial=Counter).sessions, Sessions[Counter])
    assert_type(aiogram.lazy_session(initial=Counter).sessions, Sessions[Counter])
    assert_type(aiogram.session(many).sessions, Sessions[Counter | None])
    assert_type(ptb.session(initial=Counter), ptb.session[Counter])
    assert_type(ptb.session(initial=Counter).sessions, Sessions[Counter])
    assert_type(ptb.lazy_session(initial=lambda: Counter(1)).sessions, Sessions[Counter])
    assert_type(ptb.session(many).sessions, Sessions[Counter | None])
    assert_type(telebot.session(initial=Counter).sessions, Sessions[Counter])
    assert_type(telebot.lazy_session(initial=dict[str, int]).sessions, Sessions[dict[str, int]])
    assert_type(telebot.session(many).sessions, Sessions[Counter | None])
    assert_type(telethon.session(initial=Counter).sessions, Sessions[Counter])
    assert_type(telethon.lazy_session(initial=Counter).sessions, Sessions[Counter])
    assert_type(telethon.session(many).sessions, Sessions[Counter | None])
    assert_type(pyrogram.session(initial=Counter).sessions, Sessions[Counter])
    assert_type(pyrogram.lazy_session(initial=Counter).sessions, Sessions[Counter])
    assert_type(pyrogram.session(many).sessions, Sessions[Counter | None])
