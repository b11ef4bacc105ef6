"""Sessions for Pyrogram's forks: ``session(initial=Counter, storage=...).setup(app)``.

Handlers get the data by naming a parameter as the ``key`` option says (``session``), the handle
by naming ``<key>_handle``. A session is loaded when a handler asks, saved when the update is over,
and left as it was if a handler raised. With `lazy_session` the parameter is the handle itself.
Plain functions, which Pyrogram calls in threads, get a `BlockingSession` for a handle, whose
methods block where a `Session` is awaited.

kurigram is what it is written for; other forks differ in what they have, and are asked for it.
"""

from gramkeep.integrations.blocking import BlockingSession
from gramkeep.integrations.pyrogram.origin import origin_of
from gramkeep.integrations.pyrogram.plugin import lazy_session, session

__all__ = ["BlockingSession", "lazy_session", "origin_of", "session"]
