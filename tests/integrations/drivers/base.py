"""How the scenarios drive a bot of any framework; and how to add a framework.

The scenarios in ``tests/integrations/scenarios/`` tell what every integration must hold, in no
framework's words. A *driver* translates: it builds bots the way the framework's users do, and
makes things happen to them. To add a framework, write ``drivers/<framework>.py`` with one
subclass of `Driver`; of `BotApiDriver`, in ``bot_api.py``, if the framework speaks the Bot API.
It is found by being there. ``pytest tests/integrations -k <framework>`` runs all scenarios with
it, and ``make scenarios`` gives it a column in ``docs/integrations/scenarios.md``. ``aiogram.py``
is an example.

A driver says:

``framework``
    Its name, as it stands in the table and in the names of tests.
``session``, ``lazy_session``
    What the integration exports under these names.
``missing``
    Scenarios that can't exist with this framework, by the names of their functions, each with the
    reason: ``{"a_cancelled_handler_changes_nothing": "threads can't be cancelled"}``. The table
    shows the reason. A scenario that exists and fails is a bug, and doesn't belong here.

and does:

`make`
    Makes a new bot, dispatcher or client, with no sessions and no handlers, like a new process.
    Called before every scenario, and by some of them once more after `stop`.
`set_up`
    Installs a kind of session: mostly ``kind.setup(...)``.
`register`
    Registers a `Handler` the way users do: with a filter for its ``text``, for its types of
    updates, in a router or group of its ``level``. The first handler that matches is the only one
    that runs. The function that the framework calls makes a `Turn` of what it was given, and runs
    ``await handler.run(turn)``. Where parameters are told apart by their names, as in aiogram,
    ``handler.asking(function, ...)`` gives it those of the sessions that the handler asks for.
    Where sessions are found elsewhere, as in ``context.session``, a subclass of `Turn` gets and
    sets them there.
`start`, `stop`
    As a user would; `stop` returns when the bot has stopped, so that its process could end.
    Stopping what isn't running does nothing. A bot that was stopped may be started again.
`deliver`
    Makes events happen, all at once: none is handled before the last one has happened. MTProto
    frameworks make raw updates of them and dispatch these as the client would; `BotApiDriver`
    lets people write to a `TelegramServer`, which the bot polls over HTTP.

Updates must be handled concurrently where the framework can do it at all.

Frameworks whose handlers are threads run the same handlers: a `BlockingTurn` offers what a `Turn`
does, only that nothing in it waits for an event loop, and ``handler.run_blocking(turn)`` runs a
handler to its end. If their sessions or handles have other names for loading and clearing, a
subclass says so. If their sessions live in another event loop than the tests, `beside` brings work
there.

Where answers can't really be sent, pass `record` as the turn's ``say``.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from integrations.watched_storage import WatchedStorage

from gramkeep import Sessions
from gramkeep.middleware import SessionPlugin
from gramkeep.storage import ANY, Put

from .events import Chat, Event, Person, UpdateType
from .handlers import PATIENCE, Body, Handler, until

T = TypeVar("T")


class Driver(ABC):
    """A bot of one framework, for one scenario; see the module's docstring.

    ``async with`` runs the bot. ``storage`` and ``sqlite_url`` are places for its sessions, and
    empty at first. ``log`` has what was logged as an error, with tracebacks.
    """

    framework: ClassVar[str]
    session: ClassVar[Callable[..., SessionPlugin[Any]]]
    lazy_session: ClassVar[Callable[..., SessionPlugin[Any]]]
    missing: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.sqlite_url = f"sqlite:///{folder}/bot.db"
        self.storage = WatchedStorage()
        self.log = _ErrorLog()
        self._answers: list[str] = []

    @abstractmethod
    def make(self) -> None:
        """Make a new bot, as yet without sessions and handlers."""

    @abstractmethod
    def set_up(self, kind: Any) -> None:
        """Install a kind of session."""

    @abstractmethod
    def register(self, handler: Handler) -> None:
        """Register a handler."""

    @abstractmethod
    async def start(self) -> None:
        """Start the bot, and return when it takes updates."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the bot, and return when it has."""

    @abstractmethod
    async def deliver(self, events: Sequence[Event]) -> None:
        """Make events happen, all at once."""

    async def open(self) -> None:
        """Prepare what bots need that isn't part of them, such as a server."""
        logging.getLogger().addHandler(self.log)

    async def close(self) -> None:
        """Stop, and give up what `open` prepared."""
        await self.stop()
        logging.getLogger().removeHandler(self.log)

    def topic(self, forum: Chat) -> int:
        """Make a topic in a forum, and give its id."""
        return 5

    async def connect_business(self, owner: Person) -> str:
        """Let the bot act for somebody's business account, and give the connection's id."""
        return "business-1"

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something outside of handlers, in the event loop to which the sessions belong.

        Also before the bot's start and after its stop.
        """
        return await work

    def record(self, text: str) -> None:
        """Take down an answer that is really sent nowhere."""
        self._answers.append(text)

    async def answers(self, count: int) -> list[str]:
        """Give the bot's next answers, in their order, waiting for them if need be."""
        await until(lambda: len(self._answers) >= count, f"only {self._answers} of {count} answers")
        answers, self._answers = self._answers[:count], self._answers[count:]
        return answers

    # --- for scenarios

    def keep(self, *sessions: Sessions[Any], **options: Any) -> None:
        """Install ``session(**options)``, or ``session(sessions)`` with ready ones."""
        self.set_up(self.session(*sessions, **options))

    def on(
        self,
        *types: UpdateType,
        text: str | None = None,
        asks: Sequence[str] = ("session",),
        level: int = 0,
    ) -> Callable[[Body], Body]:
        """Register a handler; see `Handler`."""

        def register(body: Body) -> Body:
            self.register(
                Handler(body=body, types=types or ("message",), text=text, asks=asks, level=level)
            )
            return body

        return register

    async def send(self, *events: Event) -> None:
        """Make events happen, all at once."""
        await self.deliver(events)

    async def ask(self, event: Event) -> str:
        """Make one thing happen, and give the bot's answer."""
        await self.deliver([event])
        return (await self.answers(1))[0]

    async def stored(self, key: object) -> Any:
        """Give what the storage has under a key, ``None`` for nothing."""
        record = (await self.storage.get([str(key)]))[0]
        return None if record is None else json.loads(record.value)

    async def store(self, key: object, value: bytes) -> None:
        """Put bytes into the storage, whatever is there."""
        assert await self.storage.put([Put(str(key), value, ANY)]) == [True]

    async def logged(self, text: str) -> None:
        """Wait until an error is logged whose traceback has this text."""
        await until(lambda: text in self.log.text, f"no {text!r} is logged", timeout=PATIENCE)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _ErrorLog(logging.Handler):
    """What any logger says of errors, as one text."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{self.format(record)}\n"
