"""`session` and `lazy_session`: how they come to a client."""

from __future__ import annotations

from telethon import TelegramClient

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import hook_of
from gramkeep.integrations.telethon.hook import Hook
from gramkeep.middleware import DataT, SessionPlugin


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a client; options as in `SessionOptions`."""

    def setup(self, client: TelegramClient) -> None:
        """Install these sessions, for handlers that the client has and for those it will have.

        When the client disconnects they wait for the handlers that hold one, and close; a ready
        `Sessions` is left open. Two kinds side by side need different ``key`` options;
        `ConfigurationError` says so.
        """
        if not isinstance(client, TelegramClient):
            text = f"setup({client!r}): sessions are set up on a TelegramClient"
            raise ConfigurationError(text)
        hook_of(client, Hook).add(self)


class lazy_session(session[DataT]):  # noqa: N801
    """As `session`, loaded by ``await session`` in the handler."""

    lazy = True
