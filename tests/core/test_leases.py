"""Sessions that several processes share: each storage object here stands for one process."""

import asyncio
import logging
import os
import time
from dataclasses import dataclass

import pytest
from storages.broken.unbroken import Unbroken

from gramkeep import (
    ConfigurationError,
    SessionBusy,
    SessionConflict,
    SessionDecodeError,
    SessionOptions,
    Sessions,
    StorageUnavailable,
    releases,
    session,
)
from gramkeep.storage import ANY, BUSY, DELETE, KEEP, Lease, Put


@dataclass
class Counter:
    count: int = 0


class Leasing(Unbroken):
    """Notes what is asked of it, takes a moment for everything, and can be out of reach."""

    def __init__(self, *state):
        super().__init__(*state)
        self.calls = []
        self.is_down = self.goes_down_after_claim = False
        self.latency = 0.0
        self.is_behind = None  # a task whose end is waited for, as what a pooler queued would

    async def get(self, keys):
        await self._answer("get", keys)
        return await super().get(keys)

    async def claim(self, keys, lease):
        await self._answer("claim", keys)
        answers = await super().claim(keys, lease)
        if BUSY in answers:
            self.calls[-1] = ("busy", *keys)
        if self.goes_down_after_claim:
            self.is_down, self.goes_down_after_claim = True, False
            await self._answer("get", keys)
        return answers

    async def put(self, puts, lease=None, *, atomic=False):
        await self._answer("put", [put.key for put in puts])
        self.last_puts = puts
        return await super().put(puts, lease, atomic=atomic)

    async def _answer(self, call, keys):
        self.calls.append((call, *keys))
        await asyncio.sleep(self.latency)
        if self.is_behind is not None:
            await asyncio.wait([self.is_behind])
        if self.is_down:
            raise StorageUnavailable(storage=self.name, reason="it is down")

    async def is_free(self, key="42"):
        """Whether yet another process could have the session."""
        stranger = Lease("stranger", 1.0, {key: 1000.0})
        storage = self.reopen()
        (answer,) = await storage.claim([key], stranger)
        await storage.put([Put(key, KEEP, ANY)], stranger)
        return answer is not BUSY

    async def value(self, key="42"):
        (record,) = await super().get([key])
        return None if record is None else record.value


@pytest.fixture
def here():
    return Leasing()


@pytest.fixture
def there(here):
    return here.reopen()


def sessions_in(storage, **options):
    return Sessions(initial=Counter, storage=storage, **options)


async def count_up(sessions, times=1, key="42", pause=0.0):
    for _ in range(times):
        async with sessions.open(key) as held:
            held.data.count += 1
            await asyncio.sleep(pause)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_an_update_takes_two_calls(here):
    await count_up(sessions_in(here))
    assert here.calls == [("claim", "42"), ("put", "42")]
    assert await here.is_free()


async def test_an_update_that_changes_nothing_gives_the_session_up(here):
    sessions = sessions_in(here)
    await count_up(sessions)
    here.calls.clear()
    async with sessions.open("42"):
        assert not await here.is_free()
    assert here.calls == [("claim", "42"), ("put", "42")]
    (put,) = here.last_puts
    assert put == Put("42", KEEP, ANY)
    assert await here.is_free()


async def test_a_lazy_session_that_is_not_asked_for_costs_nothing(here):
    async with sessions_in(here, lazy=True).open("42"):
        pass
    assert here.calls == []


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_failed_handler_gives_the_session_up(here, error):
    with pytest.raises(error):
        async with sessions_in(here).open("42") as held:
            held.data.count += 1
            raise error
    assert await here.value() is None
    assert await here.is_free()


async def test_a_session_that_can_not_be_read_is_given_up(here):
    await here.put([Put("42", b"nonsense", ANY)])
    with pytest.raises(SessionDecodeError):
        await count_up(sessions_in(here))
    assert await here.is_free()


async def test_two_processes_take_turns(here, there):
    here.latency = there.latency = 0.0005
    ours, theirs = sessions_in(here), sessions_in(there)
    await asyncio.gather(*(count_up(sessions, 20) for sessions in (ours, theirs) * 3))
    assert await ours.get("42") == Counter(120)


async def test_the_session_is_there_within_milliseconds_of_its_release(here, there):
    ours, theirs = sessions_in(here), sessions_in(there)
    took = []
    for _ in range(5):  # of which the machine may hold some up
        async with ours.open("42") as held:
            there.calls.clear()
            waiting = asyncio.create_task(count_up(theirs))
            await until(lambda: there.calls.count(("busy", "42")) > 20)
            held.data.count += 1
        released = time.monotonic()
        await waiting
        took.append(time.monotonic() - released)
    assert min(took) < 0.1
    assert await ours.get("42") == Counter(10)


async def test_a_session_held_elsewhere_for_too_long_is_busy(here, there):
    async with sessions_in(here).open("42"):
        began = time.monotonic()
        with pytest.raises(SessionBusy) as caught:
            await count_up(sessions_in(there, lock_timeout=0.1))
        assert 0.1 <= time.monotonic() - began < 10
        assert (caught.value.key, caught.value.waited) == ("42", 0.1)
    assert await here.is_free()
    await count_up(sessions_in(there))


async def test_an_update_cancelled_while_another_process_holds_its_session_leaves_nothing(
    here, there
):
    async with sessions_in(here).open("42"):
        theirs = sessions_in(there)
        waiting = asyncio.create_task(count_up(theirs))
        await until(lambda: ("busy", "42") in there.calls)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(theirs.kind.shared.queues) == 0
    assert await here.is_free()


async def test_an_update_cancelled_in_the_midst_of_its_claim_leaves_nothing(here):
    here.latency = 0.01
    sessions = sessions_in(here)
    updating = asyncio.create_task(count_up(sessions))
    await until(lambda: here.calls)
    updating.cancel()
    await asyncio.wait([updating])
    here.latency = 0.0
    assert await here.is_free()
    await count_up(sessions)


async def test_the_next_update_here_waits_until_a_cancelled_one_has_given_up(here, there):
    sessions = sessions_in(here)

    async def fails():
        async with sessions.open("42"):
            here.latency = 0.05
            raise ValueError

    failing = asyncio.create_task(fails())
    await until(lambda: ("put", "42") in here.calls)
    failing.cancel()  # while it gives the session up
    here.latency = 0.0  # and a claim would overtake it
    go_on = asyncio.Event()

    async def follows():
        async with sessions.open("42"):
            await go_on.wait()

    following = asyncio.create_task(follows())
    with pytest.raises(asyncio.CancelledError):
        await failing
    await until(lambda: here.calls[-1] == ("claim", "42"))
    await asyncio.sleep(0.08)
    assert not await there.is_free()
    go_on.set()
    await following


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_what_is_cancelled_while_it_is_given_up_is_given_up_all_the_same(
    here, there, cancellations
):
    sessions = sessions_in(here)

    async def reads():
        async with sessions.open("42"):
            here.latency = 0.05

    reading = asyncio.create_task(reads())
    await until(lambda: ("put", "42") in here.calls)
    for _ in range(cancellations):
        reading.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await there.is_free()
    assert len(sessions.kind.shared.queues) == 0


async def test_a_long_handler_keeps_its_session(here, there):
    ours, theirs = sessions_in(here, lease=2), sessions_in(there, lease=2)
    async with ours.open("42") as held:
        waiting = asyncio.create_task(count_up(theirs))
        await until(lambda: here.calls.count(("claim", "42")) == 4)  # one, and three renewals
        assert not waiting.done()
        held.data.count += 1
    await waiting
    assert await ours.get("42") == Counter(2)


async def test_a_lease_is_renewed_long_before_it_ends(here):
    seen = []
    for _ in range(5):  # of which the machine may hold some up
        async with sessions_in(here, lease=0.9).open("42"):
            here.calls.clear()
            await asyncio.sleep(0.5)
            seen.append(here.calls.copy())
        if seen[-1] == [("claim", "42")]:  # in time for another, should this one fail
            return
    pytest.fail(f"{seen}")


async def test_a_mid_handler_save_keeps_the_session(here):
    async with sessions_in(here).open("42") as held:
        held.data.count = 1
        await held.save()
        assert not await here.is_free()
        held.data.count = 2
        await held.clear()
        assert not await here.is_free()
        await held.reload()
        assert not await here.is_free()
    assert await here.is_free()


async def test_what_is_overwritten_unread_is_waited_for(here, there):
    ours, theirs = sessions_in(here), sessions_in(there)
    async with ours.open("42") as held:
        deleting = asyncio.create_task(theirs.delete("42"))
        await until(lambda: ("busy", "42") in there.calls)
        held.data.count += 1
    await deleting
    assert await ours.get("42") is None

    async def clear():
        async with theirs.open("42", lazy=True) as other:
            await other.clear()

    there.calls.clear()
    async with ours.open("42") as held:
        clearing = asyncio.create_task(clear())
        await until(lambda: ("busy", "42") in there.calls)
        held.data.count += 1
    await clearing
    assert await ours.get("42") is None


async def test_a_dead_processs_session_is_free_after_its_lease(here):
    await here.claim(["42"], Lease("dead", 0.4))
    began = time.monotonic()
    await count_up(sessions_in(here))
    assert 0.35 < time.monotonic() - began < 10


async def test_a_lease_that_ran_out_without_a_rival_fails_nobody(here, caplog):
    ours = sessions_in(here, lease=0.1)
    async with ours.open("42") as held:
        here.is_down = True
        await until(lambda: "leases were not renewed: it is down" in caplog.text)
        await until(lambda: here.holder(here.holds["42"]) is None)
        here.is_down = False
        held.data.count += 1
    assert await ours.get("42") == Counter(1)


async def test_a_worker_whose_lease_ran_out_overwrites_nothing(here, there):
    with pytest.raises(SessionConflict, match="the lease on it ran out") as caught:
        async with sessions_in(here, lease=0.1).open("42") as held:
            here.is_down = True
            await count_up(sessions_in(there))
            here.is_down = False
            held.data.count += 5
    assert caught.value.lease_ran_out
    assert await here.value() == b'{"count":1}'


async def test_a_lease_that_runs_out_while_it_is_saved_is_told(here, there):
    theirs = sessions_in(there)
    with pytest.raises(SessionConflict, match="the lease on it ran out"):
        async with sessions_in(here, lease=0.1).open("42") as held:
            held.data.count += 5
            here.is_behind = asyncio.create_task(count_up(theirs))
    await here.is_behind
    assert await here.value() == b'{"count":1}'


async def test_a_worker_whose_session_is_held_by_another_overwrites_nothing(here, there):
    theirs = sessions_in(there)
    with pytest.raises(SessionConflict, match="the lease on it ran out"):
        async with sessions_in(here, lease=0.1).open("42") as held:
            here.is_down = True
            async with theirs.open("42") as other:
                here.is_down = False
                await until(lambda: ("busy", "42") in here.calls)  # it would renew, in vain
                other.data.count = 1
                held.data = Counter(5)
                with pytest.raises(SessionConflict):
                    await held.save()
    assert await here.value() == b'{"count":1}'


async def test_a_storage_that_fails_when_a_session_is_given_up_fails_no_handler(here, caplog):
    sessions = sessions_in(here, lease=0.1)
    async with sessions.open("42"):
        here.is_down = True
    assert "can't be given up now; other processes can have them when the" in caplog.text
    here.is_down = False
    await count_up(sessions)


async def fail_to_save(sessions, storage):
    """Have an update meet a storage that is out of reach when it would save, and after that."""
    with pytest.raises(StorageUnavailable):
        async with sessions.open("42") as held:
            held.data.count += 1
            storage.is_down = True


async def test_what_could_not_be_given_up_is_free_soon_after_the_storage_is_back(here):
    await fail_to_save(sessions_in(here), here)
    await asyncio.sleep(0.2)
    assert not await here.is_free()
    here.is_down = False
    began = time.monotonic()
    while not await here.is_free():
        assert time.monotonic() - began < 15  # of a lease of 30
        await asyncio.sleep(0.01)


async def test_what_was_claimed_without_an_answer_is_free_soon_after_the_storage_is_back(here):
    sessions = sessions_in(here)
    here.goes_down_after_claim = True
    with pytest.raises(StorageUnavailable):
        await count_up(sessions)
    assert not await here.is_free()
    here.is_down = False
    began = time.monotonic()
    while not await here.is_free():
        assert time.monotonic() - began < 15  # of a lease of 30
        await asyncio.sleep(0.01)


async def test_what_is_wanted_again_is_not_given_up_by_the_update_before(here, there):
    sessions = sessions_in(here)
    await fail_to_save(sessions, here)
    here.is_down = False
    async with sessions.open("42") as held:
        held.data.count += 1
        await asyncio.sleep(0.3)
        assert not await here.is_free()
    assert await here.is_free()
    assert (await sessions_in(there).get("42")).count == 1


async def test_a_late_release_that_is_under_way_is_waited_for(here):
    sessions = sessions_in(here)
    await fail_to_save(sessions, here)
    here.is_down, here.latency = False, 0.05
    here.calls.clear()
    await until(lambda: here.calls == [("put", "42")])  # it is being released
    here.latency = 0.0  # and a claim would overtake it
    async with sessions.open("42"):
        await asyncio.sleep(0.1)
        assert not await here.is_free()


async def test_a_late_release_of_what_is_wanted_again_begins_no_task(here, monkeypatch):
    monkeypatch.setattr(releases, "FIRST_PAUSE", 0.3)
    sessions = sessions_in(here)
    await fail_to_save(sessions, here)
    here.is_down = False
    begun = []

    def note(loop, coroutine, **options):
        begun.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(note)
    await count_up(sessions)
    await asyncio.sleep(0.5)
    assert not [name for name in begun if "LateReleases" in name]


async def test_a_late_release_is_given_up_when_the_lease_has_ended(here):
    await fail_to_save(sessions_in(here, lease=0.2), here)
    await asyncio.sleep(0.5)
    here.calls.clear()
    await asyncio.sleep(0.6)
    assert here.calls == []


async def test_optimistic_sessions_take_no_lease(here, there):
    ours, theirs = (sessions_in(storage, isolation="optimistic") for storage in (here, there))
    with pytest.raises(SessionConflict) as caught:
        async with ours.open("42") as held:
            assert await here.is_free()
            await count_up(theirs)
            held.data.count += 1
    assert not caught.value.lease_ran_out
    assert here.calls[0] == ("get", "42")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lease": 30}, "memory:// can't lease"),
        ({"lease": 0}, "lease=0"),
        ({"lease": 5, "isolation": "optimistic"}, "of no use with isolation='optimistic'"),
    ],
)
def test_a_lease_where_there_can_be_none_is_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        Sessions(initial=Counter, storage="memory://", **options)


async def test_parts_taken_in_any_order_block_nobody(here, there):
    def kinds(storage):
        return session(
            type="multi",
            one=SessionOptions(initial=Counter, storage=storage, get_session_key=lambda c: c.one),
            two=SessionOptions(initial=Counter, storage=storage, get_session_key=lambda c: c.two),
        ).sessions

    class Origin:
        def __init__(self, one, two):
            self.one, self.two = one, two

    async def update(kind, one, two):
        async with await kind.open_for(Origin(one, two)) as handle:
            handle.one.data.count += 1
            await asyncio.sleep(0.001)
            handle.two.data.count += 1

    here.latency = there.latency = 0.0005
    ours, theirs = kinds(here), kinds(there)
    keys = [("a", "b"), ("b", "a"), ("a", "a")]
    async with asyncio.timeout(20):
        await asyncio.gather(*(update(kind, *pair) for kind in (ours, theirs) * 5 for pair in keys))
    counts = {key: value.count for key, value in [i async for i in ours.parts["one"].items()]}
    assert counts == {"a": 20, "b": 10}
    assert await here.is_free("one:a")
    assert await here.is_free("two:b")


async def test_the_parts_of_an_update_are_given_up_in_one_call(here):
    kinds = session(
        type="multi",
        user=SessionOptions(initial=Counter, storage=here),
        chat=SessionOptions(initial=Counter, storage=here),
    ).sessions

    class Origin:
        chat_id = 42

    async with await kinds.open_for(Origin()) as handle:
        handle.chat.data.count += 1
    assert here.calls == [("claim", "chat:42", "user:42"), ("put", "chat:42", "user:42")]
    here.calls.clear()
    async with await kinds.open_for(Origin()):
        pass
    assert here.calls == [("claim", "chat:42", "user:42"), ("put", "user:42", "chat:42")]
    with pytest.raises(ValueError, match="oops"):
        async with await kinds.open_for(Origin()) as handle:
            handle.chat.data.count += 1
            raise ValueError("oops")
    assert await here.is_free("chat:42")
    assert await here.is_free("user:42")


async def test_moving_and_migrating_wait_for_other_processes(here, there):
    migrations = {1: lambda old: old}
    ours, theirs = (sessions_in(storage, migrations=migrations) for storage in (here, there))
    await here.put([Put("42", b'{"count":1}', ANY)])
    for job in (theirs.migrate_all, lambda: theirs.move("42", "43")):
        there.calls.clear()
        async with ours.open("42") as held:
            working = asyncio.create_task(job())
            await until(lambda: any(call[0] == "busy" for call in there.calls))
            held.data.count += 1
        await working
    assert await theirs.get("43") == Counter(3)
    assert await here.is_free("42")
    assert await here.is_free("43")


async def test_a_forked_child_is_another_owner(here):
    sessions = sessions_in(here)
    leases = sessions.kind.shared.leases
    mine = leases.lease(1.0).owner
    assert leases.lease(2.0).owner == mine
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, leases.lease(1.0).owner.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() not in {"", mine}


async def test_nothing_is_left_running_when_all_is_given_up(here, caplog):
    caplog.set_level(logging.DEBUG)
    sessions = sessions_in(here, lease=0.06)
    await count_up(sessions, 3, pause=0.03)
    await sessions.aclose()
    before = len(here.calls)
    await asyncio.sleep(0.1)
    assert len(here.calls) == before
    assert caplog.text == ""


async def test_deleting_gives_the_session_up(here):
    sessions = sessions_in(here)
    await count_up(sessions)
    async with sessions.open("42") as held:
        held.data = None
    assert here.last_puts[0].value is DELETE
    assert await here.is_free()
