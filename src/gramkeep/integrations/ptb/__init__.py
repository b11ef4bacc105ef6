"""Sessions for python-telegram-bot: ``session(initial=Counter, storage=...).setup(builder)``.

Handlers, error handlers and jobs get the data as ``context.session``, by the name that the
``key`` option says; assigning replaces it, ``None`` deletes. ``context.session_handle`` is the
handle. A session is loaded when an update's first handler is found, saved when its last one is
done, and left as it was if one raised. With `lazy_session` it is loaded by
``await context.session``.
"""

from gramkeep.integrations.ptb.plugin import lazy_session, session
from gramkeep.integrations.ptb.turns import origin_of

__all__ = ["lazy_session", "origin_of", "session"]
