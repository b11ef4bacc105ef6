"""The command `gramkeep`. Nothing is imported before it is known what is asked for."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version
from signal import SIGINT

from gramkeep.cli.frameworks import FRAMEWORKS, STAGE

__all__ = ["main"]

DEMO = """\
Run a real bot against a Bot API server on this machine. The bot is a process
of its own and keeps its sessions in an SQLite file; nothing leaves this
machine, and nothing stays on it.

On a terminal it is a chat: write as two people, alone and in a group, see what
the bot answers and what it stores, kill it, and start it again. Without one it
plays a short story, checks it, and prints what was said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = ArgumentParser(
        prog="gramkeep", description="Typed, persistent sessions for Telegram bots."
    )
    parser.add_argument("--version", action="version", version=f"gramkeep {version('gramkeep')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="talk to a bot and see what it stores",
        description=DEMO,
        formatter_class=RawDescriptionHelpFormatter,
    )
    mode = demo.add_mutually_exclusive_group()
    mode.add_argument("--chat", action="store_true", help="chat; needs a terminal")
    mode.add_argument("--story", action="store_true", help="play the story, on a terminal too")
    demo.add_argument(
        "--framework",
        choices=FRAMEWORKS,
        default="aiogram",
        help="what the bot is written with: %(choices)s; %(default)s if not given",
        metavar="NAME",
    )
    demo.set_defaults(run=_demo)
    chosen = parser.parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
    except KeyboardInterrupt:
        return 128 + SIGINT
    return code


def _demo(chosen: Namespace) -> int:
    missing = [each for each in (FRAMEWORKS[chosen.framework], *STAGE) if each.is_missing]
    if missing:
        names = " and ".join(package.name for package in missing)
        extras = ",".join(sorted({package.extra for package in missing}))
        return _refuse(f'demo needs {names}: pip install "gramkeep[{extras}]"')
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if chosen.chat and not on_terminal:
        return _refuse("demo --chat needs a terminal; without one, gramkeep demo plays a story")
    from gramkeep.cli import demo  # noqa: PLC0415 - needs the extra

    play = demo.chat if on_terminal and not chosen.story else demo.story
    return play(chosen.framework)


def _refuse(why: str) -> int:
    sys.stderr.write(f"gramkeep {why}\n")
    return 2
