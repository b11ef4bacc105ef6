"""Sessions for Telethon 1: ``session(initial=Counter, storage=...).setup(client)``.

Handlers get the data by naming a parameter as the ``key`` option says (``session``), the handle
by naming ``<key>_handle``. A session is loaded when the handler is called, saved when it is done,
and left as it was if it raised. With `lazy_session` the parameter is the handle itself:
``counter = await session``.
"""

from gramkeep.integrations.telethon.origin import origin_of
from gramkeep.integrations.telethon.plugin import lazy_session, session

__all__ = ["lazy_session", "origin_of", "session"]
