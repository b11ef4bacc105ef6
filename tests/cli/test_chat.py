"""The chat, driven by Textual's own pilot, with the real server and the real bot process."""

import asyncio
import os

import pytest

from gramkeep.cli import chat
from gramkeep.cli.chat import ChatApp, SessionCard
from gramkeep.cli.frameworks import FRAMEWORKS
from gramkeep.cli.scene import open_scene


@pytest.fixture
async def scene(request):
    async with open_scene(getattr(request, "param", "aiogram")) as scene:
        yield scene


async def until(look, what):
    try:
        async with asyncio.timeout(30):
            while not look():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not so after 30 s: {what}")


def bubbles(app):
    return [bubble.text.plain for bubble in app.screen.query("Bubble")]


def state(app):
    return str(app.screen.query_one("#state").render())


def stored(app):
    return [card.value for card in app.screen.query(SessionCard)]


async def write(pilot, text):
    await pilot.press(*text, "enter")


@pytest.mark.parametrize("scene", FRAMEWORKS, indirect=True)
async def test_a_talk_goes_on_after_the_bot_was_killed_and_started_again(scene, monkeypatch):
    monkeypatch.setattr(chat, "HIGHLIGHT", 60.0)  # seconds, for looks that come late
    app = ChatApp(scene)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: "running" in state(app), "the bot runs")
        assert scene.bot.framework in state(app)
        await write(pilot, "hello")
        await until(lambda: stored(app) == ['{"count":1}', None, None], "Ada's session is shown")
        assert app.screen.query(SessionCard).first().has_class("changed", "current")
        answer = "Bot  Message number 1 in this chat."
        await until(lambda: bubbles(app) == ["Ada  hello", answer], "Ada sees the answer")

        await pilot.press("f2", "f3")
        await pilot.pause()
        assert bubbles(app) == []
        await write(pilot, "[b]hi")
        await until(lambda: bubbles(app) == ["Linus  [b]hi", answer], "Linus sees it in the group")
        await until(lambda: stored(app)[2] == '{"count":1}', "the group's session is shown")
        await pilot.press("f3")
        await write(pilot, "1")
        await until(lambda: stored(app)[1] == '{"count":1}', "Linus' session is shown")
        await pilot.press("f4")
        await until(lambda: stored(app)[1] is None, "Linus' session is gone")

        await pilot.press("f2")
        killed = scene.bot.pid
        await pilot.press("f5")
        await until(lambda: "killed" in state(app), "the bot is killed")
        with pytest.raises(ProcessLookupError):
            os.kill(killed, 0)
        await write(pilot, "there?")
        assert stored(app)[0] == '{"count":1}'
        await pilot.resize_terminal(120, 40)
        await pilot.press("f5")
        await until(lambda: "running" in state(app), "the bot runs again")
        assert scene.bot.pid != killed
        await until(lambda: stored(app)[0] == '{"count":2}', "Ada's count went on")
        await until(lambda: bubbles(app)[2:3] == ["Ada  there?"], "Ada's question is there")
        await until(lambda: bubbles(app)[-1].endswith("number 2 in this chat."), "it is answered")

        await pilot.press("ctrl+q")
        await pilot.pause()
        assert app.return_code == 0
    assert scene.bot.is_running  # its end is the scene's


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q", "f10"])
async def test_it_is_left_by_any_of_these_keys(broken_aiogram, scene, key):
    app = ChatApp(scene)
    async with app.run_test() as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert app.return_code == 0


async def test_a_bot_that_cannot_start_shows_what_it_wrote(broken_aiogram, scene):
    app = ChatApp(scene)
    async with app.run_test() as pilot:
        await until(lambda: "ended with exit code 1" in state(app), "the bot has ended")
        log = app.screen.query_one("Log")
        assert log.display
        assert "RuntimeError: broken on purpose" in log.lines
        await pilot.press("f6")
        assert not log.display
        await pilot.press("f5")
        await until(lambda: log.lines.count("RuntimeError: broken on purpose") == 2, "tried again")


async def test_a_bot_can_be_killed_while_it_starts(scene):
    app = ChatApp(scene)
    async with app.run_test() as pilot:
        await until(lambda: scene.bot.is_running, "the bot starts")
        await pilot.press("f5")
        await until(lambda: "killed" in state(app), "the bot is killed")
        assert not app.screen.query_one("Log").display
