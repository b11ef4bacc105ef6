"""`session` and `lazy_session`: how they come to a bot."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from telegram.ext import Application, ApplicationBuilder, ApplicationHandlerStop, ContextTypes

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import Plugins, names_of
from gramkeep.integrations.ptb.turns import (
    Callback,
    TurnContext,
    UpdateTurn,
    current_turn,
    is_of_handler,
    origin_of,
    turn_of,
)
from gramkeep.middleware import DataT, LazySessionFlavor, SessionFlavor, SessionPlugin

BuilderT = TypeVar("BuilderT", bound="ApplicationBuilder[Any, Any, Any, Any, Any, Any]")


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of an application; options as in `SessionOptions`."""

    def setup(self, builder: BuilderT) -> BuilderT:
        """Install these sessions in what the builder will build; gives the builder back.

        An ``application_class`` of yours has to be set before. When the application shuts down
        they wait for who holds one, and close; a ready `Sessions` is left open. Two kinds side by
        side need different ``key`` options; `ConfigurationError` says so.
        """
        if not isinstance(builder, ApplicationBuilder):
            text = f"setup({builder!r}): sessions are set up on the ApplicationBuilder"
            raise ConfigurationError(text)
        # A builder can be given a class, but in public it isn't to be asked for it again.
        given: Any = builder._application_class  # noqa: SLF001
        given = given if isinstance(given, type) else given.value  # the default comes wrapped
        if not issubclass(given, _Application):
            plugins = Plugins(ApplicationHandlerStop)
            given = type(given.__name__, (_Application, given), {"session_plugins": plugins})
            builder.application_class(given, builder._application_kwargs)  # noqa: SLF001
        given.session_plugins.add(self)
        return builder


class lazy_session(session[DataT]):  # noqa: N801
    """As `session`, loaded by ``await context.session`` in the handler."""

    lazy = True


class _Application(Application[Any, Any, Any, Any, Any, Any]):
    """Goes before the application's own class, and puts sessions around its updates."""

    session_plugins: ClassVar[Plugins]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        given = self.context_types
        context = _context_class(given.context, self.session_plugins)
        self.context_types = ContextTypes(context, given.bot_data, given.chat_data, given.user_data)

    async def initialize(self) -> None:
        await self.session_plugins.start_up()
        await super().initialize()

    async def shutdown(self) -> None:
        if not self.running:  # or it raises
            await self.session_plugins.shut_down()
        await super().shutdown()

    async def process_update(self, update: object) -> None:
        # In a task of its own, even where PTB handles all updates in one: whoever holds a session
        # is told from others by the task, also when handlers go on that the update doesn't await.
        await asyncio.create_task(self._process_alone(update))

    async def _process_alone(self, update: object) -> None:
        turn = UpdateTurn(self.session_plugins, origin_of(update, self.bot), update)
        current_turn.set(turn)
        try:
            if await self._does(turn, turn.begin()):
                await super().process_update(update)
            if turn.tasks:
                self.create_task(turn.end_after_tasks(), update)
            else:
                await self._does(turn, turn.end())
        except BaseException as error:  # it was cancelled
            await turn.give_up(error)
            raise
        finally:
            turn.is_over = True

    async def process_error(
        self, update: object, error: Exception, job: Any = None, coroutine: Any = None
    ) -> bool:
        turn = turn_of(update)
        is_handlers = job is None and (coroutine is None or is_of_handler(coroutine))
        if turn is None or not is_handlers:
            return await super().process_error(update, error, job, coroutine)
        await turn.give_up(error)
        stopped = await super().process_error(update, error, job, coroutine)
        if turn.failure is not None:
            return True  # without the session no handler runs, of later groups neither
        if stopped or turn.is_over or turn.tasks or len(self.handlers) == 1:
            return stopped
        # PTB goes on with later groups, and so does the session.
        return not await self._does(turn, turn.begin())

    def create_task(
        self, coroutine: Any, update: object = None, *, name: str | None = None
    ) -> asyncio.Task[Any]:
        task = super().create_task(coroutine, update, name=name)
        if is_of_handler(coroutine) and (turn := turn_of(update)) is not None:
            turn.tasks.append(task)
        return task

    def add_error_handler(self, callback: Any, *block: Any, **options: Any) -> None:
        super().add_error_handler(Callback.around(callback), *block, **options)

    async def _does(self, turn: UpdateTurn, step: Coroutine[Any, Any, None]) -> bool:
        """Take a step of the turn. If that fails, the turn is given up, and the error told."""
        try:
            await step
        except Exception as error:  # noqa: BLE001 - all of them are for PTB's error handlers
            await turn.give_up(error)
            await super().process_error(turn.update, error)
            return False
        return True


def _context_class(given: type[Any], plugins: Plugins) -> type[Any]:
    """Give the application's class of contexts the sessions as attributes."""
    attributes: dict[str, property] = {}
    for plugin in plugins:
        flavor = LazySessionFlavor if plugin.lazy else SessionFlavor
        is_typed = plugin.sessions.options.key == "session" and issubclass(given, flavor)
        for name in names_of(plugin):
            if hasattr(given, name) and not is_typed:
                text = (
                    f"{given.__qualname__} has something named {name!r} already: give the "
                    f"sessions another name, by key=. Of the flavors these need {flavor.__name__}"
                )
                raise ConfigurationError(text)
        attributes |= zip(names_of(plugin), _attributes_for(plugin), strict=True)
    return type(given.__name__, (TurnContext, given), attributes)


def _attributes_for(plugin: SessionPlugin[Any]) -> tuple[property, property]:
    """Make what gives contexts the data of a session, and its handle."""

    def handle(context: TurnContext) -> Any:
        return context.handle_of(plugin)

    def data(context: TurnContext) -> Any:
        return plugin.sessions.shown(context.handle_of(plugin), lazy=plugin.lazy)

    def replace(context: TurnContext, value: Any) -> None:
        context.handle_of(plugin).data = value

    return property(data, replace), property(handle)
