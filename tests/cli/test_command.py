"""The command line, as a process of its own."""

import subprocess
import sys
from importlib.metadata import version

import pytest


def run(*arguments, code="from gramkeep.cli import main; sys.exit(main())"):
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_runs_as_a_module_and_tells_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "gramkeep", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"gramkeep {version('gramkeep')}\n"


def test_help_names_the_commands():
    done = run("--help")
    assert done.returncode == 0
    assert "demo" in done.stdout


def test_help_of_the_demo_tells_what_it_does_and_fits_a_terminal():
    done = run("demo", "--help")
    assert done.returncode == 0
    assert {"--chat", "--story", "--framework"} <= set(done.stdout.split())
    assert "aiogram, ptb, telebot" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80


def test_without_a_command_it_says_that_one_is_required():
    done = run()
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


def test_a_chat_without_a_terminal_is_refused():
    done = run("demo", "--chat")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gramkeep demo --chat needs a terminal; without one, gramkeep demo plays a story"
    ]


def test_chat_and_story_exclude_each_other():
    assert run("demo", "--chat", "--story").returncode == 2


def test_an_unknown_framework_is_refused_with_those_that_there_are():
    done = run("demo", "--framework", "grammy")
    assert done.returncode == 2
    for name in ("grammy", "aiogram", "ptb", "telebot"):
        assert name in done.stderr


@pytest.mark.parametrize(
    ("framework", "missing", "told"),
    [
        ("aiogram", ["aiogram"], 'aiogram: pip install "gramkeep[demo]"'),
        ("aiogram", ["aiohttp"], 'aiohttp: pip install "gramkeep[demo]"'),
        ("ptb", ["textual"], 'textual: pip install "gramkeep[demo]"'),
        ("ptb", ["telegram"], 'python-telegram-bot: pip install "gramkeep[ptb]"'),
        ("telebot", ["telebot"], 'pyTelegramBotAPI: pip install "gramkeep[telebot]"'),
        (
            "telebot",
            ["telebot", "textual"],
            'pyTelegramBotAPI and textual: pip install "gramkeep[demo,telebot]"',
        ),
    ],
)
def test_what_is_missing_is_told_in_one_line_with_the_extra_that_brings_it(
    framework, missing, told
):
    hidden = dict.fromkeys(missing)
    block = f"sys.modules.update({hidden}); from gramkeep.cli import main; sys.exit(main())"
    done = run("demo", "--framework", framework, code=block)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"gramkeep demo needs {told}\n"


@pytest.mark.parametrize("other", ["aiogram", "telebot"])
def test_a_framework_that_was_not_asked_for_may_be_missing(other):
    block = f"sys.modules[{other!r}] = None; from gramkeep.cli import main; sys.exit(main())"
    done = run("demo", "--framework", "ptb", "--chat", code=block)
    assert "needs a terminal" in done.stderr


def test_the_command_itself_imports_nothing_of_the_extra():
    extra = {"aiogram", "telebot", "telegram", "aiohttp", "rich", "textual"}
    code = f"import gramkeep.cli; print({extra} & set(sys.modules))"
    assert run(code=code).stdout.strip() == "set()"
