"""Sessions for threaded bots of pyTelegramBotAPI; `gramkeep.integrations.telebot` sets them up.

Sessions live on an event loop in a thread of its own. There every update is a task, which holds
its sessions while the bot's threads run the handlers, and does what these ask of it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from telebot import logger
from telebot.types import Message, Update

from gramkeep.integrations.around import Plugins
from gramkeep.integrations.blocking import LOOP_THREAD, in_handler
from gramkeep.integrations.telebot.origin import upgrade_of
from gramkeep.integrations.telebot.threaded_turn import Handlers, Play, ThreadedTurn
from gramkeep.integrations.telebot.turns import Handler


class ThreadedHook:
    """All sessions of one `TeleBot`, in one place around its updates.

    telebot has no place to hook into that every handler passes, in the order of the updates. So
    methods of this bot are replaced; it calls them as its own.
    """

    def __init__(self, bot: Any) -> None:
        self.plugins = Plugins()
        self._bot = bot
        self._starts = 0
        self._is_stopped = False
        self._undone: set[Future[Any]] = set()
        self._handle_all = bot._run_middlewares_and_handler  # noqa: SLF001 - to know it by
        self._exec_task = bot._exec_task  # noqa: SLF001 - all handlers go through it, in order
        bot._exec_task = self._take  # noqa: SLF001
        bot.process_new_updates = partial(self._one_by_one, bot.process_new_updates)
        bot.stop_bot = partial(self._stop_bot, bot.stop_bot)
        for name in ("polling", "infinity_polling", "run_webhooks"):
            setattr(bot, name, partial(self._while_started, getattr(bot, name)))
        _hooks.add(self)

    def _one_by_one(self, process: Callable[[list[Update]], None], updates: list[Update]) -> None:
        # telebot handles all messages of a batch before any other update in it; here each takes
        # its place when its turn is.
        for update in updates:
            process([update])
            nobody_takes = not (self._bot.message_handlers or self._bot.use_class_middlewares)
            if nobody_takes and None not in upgrade_of(update.message):
                self._take(self._handle_all, update.message, handlers=(), update_type="message")

    def _take(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Do what telebot wants a thread to do."""
        if task == self._handle_all:
            self._handle(*args, **kwargs)
            return
        # A listener, which gets a list of messages; or a handler for this one message, by
        # `register_next_step_handler` or `register_for_reply`.
        if args and isinstance(args[0], Message):
            handler = Handler(partial(task, **kwargs), self.plugins, taken=len(args))
            if handler.asked:
                self._begin(args[0], (), lambda turn: turn.call(handler, *args))
                return
        self._exec_task(task, *args, **kwargs)

    def _handle(
        self,
        event: Any,
        handlers: Handlers,
        update_type: str,
        middlewares: list[Any] | None = None,
    ) -> None:
        def play(turn: ThreadedTurn) -> None:
            self._handle_all(event, turn.handlers, [turn, *(middlewares or ())], update_type)

        # What a middleware leaves in its thread, a database connection say, handlers must find
        # there: with middlewares they wait for their sessions in the thread.
        self._begin(event, handlers, play, stays=bool(middlewares))

    def _begin(self, event: Any, handlers: Handlers, play: Play, *, stays: bool = False) -> None:
        stays = stays or not self._bot.threaded
        turn = ThreadedTurn(self.plugins, self._bot, event, handlers, play, stays=stays)
        if self._bot.threaded:
            LOOP_THREAD.submit(self._hold(turn))
        else:
            self._exec_task(_hold_and_serve, turn)

    async def _hold(self, turn: ThreadedTurn) -> None:
        try:
            await turn.hold(self._in_pool)
        except Exception as error:  # noqa: BLE001 - it is told
            threading.Thread(target=self._tell, args=(error,), name="gramkeep").start()

    def _tell(self, error: Exception) -> None:
        """Tell of an error of ours as telebot does of a handler's."""
        if not self._bot._handle_exception(error):  # noqa: SLF001 - it asks its exception_handler
            logger.error("%s", error, exc_info=error)

    def _in_pool(self, outcome: Future[Any], step: Callable[[], Any]) -> None:
        """Let one of the bot's threads do something, unless the bot is stopped before."""
        self._undone.add(outcome)
        outcome.add_done_callback(self._undone.discard)
        self._bot.worker_pool.put(step)
        if self._is_stopped:
            outcome.cancel()

    def _while_started(self, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run what returns when the bot stops; ``infinity_polling`` runs ``polling`` again."""
        self._starts += 1
        try:
            LOOP_THREAD.run(self.plugins.start_up())
            return start(*args, **kwargs)
        finally:
            self._starts -= 1
            if not self._starts:
                LOOP_THREAD.run(self.plugins.shut_down())

    def _stop_bot(self, stop: Callable[[], None]) -> None:
        if not in_handler():  # it can't wait for itself
            self._bot.stop_polling()
            LOOP_THREAD.run(self.plugins.shut_down())
        stop()
        # Nobody will do what the bot's threads have left undone.
        self._is_stopped = True
        for outcome in list(self._undone):
            outcome.cancel()


def _hold_and_serve(turn: ThreadedTurn) -> None:
    """Let this thread, which is the bot's only one, call the handlers."""
    steps: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    held = LOOP_THREAD.submit(turn.hold(lambda _, step: steps.put(step)))
    held.add_done_callback(lambda _: steps.put(None))
    failure: Exception | None = None
    try:
        while (step := steps.get()) is not None:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - raised when the sessions are let go
                failure = error
    except BaseException:
        held.cancel()
        raise
    held.result()
    if failure is not None:
        raise failure


_hooks: WeakSet[ThreadedHook] = WeakSet()


@atexit.register
def _drain() -> None:
    """Wait for handlers that hold a session: telebot's threads end with the process, wherever."""
    for hook in list(_hooks) if LOOP_THREAD.is_running else ():
        LOOP_THREAD.run(hook.plugins.drain())
