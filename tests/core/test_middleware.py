"""session() and lazy_session() around handlers that take (ctx, next)."""

import asyncio
import dataclasses
from dataclasses import dataclass, field

import pytest

from gramkeep import (
    ConfigurationError,
    LazySessionFlavor,
    NoSessionKey,
    Session,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionFlavor,
    SessionNotLoaded,
    Sessions,
    StorageUnavailable,
    lazy_session,
    per_user,
    per_user_in_chat,
    session,
)


@dataclass
class Counter:
    count: int = 0


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


class Oops(Exception):
    pass


class Ctx:
    """Somebody's own ctx, as plain as can be."""

    def __init__(self, chat_id=42, user_id=7):
        self.chat_id = chat_id
        self.user_id = user_id


class FlavoredCtx(SessionFlavor[Counter], Ctx):
    pass


class LazyCtx(LazySessionFlavor[Counter], Ctx):
    pass


@pytest.fixture
def counting(storage):
    return session(initial=Counter, storage=storage)


@pytest.fixture
def lazily(storage):
    return lazy_session(initial=Counter, storage=storage)


@pytest.fixture(params=[Ctx, FlavoredCtx])
def ctx(request):
    return request.param()


@pytest.fixture(params=[Ctx, LazyCtx])
def lazy_ctx(request):
    return request.param()


async def run(middleware, ctx, handler):
    """Send a ctx through one middleware or several to a handler."""
    chain = middleware if isinstance(middleware, list) else [middleware]

    async def call(index):
        if index == len(chain):
            return await handler(ctx)
        return await chain[index](ctx, lambda: call(index + 1))

    async with asyncio.timeout(10):
        return await call(0)


async def test_a_handler_changes_the_session_of_its_chat(counting, ctx, storage):
    async def handler(ctx):
        assert ctx.session == Counter(0)
        ctx.session.count += 1

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":1}'
    assert await counting.sessions.get("42") == Counter(1)


async def test_the_result_of_the_handler_is_passed_on(counting, lazily, ctx):
    async def handler(ctx):
        return "result"

    assert await run(counting, ctx, handler) == "result"
    assert await run(lazily, Ctx(), handler) == "result"


async def test_the_error_of_the_handler_is_passed_on_and_nothing_saved(counting, ctx, storage):
    error = Oops("oops")

    async def handler(ctx):
        ctx.session.count = 5
        raise error

    with pytest.raises(Oops) as caught:
        await run(counting, ctx, handler)
    assert caught.value is error
    assert error.__cause__ is None
    assert storage.puts == []


async def test_a_replaced_session_is_stored(counting, ctx, storage):
    async def handler(ctx):
        ctx.session = Counter(9)
        assert ctx.session == Counter(9)
        ctx.session.count += 1

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":10}'


async def test_assigning_none_deletes_the_session(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        ctx.session = None
        assert ctx.session is None

    await run(counting, ctx, handler)
    assert await storage.value("42") is None


@pytest.mark.parametrize(
    ("middleware", "ctx"),
    [(session, Ctx()), (session, FlavoredCtx()), (lazy_session, Ctx()), (lazy_session, LazyCtx())],
)
@pytest.mark.parametrize("is_loaded", [False, True])
async def test_the_handle_knows_what_was_assigned_to_the_ctx(storage, middleware, ctx, is_loaded):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        if is_loaded:
            await ctx.session_handle
        reads = len(storage.gets)
        ctx.session = Counter(9)
        assert await ctx.session_handle == Counter(9)
        assert len(storage.gets) == reads
        assert ctx.session_handle.data == Counter(9)
        ctx.session_handle.data.count += 1
        ctx.session = Counter(20)
        assert ctx.session_handle.data == Counter(20)
        await ctx.session_handle.reload()
        assert ctx.session_handle.data == Counter(5)
        ctx.session = Counter(30)
        await ctx.session_handle.clear()
        assert ctx.session_handle.data == Counter(0)
        ctx.session = Counter(40)
        ctx.session_handle.data.count += 1

    await run(middleware(initial=Counter, storage=storage), ctx, handler)
    assert await storage.value("42") == b'{"count":41}'


async def test_deleting_the_attribute_of_a_plain_ctx_deletes_the_session(counting, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        del ctx.session

    await run(counting, Ctx(), handler)
    assert await storage.value("42") is None


async def test_values_that_can_not_change_in_place_are_replaced(storage):
    middleware = session(initial=int, storage=storage)

    async def handler(ctx):
        ctx.session += 1

    for _ in range(3):
        await run(middleware, Ctx(), handler)
    assert await storage.value("42") == b"3"


async def test_a_session_that_did_not_change_is_not_written(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        assert ctx.session.count == 5
        ctx.session = Counter(5)

    await run(counting, ctx, handler)
    assert storage.puts == []


async def test_the_handle_stands_beside_the_session(counting, ctx):
    async def handler(ctx):
        assert isinstance(ctx.session_handle, Session)
        assert ctx.session_handle.key == "42"
        assert ctx.session_handle.is_new
        assert ctx.session_handle.data is ctx.session

    await run(counting, ctx, handler)


async def test_clearing_by_the_handle_shows_in_the_session(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        await ctx.session_handle.clear()
        assert ctx.session == Counter(0)
        ctx.session.count += 1

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":1}'


async def test_clearing_after_an_assignment_wins(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        ctx.session = Counter(9)
        await ctx.session_handle.clear()
        assert ctx.session == Counter(0)

    await run(counting, ctx, handler)
    assert await storage.value("42") is None


async def test_reloading_by_the_handle_shows_in_the_session(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        ctx.session = Counter(9)
        await ctx.session_handle.reload()
        assert ctx.session == Counter(5)

    await run(counting, ctx, handler)
    assert storage.puts == []


async def test_assigning_to_the_handle_shows_in_the_session(counting, ctx, storage):
    async def handler(ctx):
        ctx.session_handle.data = Counter(8)
        assert ctx.session == Counter(8)
        ctx.session.count += 1

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":9}'


async def test_saving_by_the_handle_saves_what_was_assigned(counting, ctx, storage):
    async def handler(ctx):
        ctx.session = Counter(9)
        await ctx.session_handle.save()
        assert await storage.value("42") == b'{"count":9}'
        ctx.session.count = 10
        raise Oops

    with pytest.raises(Oops):
        await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":9}'


async def test_deleting_by_none_and_saving_by_the_handle_deletes_at_once(counting, ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        ctx.session = None
        await ctx.session_handle.save()
        assert await storage.value("42") is None
        ctx.session = Counter(6)

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":6}'


async def test_fifty_updates_of_one_chat_at_once_are_all_counted(counting):
    async def handler(ctx):
        seen = ctx.session.count
        await asyncio.sleep(0)
        ctx.session.count = seen + 1

    await asyncio.gather(*(run(counting, Ctx(), handler) for _ in range(50)))
    assert await counting.sessions.get("42") == Counter(50)


async def test_updates_of_other_chats_do_not_wait(counting):
    other_ran = asyncio.Event()

    async def waits(ctx):
        await asyncio.wait_for(other_ran.wait(), 5)

    async def runs(ctx):
        other_ran.set()

    await asyncio.gather(run(counting, Ctx(1), waits), run(counting, Ctx(2), runs))


async def test_the_handler_does_not_run_when_the_session_can_not_be_read(counting, ctx, storage):
    async def handler(ctx):
        pytest.fail("the handler ran")

    await storage.place("42", b"broken")
    with pytest.raises(SessionDecodeError):
        await run(counting, ctx, handler)

    async def fail():
        raise StorageUnavailable(storage="memory://", reason="not now")

    storage.before_get = fail
    with pytest.raises(StorageUnavailable):
        await run(counting, ctx, handler)
    assert await storage.value("42") == b"broken"


async def test_a_conflict_is_raised_out_of_the_middleware(counting, ctx, storage):
    async def handler(ctx):
        await storage.place("42", b'{"count":50}')
        ctx.session.count = 1

    with pytest.raises(SessionConflict):
        await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":50}'


async def test_a_flavored_session_can_not_be_used_after_the_update(counting):
    ctx = FlavoredCtx()

    async def handler(ctx):
        pass

    await run(counting, ctx, handler)
    with pytest.raises(SessionClosed):
        _ = ctx.session
    with pytest.raises(SessionClosed):
        ctx.session = Counter(1)


async def test_the_handle_can_not_be_used_after_the_update(counting, ctx):
    async def handler(ctx):
        pass

    await run(counting, ctx, handler)
    with pytest.raises(SessionClosed):
        await ctx.session_handle.save()


# Where the session is found.


async def test_the_ctx_is_the_origin_that_keys_and_initial_values_are_made_of(storage):
    def make(ctx) -> Counter:
        return Counter(ctx.user_id)

    middleware = session(
        initial=make,
        storage=storage,
        get_session_key=lambda ctx: f"{ctx.user_id}:{ctx.chat_id}",
    )

    async def handler(ctx):
        assert ctx.session == Counter(7)
        assert ctx.session_handle.key == "7:42"

    await run(middleware, Ctx(), handler)


async def test_a_key_function_may_be_async(storage):
    async def find(ctx):
        await asyncio.sleep(0)
        return f"user {ctx.user_id}"

    middleware = session(initial=Counter, storage=storage, get_session_key=find)

    async def handler(ctx):
        ctx.session.count = 1

    await run(middleware, Ctx(), handler)
    assert await storage.value("user 7") == b'{"count":1}'


async def test_the_sender_of_a_ctx_is_its_user(storage):
    class Sent:
        chat_id = 42
        sender_id = 7

    middleware = session(initial=Counter, storage=storage, get_session_key=per_user_in_chat)

    async def handler(ctx):
        ctx.session.count = 1

    await run(middleware, Sent(), handler)
    assert await storage.value("42:7") == b'{"count":1}'


async def test_another_name_can_be_given_to_the_session(storage):
    middleware = session(initial=Basket, storage=storage, key="basket")

    async def handler(ctx):
        ctx.basket.items.append("apple")
        assert ctx.basket_handle.key == "42"
        assert not hasattr(ctx, "session")

    await run(middleware, Ctx(), handler)
    assert await storage.value("42") == b'{"items":["apple"]}'


@pytest.mark.parametrize("make_ctx", [Ctx, FlavoredCtx])
async def test_two_sessions_stand_side_by_side(storage, counting, make_ctx):
    baskets = session(
        initial=Basket, storage=storage, key="basket", prefix="basket:", get_session_key=per_user
    )

    async def handler(ctx):
        ctx.session.count += 1
        ctx.basket.items.append("apple")
        ctx.basket = Basket([*ctx.basket.items, "pear"])

    await run([counting, baskets], make_ctx(), handler)
    assert await storage.value("42") == b'{"count":1}'
    assert await storage.value("basket:7") == b'{"items":["apple","pear"]}'


async def test_when_one_of_two_sessions_can_not_be_read_neither_is_changed(storage, counting):
    baskets = session(initial=Basket, storage=storage, key="basket", prefix="basket:")
    await storage.place("basket:42", b"broken")

    async def handler(ctx):
        pytest.fail("the handler ran")

    with pytest.raises(SessionDecodeError):
        await run([counting, baskets], Ctx(), handler)
    assert storage.puts == []


@pytest.mark.parametrize("kind", [session, lazy_session])
async def test_a_ready_manager_can_be_given_in_place_of_options(storage, kind):
    sessions = Sessions(initial=Counter, storage=storage)
    middleware = kind(sessions)
    assert middleware.sessions is sessions

    async def handler(ctx):
        ctx.session = Counter(3)

    await run(middleware, Ctx(), handler)
    assert await sessions.get("42") == Counter(3)
    with pytest.raises(ConfigurationError, match="prefix"):
        kind(sessions, prefix="x")


@pytest.mark.parametrize("missing", ["session", "session_handle"])
async def test_a_ctx_without_a_place_for_the_session_is_refused(counting, storage, missing):
    kept = {"session", "session_handle"} - {missing}

    class Tight:
        __slots__ = ("chat_id", *kept)

    ctx = Tight()
    ctx.chat_id = 42

    async def handler(ctx):
        pytest.fail("the handler ran")

    with pytest.raises(ConfigurationError) as caught:
        await run(counting, ctx, handler)
    text = str(caught.value)
    assert "Tight" in text
    assert "'session'" in text
    assert "'session_handle'" in text
    assert len(counting.sessions.kind.shared.queues) == 0


async def test_a_frozen_ctx_is_refused(counting):
    @dataclass(frozen=True)
    class Frozen:
        chat_id: int = 42

    with pytest.raises(ConfigurationError, match="Frozen"):
        await run(counting, Frozen(), None)


async def test_a_ctx_with_slots_for_the_session_will_do(counting, storage):
    class Tight:
        __slots__ = ("chat_id", "session", "session_handle")

    ctx = Tight()
    ctx.chat_id = 42

    async def handler(ctx):
        ctx.session.count = 1

    await run(counting, ctx, handler)
    assert await storage.value("42") == b'{"count":1}'


# Updates without a session.

USES = {
    "attribute": lambda s: s.count,
    "private attribute": lambda s: s._count,
    "set": lambda s: setattr(s, "count", 1),
    "delete": lambda s: delattr(s, "count"),
    "item": lambda s: s["count"],
    "set item": lambda s: s.__setitem__("count", 1),
    "delete item": lambda s: s.__delitem__("count"),
    "in": lambda s: "count" in s,
    "iterate": list,
    "reversed": lambda s: list(reversed(s)),
    "length": len,
    "bool": bool,
    "text": str,
    "format": lambda s: f"{s}",
    "format spec": lambda s: f"{s:>5}",
    "int": int,
    "float": float,
    "index": lambda s: [1, 2][s],
    "round": round,
    "equal": lambda s: s == Counter(),
    "unequal": lambda s: s != Counter(),
    "less": lambda s: s < 1,
    "greater": lambda s: s >= 1,
    "add": lambda s: s + 1,
    "add to": lambda s: 1 + s,
    "subtract": lambda s: s - 1,
    "subtract from": lambda s: 1 - s,
    "multiply": lambda s: s * 2,
    "multiply by": lambda s: 2 * s,
    "divide": lambda s: s / 2,
    "floor divide": lambda s: s // 2,
    "modulo": lambda s: s % 2,
    "power": lambda s: s**2,
    "or": lambda s: s | {},
    "or of": lambda s: {} | s,
    "and": lambda s: s & 1,
    "negative": lambda s: -s,
    "absolute": abs,
    "call": lambda s: s(),
    "hash": hash,
    "set member": lambda s: {s},
    "unpack": lambda s: {**s},
    "update": {}.update,
    "sum": lambda s: sum([1, s]),
    "join": "".join,
    "append": lambda s: s.append(1),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_any_use_of_a_session_that_an_update_does_not_have_says_so(counting, use):
    async def handler(ctx):
        use(ctx.session)

    with pytest.raises(NoSessionKey) as caught:
        await run(counting, Ctx(chat_id=None), handler)
    assert "per_chat returned None" in str(caught.value)
    assert "chat_id" in str(caught.value)


async def test_in_place_operators_on_a_missing_session_say_so(counting):
    async def add(ctx):
        ctx.session += 1

    async def subtract(ctx):
        ctx.session -= 1

    async def multiply(ctx):
        ctx.session *= 2

    async def merge(ctx):
        ctx.session |= {}

    for handler in (add, subtract, multiply, merge):
        with pytest.raises(NoSessionKey):
            await run(counting, Ctx(chat_id=None), handler)


async def test_assigning_a_session_that_an_update_does_not_have_says_so(counting, storage):
    async def assign(ctx):
        ctx.session = Counter(1)

    async def delete(ctx):
        ctx.session = None

    for handler in (assign, delete):
        for ctx in (Ctx(chat_id=None), FlavoredCtx(chat_id=None)):
            with pytest.raises(NoSessionKey):
                await run(counting, ctx, handler)
    assert storage.gets == storage.puts == []


async def test_a_flavored_ctx_without_a_session_says_so_when_it_is_used(counting):
    async def handler(ctx):
        _ = ctx.session

    with pytest.raises(NoSessionKey):
        await run(counting, FlavoredCtx(chat_id=None), handler)


async def test_the_handle_of_a_session_that_an_update_does_not_have_says_so(counting, ctx):
    ctx.chat_id = None
    uses = 0

    async def handler(ctx):
        nonlocal uses
        handle = ctx.session_handle
        for use in (handle.save, handle.clear, handle.reload, handle._load_once):
            with pytest.raises(NoSessionKey):
                await use()
            uses += 1
        for name in ("data", "key", "is_new"):
            with pytest.raises(NoSessionKey):
                getattr(handle, name)
            uses += 1

    await run(counting, ctx, handler)
    assert uses == 7


@pytest.mark.parametrize(
    "find",
    [
        lambda ctx: None,
        lambda ctx: "",
        lambda ctx: f"{ctx.user_id}:{ctx.chat_id}",
        lambda ctx: f"chat{ctx.chat_id}",
    ],
    ids=["None", "empty", "None in it", "None at its end"],
)
async def test_a_handler_that_does_not_use_the_session_needs_none(storage, find):
    eager = session(initial=Counter, storage=storage, get_session_key=find)
    lazily = lazy_session(initial=Counter, storage=storage, get_session_key=find)

    async def handler(ctx):
        repr(ctx.session)  # logging a ctx is no use of its session
        return "ran"

    for middleware in (eager, lazily):
        assert await run(middleware, Ctx(chat_id=None), handler) == "ran"
    assert storage.gets == storage.puts == []


async def test_a_key_function_that_fails_fails_the_update(storage):
    def find(ctx):
        raise Oops

    async def handler(ctx):
        pytest.fail("the handler ran")

    middleware = session(initial=Counter, storage=storage, get_session_key=find)
    with pytest.raises(Oops):
        await run(middleware, Ctx(), handler)


async def test_a_key_that_is_no_text_is_refused(storage):
    middleware = session(initial=Counter, storage=storage, get_session_key=lambda ctx: ctx.chat_id)
    with pytest.raises(ConfigurationError, match="returned 42, of type int"):
        await run(middleware, Ctx(), None)


# Lazy sessions.


async def test_a_lazy_session_is_loaded_when_awaited(lazily, lazy_ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        assert storage.gets == []
        data = await ctx.session
        assert storage.gets == ["42"]
        assert await ctx.session is data
        data.count += 1

    await run(lazily, lazy_ctx, handler)
    assert storage.gets == ["42"]
    assert await storage.value("42") == b'{"count":6}'


async def test_a_lazy_session_that_is_not_asked_for_causes_no_io(lazily, lazy_ctx, storage):
    async def handler(ctx):
        pass

    await run(lazily, lazy_ctx, handler)
    assert storage.gets == storage.puts == []


async def test_a_lazy_session_is_overwritten_by_assignment_without_reading(
    lazily, lazy_ctx, storage
):
    await storage.place("42", b"broken")

    async def handler(ctx):
        ctx.session = Counter(9)

    await run(lazily, lazy_ctx, handler)
    assert storage.gets == []
    assert await storage.value("42") == b'{"count":9}'


async def test_a_lazy_session_is_deleted_by_none_without_reading(lazily, lazy_ctx, storage):
    await storage.place("42", b"broken")

    async def handler(ctx):
        ctx.session = None

    await run(lazily, lazy_ctx, handler)
    assert storage.gets == []
    assert await storage.value("42") is None


async def test_a_lazy_session_is_replaced_after_it_was_loaded(lazily, lazy_ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        data = await ctx.session
        ctx.session = dataclasses.replace(data, count=data.count + 1)

    await run(lazily, lazy_ctx, handler)
    assert await storage.value("42") == b'{"count":6}'


async def test_a_lazy_session_is_deleted_by_none_after_it_was_loaded(lazily, lazy_ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        assert (await ctx.session).count == 5
        ctx.session = None

    await asyncio.wait_for(run(lazily, lazy_ctx, handler), 5)
    assert await storage.value("42") is None


async def test_a_lazy_session_that_is_only_read_is_not_written(lazily, lazy_ctx, storage):
    await storage.place("42", b'{"count":5}')

    async def handler(ctx):
        assert (await ctx.session).count == 5

    await run(lazily, lazy_ctx, handler)
    assert storage.puts == []


async def test_saving_a_lazy_session_saves_what_was_assigned(lazily, lazy_ctx, storage):
    async def handler(ctx):
        ctx.session = Counter(9)
        await ctx.session_handle.save()
        raise Oops

    with pytest.raises(Oops):
        await run(lazily, lazy_ctx, handler)
    assert await storage.value("42") == b'{"count":9}'


async def test_a_lazy_session_that_was_assigned_and_saved_can_be_awaited(lazily, lazy_ctx, storage):
    async def handler(ctx):
        ctx.session = Counter(9)
        await ctx.session_handle.save()
        assert await ctx.session_handle == Counter(9)

    await run(lazily, lazy_ctx, handler)


async def test_the_data_of_a_lazy_session_can_not_be_used_before_it_is_loaded(lazily, lazy_ctx):
    async def handler(ctx):
        _ = ctx.session.data

    with pytest.raises(SessionNotLoaded):
        await run(lazily, lazy_ctx, handler)


async def test_a_lazy_session_that_an_update_does_not_have_says_so_when_awaited(lazily, lazy_ctx):
    lazy_ctx.chat_id = None

    async def handler(ctx):
        await ctx.session

    with pytest.raises(NoSessionKey):
        await run(lazily, lazy_ctx, handler)


async def test_the_lazy_option_makes_a_lazy_session(storage, lazy_ctx):
    middleware = session(initial=Counter, storage=storage, lazy=True)

    async def handler(ctx):
        assert storage.gets == []
        assert await ctx.session == Counter(0)

    await run(middleware, lazy_ctx, handler)


async def test_lazy_updates_of_one_chat_at_once_are_all_counted(lazily):
    async def handler(ctx):
        data = await ctx.session
        seen = data.count
        await asyncio.sleep(0)
        data.count = seen + 1

    await asyncio.gather(*(run(lazily, Ctx(), handler) for _ in range(50)))
    assert await lazily.sessions.get("42") == Counter(50)


@pytest.mark.parametrize("given", ["sqlite:///bot.db", Counter, 5])
def test_what_is_no_manager_is_refused_in_its_place(given):
    with pytest.raises(ConfigurationError, match="give options by their names"):
        session(given)


def test_a_lazy_session_that_is_not_to_be_lazy_is_refused():
    with pytest.raises(ConfigurationError, match="lazy=False"):
        lazy_session(initial=Counter, storage="memory://", lazy=False)
