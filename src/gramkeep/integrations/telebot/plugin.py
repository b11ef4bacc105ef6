"""`session` and `lazy_session`: how they come to a bot."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from telebot import TeleBot

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import hook_of
from gramkeep.integrations.blocking import run
from gramkeep.integrations.telebot.hook import Hook
from gramkeep.integrations.telebot.threads import ThreadedHook
from gramkeep.middleware import DataT, SessionPlugin

if TYPE_CHECKING:  # it needs aiohttp, which threaded bots do without
    from telebot.async_telebot import AsyncTeleBot

V = TypeVar("V")


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a bot; options as in `SessionOptions`."""

    def setup(self, bot: TeleBot | AsyncTeleBot) -> None:
        """Install these sessions.

        When the bot stops they wait for the handlers that hold one, and close; a ready `Sessions`
        is left open. Two kinds side by side need different ``key`` options; `ConfigurationError`
        says so.
        """
        hook: ThreadedHook | Hook
        # Who has a bot with coroutines has imported its module.
        with_coroutines = getattr(sys.modules.get("telebot.async_telebot"), "AsyncTeleBot", ())
        if isinstance(bot, TeleBot):
            hook = hook_of(bot, ThreadedHook)
        elif isinstance(bot, with_coroutines):
            hook = hook_of(bot, Hook)
        else:
            text = f"setup({bot!r}): sessions are set up on a TeleBot or an AsyncTeleBot"
            raise ConfigurationError(text)
        hook.plugins.add(self)

    def run(self, coroutine: Coroutine[Any, Any, V]) -> V:
        """Run a coroutine where the sessions of threaded bots live, and wait for its result.

        For threads, in handlers and outside of them: ``counters.run(counters.sessions.get("42"))``.
        Raises `ConfigurationError` on an event loop, which it would hold up.
        """
        return run(coroutine)


class lazy_session(session[DataT]):  # noqa: N801
    """As `session`, loaded in the handler: by ``await session``, in threads ``session.load()``."""

    lazy = True
