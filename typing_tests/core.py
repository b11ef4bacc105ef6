"""What type checkers must see; only type-checked, never run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, assert_type

from gramkeep import LazySessionFlavor, Session, SessionFlavor, Sessions, lazy_session, session


@dataclass
class Counter:
    count: int = 0


async def make_counter() -> Counter:
    return Counter()


def make_dict() -> dict[str, int]:
    return {}


async def managers() -> None:
    assert_type(Sessions(initial=Counter), Sessions[Counter])
    assert_type(Sessions(initial=make_counter), Sessions[Counter])
    assert_type(Sessions(initial=make_dict, storage="memory://"), Sessions[dict[str, int]])
    assert_type(Sessions(initial=lambda: Counter(1)), Sessions[Counter])
    assert_type(Sessions(data_type=Counter), Sessions[Counter | None])
    assert_type(Sessions(storage="memory://"), Sessions[Any])

    sessions = Sessions(initial=Counter)
    async with sessions.open("42") as opened:
        assert_type(opened, Session[Counter])
        assert_type(opened.data, Counter)
        assert_type(opened.data.count, int)
        assert_type(await opened, Counter)
        opened.data = Counter(1)
        opened.data = None
    assert_type(await sessions.get("42"), Counter | None)
    assert_type(await sessions.update("42", lambda c: Counter(c.count + 1)), Counter)
    keys: AsyncIterator[str] = sessions.keys()
    assert_type(keys, AsyncIterator[str])


class Context(SessionFlavor[Counter]):
    pass


class LazyContext(LazySessionFlavor[Counter]):
    pass


async def middleware(ctx: Context, lazy: LazyContext) -> None:
    assert_type(session(initial=Counter).sessions, Sessions[Counter])
    assert_type(lazy_session(initial=Counter).sessions, Sessions[Counter])
    assert_type(session(Sessions(data_type=Counter)).sessions, Sessions[Counter | None])
    assert_type(session(Sessions(initial=Counter)).sessions, Sessions[Counter])

    assert_type(ctx.session, Counter)
    assert_type(ctx.session_handle, Session[Counter])
    ctx.session = None
    assert_type(await lazy.session, Counter)
    assert_type(lazy.session_handle, Session[Counter])
    lazy.session = None
