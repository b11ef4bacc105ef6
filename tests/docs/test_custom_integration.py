"""The integrations that docs/integrations/custom.md shows hold what gramkeep's own ones hold.

The tests on the page are run with both of them, and a driver of the framework there plays the
scenarios with the second one.
"""

import asyncio
import re

import pytest
from integrations.drivers.base import Driver
from integrations.drivers.events import ChannelPost, InlineQuery, Text, Upgrade
from integrations.drivers.handlers import Turn
from integrations.scenarios import SCENARIOS

from .pages import ROOT, blocks

PAGE = "docs/integrations/custom.md"
CHECKS = "".join(block.code for block in blocks(ROOT / PAGE) if block.section == "Check it")

UNTOLD = "the page's updates don't say so"
MISSING = {
    "a_key_can_have_all_that_an_update_says": UNTOLD,
    "a_topic_is_apart_from_the_rest_of_its_chat": UNTOLD,
    "a_business_chat_is_apart_from_the_bots_own": UNTOLD,
    "handlers_in_nested_routers_or_groups_get_the_session": "handlers stand in one list",
    "synchronous_handlers_count_right": "handlers are coroutines",
}


@pytest.mark.parametrize("check", re.findall(r"async def (test_\w+)", CHECKS))
@pytest.mark.parametrize("integration", ["In twenty lines", "The whole"])
async def test_the_pages_own_tests_pass(run, integration, check):
    page = await run(PAGE, through=integration)
    exec(CHECKS, vars(page))
    await getattr(page, check)()


def test_the_first_integration_has_about_twenty_lines():
    (integration, _) = (
        block.code for block in blocks(ROOT / PAGE) if block.section == "In twenty lines"
    )
    lines = [line for line in integration.splitlines() if line and "import" not in line]
    assert len(lines) < 20


async def test_updates_of_one_chat_wait_in_their_order_and_others_do_not_wait(run):
    page = await run(PAGE, through="In twenty lines")
    bot, seen, go_on = page.Bot(), [], asyncio.Event()
    page.session(initial=page.Counter, storage="memory://").setup(bot)

    @bot.on(lambda update: True)
    async def note(update, session):
        if update.text == "long":
            await go_on.wait()
        seen.append(update.text)

    for text, chat in (("long", 7), ("after", 7), ("other", 8)):
        bot.feed(page.Update(text, chat_id=chat))
    await asyncio.sleep(0.01)
    assert seen == ["other"]
    go_on.set()
    await asyncio.gather(*bot.running)
    assert seen == ["other", "long", "after"]


class OwnFrameworkDriver(Driver):
    """Bots of the framework on the page; see the docstring of ``integrations/drivers/base.py``."""

    framework = "a framework of one's own"
    missing = MISSING

    def __init__(self, folder, page):
        super().__init__(folder)
        self._page = page
        self.session, self.lazy_session = page.session, page.lazy_session

    def make(self):
        self._bot = self._page.Bot()

    def set_up(self, kind):
        kind.setup(self._bot)

    def register(self, handler):
        def matches(update):
            return update.type in handler.types and handler.text in (None, update.text)

        async def call(update, **found):
            await handler.run(Turn(update.text, found, self.record))

        self._bot.on(matches)(handler.asking(call, "update"))

    async def start(self):
        await self._bot.start()

    async def stop(self):
        await self._bot.stop()
        await asyncio.gather(*self._bot.running, return_exceptions=True)

    async def deliver(self, events):
        for event in events:
            self._bot.feed(self._update(event))

    def _update(self, event):
        update_type, fields = "message", {}
        match event:
            case Text(sender, text, chat):
                chat_id = sender.id if chat is None else chat.id
                fields = {"text": text, "chat_id": chat_id, "user_id": sender.id}
            case ChannelPost(chat, text):
                update_type, fields = "channel_post", {"text": text, "chat_id": chat.id}
            case InlineQuery(sender, text):
                update_type, fields = "inline_query", {"text": text, "user_id": sender.id}
            case Upgrade(old, new, told_in, by):
                upgraded = old.id, new.id
                fields = {"chat_id": told_in.id, "user_id": by.id, "upgraded": upgraded}
            case _:
                update_type = "poll"
        update = self._page.Update(**fields)
        update.type = update_type
        return update


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in MISSING])
async def test_the_whole_integration_holds_what_every_integration_must(run, tmp_path, name):
    bot = OwnFrameworkDriver(tmp_path, await run(PAGE, through="The whole"))
    await bot.open()
    try:
        bot.make()
        await SCENARIOS[name].play(bot)
    finally:
        await bot.close()


def test_scenarios_that_are_not_played_are_known():
    assert set(MISSING) <= set(SCENARIOS)
