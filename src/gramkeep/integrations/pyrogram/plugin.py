"""`session` and `lazy_session`: how they come to a client."""

from __future__ import annotations

from pyrogram import Client

from gramkeep.errors import ConfigurationError
from gramkeep.integrations.around import hook_of
from gramkeep.integrations.pyrogram.hook import Hook
from gramkeep.middleware import DataT, SessionPlugin


class session(SessionPlugin[DataT]):  # noqa: N801 - called like a function, as in grammY
    """A kind of session for the handlers of a client; options as in `SessionOptions`."""

    def setup(self, client: Client) -> None:
        """Install these sessions; before the client is started, and before or after its handlers.

        When the client stops they wait for those that hold one, and close; a ready `Sessions` is
        left open. Two kinds side by side need different ``key`` options; `ConfigurationError`
        tells of either.
        """
        if not isinstance(client, Client):
            text = f"setup({client!r}): sessions are set up on a Client"
            raise ConfigurationError(text)
        if client.is_initialized:
            text = "set sessions up before the client is started: it has begun to handle updates"
            raise ConfigurationError(text)
        hook_of(client, Hook).plugins.add(self)


class lazy_session(session[DataT]):  # noqa: N801
    """As `session`, loaded by ``await session`` in the handler."""

    lazy = True
