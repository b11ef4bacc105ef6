"""A shop: every customer has a profile, every chat has a cart that all in it fill together.

    BOT_TOKEN=123:abc python examples/aiogram_cart.py

Send "2 apples" to put something in, /cart to look, /pay to pay, /empty to start again.
"""

import asyncio
import os
import re
from dataclasses import dataclass, field

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.methods import SendMessage
from aiogram.types import Message

from gramkeep import SessionOptions, per_user
from gramkeep.integrations.aiogram import session
from gramkeep.multi import MultiSession

API_URL = os.environ.get("BOT_API_URL", "https://api.telegram.org")
STORAGE = os.environ.get("STORAGE", "sqlite:///shop.db")


@dataclass
class Customer:
    orders: int = 0


@dataclass
class Cart:
    items: dict[str, int] = field(default_factory=dict)


dispatcher = Dispatcher()
session(
    type="multi",
    customer=SessionOptions(initial=Customer, get_session_key=per_user, storage=STORAGE),
    cart=SessionOptions(initial=Cart, storage=STORAGE),
).setup(dispatcher)


@dispatcher.message(Command("cart"))
async def show(message: Message, session: MultiSession) -> SendMessage:
    items = session.cart.items
    lines = [f"{count} {name}" for name, count in items.items()]
    return message.answer("\n".join(lines) or "The cart is empty.")


@dispatcher.message(Command("empty"))
async def empty(message: Message, session: MultiSession) -> SendMessage:
    session.cart = None  # deletes this part
    return message.answer("The cart is empty.")


@dispatcher.message(Command("pay"))
async def pay(message: Message, session: MultiSession) -> SendMessage:
    count = sum(session.cart.items.values())
    if not count:
        return message.answer("There is nothing to pay.")
    # Both parts are written in one transaction: no order without its cart, no cart paid twice.
    session.cart.items.clear()
    session.customer.orders += 1
    return message.answer(
        f"Paid {count} items. This is your order number {session.customer.orders}."
    )


@dispatcher.message(F.text.regexp(re.compile(r"(\d+) (.+)")).as_("order"))
async def put_in(message: Message, order: re.Match[str], session: MultiSession) -> SendMessage:
    count, name = int(order[1]), order[2]
    session.cart.items[name] = session.cart.items.get(name, 0) + count
    return message.answer(f"{session.cart.items[name]} {name} in the cart.")


async def main() -> None:
    bot = Bot(os.environ["BOT_TOKEN"], AiohttpSession(api=TelegramAPIServer.from_base(API_URL)))
    await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
