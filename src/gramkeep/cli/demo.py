"""`gramkeep demo`: one of its two forms, on a scene that is cleared away whatever happens."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rich.console import Console

from gramkeep.cli.scene import Scene, open_scene
from gramkeep.cli.story import tell_story


def story(framework: str) -> int:
    """Play the story with the bot of a framework; return the exit code."""
    console = Console(highlight=False)
    return _play(framework, lambda scene: tell_story(scene, console))


def chat(framework: str) -> int:
    """Run the chat with the bot of a framework until the user leaves it; return the exit code."""
    from gramkeep.cli.chat import ChatApp  # noqa: PLC0415 - the story goes without Textual

    async def run(scene: Scene) -> int:
        app = ChatApp(scene)
        await app.run_async()
        return app.return_code or 0

    return _play(framework, run)


def _play(framework: str, act: Callable[[Scene], Awaitable[int]]) -> int:
    async def play() -> int:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        for name in ("SIGTERM", "SIGHUP"):  # Ctrl-C cancels it anyway
            with suppress(AttributeError, NotImplementedError):  # on Windows
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), task.cancel)
        async with open_scene(framework) as scene:
            return await act(scene)

    try:
        return asyncio.run(play())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
