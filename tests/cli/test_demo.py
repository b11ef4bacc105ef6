"""`gramkeep demo` as a process of its own, with its bot as another one."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

from gramkeep.cli.frameworks import FRAMEWORKS
from gramkeep.cli.scene import open_scene
from gramkeep.cli.story import tell_story
from gramkeep.storage import ANY, Put

COMMAND = [sys.executable, "-m", "gramkeep", "demo"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the demo puts its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def begin():
    """Begin the demo with its output in a pipe."""
    begun = []

    def begin(framework="aiogram"):
        process = subprocess.Popen(
            [*COMMAND, "--framework", framework],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_until(process, pattern):
    """Read the process's output up to the line with the pattern."""
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    pytest.fail(f"the output ended without {pattern!r}")


@pytest.mark.parametrize(("framework", "package"), FRAMEWORKS.items())
def test_the_story_ends_well_and_leaves_nothing_behind(begin, folder, framework, package):
    demo = begin(framework)
    output, errors = demo.communicate(timeout=100)
    assert demo.returncode == 0, output
    assert errors == ""
    assert "\x1b" not in output
    assert f"A bot written with {package.name}," in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in [
        "bot to Ada Message number 2 in this chat.",
        "bot to Linus Message number 1 in this chat.",
        "bot to Team Message number 2 in this chat.",
        "bot to Linus Forgotten. I start again from nothing.",
    ]:
        assert line in lines
    assert "Every count that was told is in the file." in output
    first, second = map(int, re.findall(r"It runs, as process (\d+)\.", output))
    assert f"Process {first} was killed" in output
    assert first != second
    assert not is_there(first)
    assert not is_there(second)
    kept = dict(re.findall(r"^ *(Ada|Linus|Team) +\d+ +10 +\d+ +(\d+) *$", output, re.MULTILINE))
    stored = dict(
        re.findall(r'^ *-?\d+ +(Ada|Linus|Team) +{"count":(\d+)} *$', output, re.MULTILINE)
    )
    assert set(kept) == {"Ada", "Linus", "Team"}
    for chat, count in kept.items():
        assert f"bot to {chat} Message number {int(count) + 1} in this chat." in lines
        assert int(stored[chat]) > int(count)
    assert "All as it must be" in lines[-1]
    assert list(folder.iterdir()) == []


def test_a_bot_that_cannot_start_is_told_with_what_it_wrote(begin, folder, broken_aiogram):
    demo = begin()
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "The demo failed: the bot ended with exit code 1" in output
    assert "RuntimeError: broken on purpose" in output
    assert errors == ""
    assert list(folder.iterdir()) == []


async def test_a_story_that_goes_otherwise_is_told_with_what_was_expected():
    output = io.StringIO()
    async with open_scene("aiogram") as scene:
        ada = str(scene.chats[0].id)
        await scene.storage.put([Put(ada, b'{"count":41}', ANY)])
        code = await tell_story(scene, Console(file=output))
    assert code == 1
    assert "The demo failed: the count told to Ada: expected 1, got 42" in output.getvalue()


def test_ctrl_c_amid_the_story_stops_the_bot_and_removes_the_files(begin, folder):
    for _ in range(5):
        demo = begin()
        bot = int(read_until(demo, r"It runs, as process (\d+)")[1])
        read_until(demo, "bot to Ada")
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
        if demo.returncode != 0:  # as where the story was over before the signal came
            break
    assert demo.returncode == 130
    assert errors == ""
    assert not is_there(bot)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_kills_a_bot_that_does_not_end(
    begin, folder, replace_aiogram, tmp_path, number
):
    told = tmp_path / "pid"
    replace_aiogram(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(told)!r}).write_text(str(os.getpid()) + chr(10))\n"
        "time.sleep(1000)\n"
    )
    demo = begin()
    while not (told.exists() and told.read_text().endswith("\n")):
        time.sleep(0.05)
    bot = int(told.read_text())
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 143
    assert errors == ""
    assert not is_there(bot)
    assert list(folder.iterdir()) == []


def test_on_a_terminal_it_is_a_chat_that_ctrl_c_ends(folder, broken_aiogram):
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(COMMAND, stdin=inside, stdout=inside, stderr=inside) as demo:
        os.close(inside)
        try:
            shown = b""
            while b"Write as Ada" not in shown or b"broken on purpose" not in shown:
                shown += os.read(terminal, 65536)
            os.write(terminal, b"\x03")
            while demo.poll() is None:
                shown += _read_rest(terminal)
            assert demo.returncode == 0
            assert b"gramkeep/cli" not in shown  # no traceback
        finally:
            demo.kill()
            os.close(terminal)
    assert list(folder.iterdir()) == []


def _read_rest(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        time.sleep(0.05)
        return b""
