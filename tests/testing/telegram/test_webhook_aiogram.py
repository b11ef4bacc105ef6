"""A real aiogram bot behind a webhook."""

import pytest
from aiogram import Dispatcher
from aiogram.types import Message
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web


@pytest.mark.parametrize("in_background", [True, False])
async def test_a_webhook_bot_answers(telegram, aiogram_bot, in_background):
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def echo(message: Message):
        if in_background:
            await message.answer(message.text)
            return None
        return message.answer(message.text)

    app = web.Application()
    SimpleRequestHandler(
        dispatcher, aiogram_bot, handle_in_background=in_background, secret_token="s3cret"
    ).register(app, path="/hook")
    setup_application(app, dispatcher, bot=aiogram_bot)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        await aiogram_bot.set_webhook(f"http://127.0.0.1:{port}/hook", secret_token="s3cret")
        alice, bob = telegram.user("Alice"), telegram.user("Bob")
        await alice.write("one")
        await alice.write("two")
        await bob.write("three")
        assert {answer.text for answer in await alice.answers(2)} == {"one", "two"}
        assert (await bob.next_answer()).text == "three"
        await telegram.drained()
        assert (await aiogram_bot.get_webhook_info()).last_error_message is None
    finally:
        await runner.cleanup()
