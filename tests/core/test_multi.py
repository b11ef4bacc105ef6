"""Multi sessions: several kinds side by side, read and written together."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from gramkeep import (
    ConfigurationError,
    MemorySessionStorage,
    NoSessionKey,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionOptions,
    StorageUnavailable,
    lazy_session,
    per_user,
    session,
)
from gramkeep.storage import ANY, Put


@dataclass
class Profile:
    language: str = "en"
    visits: int = 0


@dataclass
class Room:
    messages: list[str] = field(default_factory=list)


class Recording(MemorySessionStorage):
    """Notes every call, and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.is_down = False

    async def get(self, keys):
        if self.is_down:
            raise StorageUnavailable(storage=self.name, reason="down")
        self.calls.append(("get", *keys))
        return await super().get(keys)

    async def put(self, puts, lease=None, *, atomic=False):
        if self.is_down:
            raise StorageUnavailable(storage=self.name, reason="down")
        self.calls.append(("put", *(put.key for put in puts)))
        return await super().put(puts, lease, atomic=atomic)


@pytest.fixture
def storage():
    return Recording()


def parts(storage, **more):
    return {
        "user": SessionOptions(initial=Profile, get_session_key=per_user, storage=storage),
        "chat": SessionOptions(initial=Room, storage=storage),
        **more,
    }


async def run(middleware, handler, user_id=7, chat_id=42):
    ctx = SimpleNamespace(user_id=user_id, chat_id=chat_id)
    await middleware(ctx, lambda: handler(ctx))
    return ctx


async def value(storage, key):
    record = (await storage.get([key]))[0]
    return record and record.value


async def visit(ctx):
    visits = ctx.session.user.visits
    await asyncio.sleep(0)
    ctx.session.user.visits = visits + 1
    ctx.session.chat.messages.append("x")


async def test_parts_of_one_storage_are_read_in_one_call_and_written_in_one(storage):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)
    assert storage.calls == [("get", "chat:42", "user:7"), ("put", "chat:42", "user:7")]
    assert await value(storage, "user:7") == b'{"language":"en","visits":1}'
    assert await value(storage, "chat:42") == b'{"messages":["x"]}'


async def test_only_the_part_that_changed_is_written(storage):
    middleware = session(type="multi", **parts(storage))

    async def handler(ctx):
        ctx.session.user.visits += 1

    await run(middleware, handler)
    assert storage.calls[1:] == [("put", "user:7")]


async def test_concurrent_updates_that_share_one_part_or_the_other_lose_nothing(storage):
    middleware = session(type="multi", **parts(storage, other=SessionOptions(initial=Profile)))
    await asyncio.gather(*(run(middleware, visit, user_id=n % 3, chat_id=n % 2) for n in range(60)))
    users = [(await middleware.sessions.parts["user"].get(str(n))).visits for n in range(3)]
    chats = [len((await middleware.sessions.parts["chat"].get(str(n))).messages) for n in range(2)]
    assert (users, chats) == ([20] * 3, [30] * 2)


async def test_user_42_and_chat_42_have_records_of_their_own(storage):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit, user_id=42, chat_id=42)
    assert {key async for key in storage.scan()} == {"user:42", "chat:42"}


async def test_a_part_may_have_no_prefix_in_a_storage_of_its_own(storage):
    options = parts(storage)
    options["user"].prefix = ""
    own = options["user"].storage = Recording()
    await run(session(type="multi", **options), visit)
    assert [key async for key in own.scan()] == ["7"]
    assert [key async for key in storage.scan()] == ["chat:42"]


async def test_setting_a_part_to_none_deletes_it_and_leaves_the_other(storage):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)

    async def handler(ctx):
        ctx.session.user = None
        assert ctx.session.user is None

    await run(middleware, handler)
    assert await value(storage, "user:7") is None
    assert await value(storage, "chat:42") is not None


@pytest.mark.parametrize("how", ["assign", "delete parts", "handle"])
async def test_setting_the_whole_to_none_deletes_all_parts(storage, how):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)

    async def handler(ctx):
        if how == "assign":
            ctx.session = None
        elif how == "handle":
            ctx.session_handle.data = None
        else:
            del ctx.session.user
            del ctx.session.chat

    await run(middleware, handler)
    assert [key async for key in storage.scan()] == []


async def test_replacing_the_whole_is_refused_and_changes_nothing(storage):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)

    async def handler(ctx):
        ctx.session.user.visits = 99
        ctx.session = {"user": Profile(), "chat": Room()}

    with pytest.raises(ConfigurationError, match=r"assign to its parts \(user, chat\)"):
        await run(middleware, handler)
    assert await value(storage, "user:7") == b'{"language":"en","visits":1}'


async def test_replacing_one_part_saves_it(storage):
    middleware = session(type="multi", **parts(storage))

    async def handler(ctx):
        ctx.session.user = Profile("de", 5)
        assert ctx.session.user.language == "de"

    await run(middleware, handler)
    assert await value(storage, "user:7") == b'{"language":"de","visits":5}'


async def test_a_part_without_a_key_raises_when_it_is_used_and_the_others_work(storage):
    middleware = session(type="multi", **parts(storage))

    async def handler(ctx):
        ctx.session.chat.messages.append("x")
        with pytest.raises(NoSessionKey, match="per_user"):
            _ = ctx.session.user
        with pytest.raises(NoSessionKey):
            ctx.session.user = Profile()

    await run(middleware, handler, user_id=None)
    assert {key async for key in storage.scan()} == {"chat:42"}


async def test_a_handler_that_raises_changes_no_part(storage):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)

    async def handler(ctx):
        ctx.session.user.visits = 99
        ctx.session.chat.messages.clear()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await run(middleware, handler)
    assert await value(storage, "user:7") == b'{"language":"en","visits":1}'
    assert await value(storage, "chat:42") == b'{"messages":["x"]}'
    await run(middleware, visit)


@pytest.mark.parametrize("part", ["user", "chat"])
async def test_one_part_that_cannot_be_saved_leaves_no_half_commit(storage, part):
    middleware = session(type="multi", **parts(storage))

    async def handler(ctx):
        ctx.session.user.visits = "many" if part == "user" else 1
        ctx.session.chat.messages = 5 if part == "chat" else ["x"]

    with pytest.raises(SessionEncodeError):
        await run(middleware, handler)
    assert [key async for key in storage.scan()] == []


@pytest.mark.parametrize("part", ["user:7", "chat:42"])
async def test_one_part_that_another_writer_changed_leaves_no_half_commit(storage, part):
    middleware = session(type="multi", **parts(storage))
    await run(middleware, visit)
    before = {key: await value(storage, key) for key in ("user:7", "chat:42")}
    other = b'{"visits":1000}' if part == "user:7" else b'{"messages":["other"]}'

    async def handler(ctx):
        await storage.put([Put(part, other, ANY)])
        await visit(ctx)

    with pytest.raises(SessionConflict, match=part):
        await run(middleware, handler)
    after = {key: await value(storage, key) for key in ("user:7", "chat:42")}
    assert after == {**before, part: other}


async def test_one_part_that_cannot_be_read_keeps_the_handler_from_running(storage):
    middleware = session(type="multi", **parts(storage))
    await storage.put([Put("user:7", b"{", ANY)])
    with pytest.raises(SessionDecodeError, match="user:7"):
        await run(middleware, visit)
    assert await value(storage, "user:7") == b"{"
    await storage.put([Put("user:7", b'{"visits":3}', ANY)])
    await run(middleware, visit)


async def test_a_part_that_expired_while_the_handler_ran_is_written_with_the_others(storage):
    options = parts(storage)
    options["user"].ttl = 0.5
    middleware = session(type="multi", **options)
    await run(middleware, visit)

    async def handler(ctx):
        while await value(storage, "user:7") is not None:
            await asyncio.sleep(0.01)
        await visit(ctx)

    await run(middleware, handler)
    assert await value(storage, "user:7") == b'{"language":"en","visits":2}'
    assert await value(storage, "chat:42") == b'{"messages":["x","x"]}'


async def test_parts_may_live_in_different_storages(storage):
    other = Recording()
    options = parts(storage)
    options["chat"] = SessionOptions(initial=Room, storage=other)
    await run(session(type="multi", **options), visit)
    assert [call[0] for call in storage.calls] == ["get", "put"]
    assert [call[0] for call in other.calls] == ["get", "put"]


async def test_parts_given_by_one_url_share_one_storage_and_it_is_closed(tmp_path):
    url = f"sqlite:///{tmp_path}/bot.db"
    middleware = session(type="multi", **parts(url))
    await run(middleware, visit)
    first, second = middleware.sessions.parts.values()
    assert first.storage is second.storage
    await middleware.sessions.aclose()
    with pytest.raises(StorageUnavailable, match="closed"):
        await run(middleware, visit)


async def test_a_lazy_part_loads_by_its_own_await_alone(storage):
    middleware = lazy_session(type="multi", **parts(storage))

    async def handler(ctx):
        assert storage.calls == []
        user = await ctx.session.user
        user.visits += 1
        assert storage.calls == [("get", "user:7")]

    await run(middleware, handler)
    assert storage.calls == [("get", "user:7"), ("put", "user:7")]


async def test_a_lazy_part_is_read_once_by_many_and_again_after_a_failed_read(storage):
    middleware = lazy_session(type="multi", **parts(storage))

    async def handler(ctx):
        storage.is_down = True
        with pytest.raises(StorageUnavailable):
            await ctx.session.user
        storage.is_down = False
        users = await asyncio.gather(*(ctx.session.user for _ in range(5)))
        assert all(user is users[0] for user in users)

    await run(middleware, handler)
    assert storage.calls == [("get", "user:7")]


async def test_the_handle_saves_clears_and_reloads_all_parts(storage):
    middleware = session(type="multi", **parts(storage))

    async def handler(ctx):
        await visit(ctx)
        await ctx.session_handle.save()
        ctx.session.user.visits = 99
        await ctx.session_handle.reload()
        assert ctx.session.user.visits == 1
        await ctx.session_handle.clear()
        assert ctx.session.chat.messages == []
        assert ctx.session_handle.user.key == "7"

    await run(middleware, handler)
    assert [key async for key in storage.scan()] == []


async def test_parts_used_after_the_update_raise(storage):
    ctx = await run(session(type="multi", **parts(storage)), visit)
    with pytest.raises(SessionClosed):
        _ = ctx.session.user


async def test_an_unknown_part_is_an_attribute_error_that_names_the_known(storage):
    async def handler(ctx):
        with pytest.raises(AttributeError, match="no part 'usr'; it has user, chat"):
            _ = ctx.session.usr
        with pytest.raises(AttributeError, match="no part 'usr'"):
            ctx.session.usr = 1
        with pytest.raises(AttributeError, match="'MultiHandle' object has no attribute 'user'"):
            ctx.session_handle.user = Profile()

    await run(session(type="multi", **parts(storage)), handler)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "needs parts"),
        ({"user": Profile}, r"given as SessionOptions"),
        ({"ttl": 60, "user": SessionOptions()}, r"ttl=60: .* user=SessionOptions\(ttl=60"),
        ({"save": SessionOptions()}, "can't be called 'save'"),
        ({"_user": SessionOptions()}, "can't be called '_user'"),
        ({"user": SessionOptions(lazy=True)}, "belong to the multi session"),
        ({"user": SessionOptions(key="basket")}, "belong to the multi session"),
        (
            {"a": SessionOptions(prefix="x"), "b": SessionOptions(prefix="x")},
            "prefix 'x' of part a begins the prefix 'x' of part b",
        ),
        (
            {"a": SessionOptions(prefix="p1"), "b": SessionOptions(prefix="p")},
            "prefix 'p' of part b begins the prefix 'p1' of part a",
        ),
        (
            {"a": SessionOptions(), "b": SessionOptions(prefix="")},
            "prefix '' of part b begins the prefix 'a:' of part a",
        ),
    ],
)
def test_wrong_parts_are_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        session(type="multi", **options)


def test_a_prefix_may_begin_another_one_in_another_storage():
    a = SessionOptions(prefix="p1", storage=Recording())
    b = SessionOptions(prefix="p", storage=Recording())
    session(type="multi", a=a, b=b)


def test_an_unknown_type_is_refused():
    with pytest.raises(ConfigurationError, match="'single' or 'multi'"):
        session(type="several")


async def test_parts_that_were_set_or_loaded_before_the_rest_stay_as_they_are(storage):
    """As in aiogram, where a filter may use the handle before the handler asks for the session."""
    more = parts(storage, other=SessionOptions(initial=Profile, storage=storage))
    sessions = session(type="multi", **more).sessions
    ctx = SimpleNamespace(user_id=7, chat_id=42)
    async with await sessions.open_for(ctx, lazy=True) as handle:
        handle.user.data = Profile("de", 5)
        (await handle.chat).messages.append("from the filter")
        view = await sessions.hand_out(handle, lazy=False)
        assert view.user == Profile("de", 5)
        assert view.other == Profile()
        assert view.chat.messages == ["from the filter"]
    assert await value(storage, "user:7") == b'{"language":"de","visits":5}'
    assert await value(storage, "chat:42") == b'{"messages":["from the filter"]}'


async def test_the_handles_data_is_what_the_handler_gets(storage):
    sessions = session(type="multi", **parts(storage)).sessions
    ctx = SimpleNamespace(user_id=7, chat_id=42)
    async with await sessions.open_for(ctx, lazy=True) as handle:
        view = await sessions.hand_out(handle, lazy=False)
        assert handle.data is view
        assert handle.data.user == Profile()
