"""What a test sees of the server: running it, making people and chats, waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aiohttp import web

from gramkeep.testing.telegram.api import NAMES, BotApi
from gramkeep.testing.telegram.errors import UsageError
from gramkeep.testing.telegram.faults import Faults
from gramkeep.testing.telegram.objects import JSON, Account, Call, Message
from gramkeep.testing.telegram.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from gramkeep.testing.telegram.chats import Chat
    from gramkeep.testing.telegram.people import User


class TelegramServer:
    """A Bot API server on this machine, for one bot, with the people who talk to it.

    ```python
    async with TelegramServer() as telegram:
        bot = Bot(telegram.token, ...)  # told to use telegram.url instead of api.telegram.org
        alice = telegram.user("Alice")
        await alice.write("/start")
        assert (await alice.next_answer()).text == "Hello, Alice!"
    ```

    It answers over HTTP as https://core.telegram.org/bots/api describes. `calls` records every call
    of the bot, `faults` makes calls fail. With `webhook_in_order` a webhook gets the next update of
    a chat after it answered the previous one, as from Telegram; without, all at once. A failed
    webhook is retried after `webhook_backoff` seconds, then after twice that, up to one second.
    """

    def __init__(
        self,
        *,
        token: str = "42:TEST-token-of-the-local-Bot-API-server",  # noqa: S107 - no secret
        host: str = "127.0.0.1",
        port: int = 0,
        bot_name: str = "Test bot",
        bot_username: str = "test_bot",
        webhook_in_order: bool = True,
        webhook_backoff: float = 0.05,
    ) -> None:
        number, colon, secret = token.partition(":")
        if not (number.isdigit() and colon and secret) or any(c.isspace() for c in token):
            raise UsageError(f"a token is the bot's id, a colon and a secret, not {token!r}")
        self.token = token
        self.faults = Faults(NAMES)
        self.bot = Account(id=int(number), first_name=bot_name, username=bot_username, is_bot=True)
        self._world = World(self.bot, self.faults.repeats)
        self._api = BotApi(
            token,
            self._world,
            self.faults,
            webhook_in_order=webhook_in_order,
            webhook_backoff=webhook_backoff,
        )
        self._world.describe_bot = self._api.describe
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

    # --- running

    async def start(self) -> None:
        """Open the port. Raises `OSError` if it is taken, `UsageError` if it is open already."""
        if self._runner is not None:
            raise UsageError("the server is running already")
        runner = web.AppRunner(self._api.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Close the port and all connections; stopping twice does nothing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._world.mailbox.close()
        await runner.cleanup()
        await self._api.receiving.close_webhook()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Stands in for https://api.telegram.org. Raises `UsageError` before the start."""
        if self._runner is None:
            raise UsageError("the server has no address: it is not running")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def calls(self) -> list[Call]:
        """Every call the bot made, in order, failed and unfinished ones too."""
        return self._api.calls

    # --- people and chats

    def user(
        self,
        first_name: str,
        *,
        last_name: str | None = None,
        username: str | None = None,
        language_code: str | None = "en",
        is_premium: bool = False,
        user_id: int | None = None,
    ) -> User:
        """Add a person, who may write to the bot at once. Raises `UsageError` for a taken id."""
        return self._world.add_user(
            first_name,
            last_name=last_name,
            username=username,
            language_code=language_code,
            is_premium=is_premium,
            user_id=user_id,
        )

    def group(
        self, title: str, members: Iterable[User] = (), *, chat_id: int | None = None
    ) -> Chat:
        """Add a basic group with the bot in it; the first member owns it."""
        return self._world.add_chat("group", title, members, chat_id=chat_id)

    def supergroup(
        self,
        title: str,
        members: Iterable[User] = (),
        *,
        forum: bool = False,
        chat_id: int | None = None,
    ) -> Chat:
        """Add a supergroup with the bot in it; with `forum`, `Chat.topic` makes topics."""
        return self._world.add_chat("supergroup", title, members, chat_id=chat_id, is_forum=forum)

    def channel(
        self, title: str, members: Iterable[User] = (), *, chat_id: int | None = None
    ) -> Chat:
        """Add a channel with the bot as an administrator; `Chat.post` publishes there."""
        return self._world.add_chat("channel", title, members, chat_id=chat_id)

    # --- updates

    async def deliver(self, update: JSON) -> int | None:
        """Feed any update: a dict of one Bot API `Update` field, `update_id` filled in if missing.

        Returns its id, or None where `hold` keeps it back or the bot did not ask for its type.
        Raises `UsageError` unless there is exactly one field besides `update_id`.
        """
        update = dict(update)
        update_id = update.pop("update_id", None)
        if len(update) != 1:
            raise UsageError(f"an update has one field besides update_id, not {sorted(update)}")
        [(kind, payload)] = update.items()
        return self._world.mailbox.put(kind, payload, update_id)

    def hold(self) -> AbstractContextManager[None]:
        """In a `with` block: keep updates back, and let them all go at its end."""
        return self._world.mailbox.hold()

    # --- waiting

    async def answers(
        self,
        count: int,
        *,
        chat: Chat | None = None,
        timeout: float = 5,
    ) -> list[Message]:
        """Return the bot's next `count` messages that no test has read yet, in their order.

        From one chat, or from all together. Raises `WaitTimeout`, with the transcripts, after
        `timeout` seconds; then none counts as read.
        """
        if chat is not None:
            return await chat.answers(count, timeout)

        def look() -> list[Message] | None:
            unread = self._world.unread_answers()
            if len(unread) < count:
                return None
            for message in unread[:count]:
                message.chat.unread.remove(message)
            return unread[:count]

        return await self._world.bell.until(
            look,
            timeout,
            lambda: (
                f"waited {timeout} s for {count} unread message(s) of the bot, there are "
                f"{len(self._world.unread_answers())}; {self._api.describe()}\n{self.transcript()}"
            ),
        )

    async def wait_for_call(self, method: str, timeout: float = 5) -> Call:
        """Return the next finished call of a method that no test has waited for yet.

        Failed calls count too, see `Call.ok`. Raises `WaitTimeout` after `timeout` seconds and
        `UsageError` for a method this server does not know.
        """
        name = NAMES.get(method.lower())
        if name is None:
            raise UsageError(f"no method of this server: {method!r}")
        finished = self._api.finished[name]
        return await self._world.bell.until(
            lambda: finished.popleft() if finished else None,
            timeout,
            lambda: f"waited {timeout} s for a call of {name}; {self._api.describe()}",
        )

    async def drained(self, timeout: float = 5) -> None:
        """Wait until the bot acknowledged every update.

        A polling bot acknowledges with the offset of its next getUpdates, which most frameworks
        send while handlers still run; a webhook by answering. Raises `WaitTimeout`.
        """
        mailbox = self._world.mailbox
        await self._world.bell.until(
            lambda: True if mailbox.is_empty else None,
            timeout,
            lambda: (
                f"after {timeout} s {len(mailbox.pending)} update(s) are not acknowledged, the "
                f"first is {next(iter(mailbox.pending.values()), None)}; {self._api.describe()}"
            ),
        )

    async def bot_listening(self, timeout: float = 5) -> None:
        """Wait until the bot called getUpdates or set a webhook: its `allowed_updates` hold now.

        Raises `WaitTimeout`.
        """
        await self._world.bell.until(
            lambda: self._api.receiving.began or None,
            timeout,
            lambda: f"the bot did not start to listen in {timeout} s; {self._api.describe()}",
        )

    def transcript(self) -> str:
        """Everything said in all chats so far."""
        chats = [*self._world.chats.values(), *self._world.business_chats.values()]
        return "\n".join(chat.transcript() for chat in chats if chat.messages)
