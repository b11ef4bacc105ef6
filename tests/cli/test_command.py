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
    assert {"--chat", "--story"} <= set(done.stdout.split())
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


@pytest.mark.parametrize("missing", ["aiogram", "aiohttp", "textual"])
def test_a_missing_extra_is_told_in_one_line(missing):
    block = f"sys.modules[{missing!r}] = None; from gramkeep.cli import main; sys.exit(main())"
    done = run("demo", code=block)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f'gramkeep demo needs {missing}: pip install "gramkeep[demo]"\n'


def test_the_command_itself_imports_nothing_of_the_extra():
    code = (
        "import gramkeep.cli; print({'aiogram', 'aiohttp', 'rich', 'textual'} & set(sys.modules))"
    )
    assert run(code=code).stdout.strip() == "set()"
