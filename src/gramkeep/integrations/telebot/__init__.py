"""Sessions for pyTelegramBotAPI 4: ``session(initial=Counter, storage=...).setup(bot)``.

Handlers get the data by naming a parameter as the ``key`` option says (``session``), the handle
by naming ``<key>_handle``. A session is loaded when a handler asks, saved when the update is over,
and left as it was if the handler raised. With `lazy_session` the parameter is the handle itself.

The bot is an `AsyncTeleBot` or a threaded `TeleBot`. The latter's handlers get a
`BlockingSession` for a handle, whose methods block where a `Session` is awaited.
"""

from gramkeep.integrations.blocking import BlockingSession
from gramkeep.integrations.telebot.origin import origin_of
from gramkeep.integrations.telebot.plugin import lazy_session, session

__all__ = ["BlockingSession", "lazy_session", "origin_of", "session"]
