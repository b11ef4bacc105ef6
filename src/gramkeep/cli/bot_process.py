"""The demo's bot, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gramkeep.cli.frameworks import FRAMEWORKS

GRACE: Final = 3.0  # seconds a bot has to end by itself when asked to


class BotDied(Exception):
    """The bot ended although nobody asked it to; the message says how, and what it wrote last."""


class BotProcess:
    """Runs ``examples/<framework>_counter.py``; its sessions and its log are in ``folder``."""

    def __init__(self, framework: str, *, token: str, api_url: str, folder: Path) -> None:
        self.framework = FRAMEWORKS[framework].name
        self.database = folder / "bot.db"
        self.is_killed = False
        self._script = _script(f"{framework}_counter.py")
        self._log_file = folder / "bot.log"
        self._environment = os.environ | {
            "BOT_TOKEN": token,
            "BOT_API_URL": api_url,
            "STORAGE": f"sqlite:///{quote(str(self.database))}",
        }
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def log(self) -> str:
        """Everything the bot wrote to stdout and stderr so far."""
        return self._log_file.read_text("utf-8", "replace") if self._log_file.exists() else ""

    def died(self) -> BotDied:
        last = self.log().splitlines()[-15:]
        wrote = "\n".join(f"  {line}" for line in last) or "  nothing"
        return BotDied(f"the bot ended with exit code {self.exit_code}; it wrote last:\n{wrote}")

    async def start(self) -> None:
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.is_killed = False
            # A session of its own: a Ctrl-C in the terminal is for the demo, which then stops it.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(self._script),
                env=self._environment,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def exited(self) -> None:
        """Wait until the process has ended."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """End it by SIGKILL: no signal handler, no shutdown hook, no last write."""
        if self._process is not None and self.is_running:
            self.is_killed = True
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, by SIGTERM, and kill it if it doesn't in time."""
        if self._process is None or not self.is_running:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()


def _script(name: str) -> Path:
    """Find the bot: put into the package when it was built, in a checkout among the examples."""
    packaged = Path(__file__).with_name("bots") / name
    if packaged.exists():
        return packaged
    return Path(__file__).parents[3] / "examples" / name
