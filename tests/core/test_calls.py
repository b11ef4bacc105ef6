"""Calls that are made while others are under way go together, and each has its own outcome."""

import asyncio
import os
from dataclasses import dataclass

import pytest
from storages.broken.unbroken import Unbroken

from gramkeep import Sessions, StorageUnavailable
from gramkeep.calls import BYTES_TOGETHER, KEYS_TOGETHER, Calls
from gramkeep.storage import ABSENT, ANY, BUSY, KEEP, Lease, Put


class Remote(Unbroken):
    """Notes each call, and answers none before it is let."""

    calls_at_once = 1

    def __init__(self, *state):
        super().__init__(*state)
        self.asked = []
        self.open = asyncio.Event()
        self.error = None

    async def get(self, keys):
        await self._wait("get", keys)
        return await super().get(keys)

    async def claim(self, keys, lease):
        await self._wait("claim", keys, dict(lease.waited))
        return await super().claim(keys, lease)

    async def put(self, puts, lease=None, *, atomic=False):
        await self._wait("atomic" if atomic else "put", [put.key for put in puts])
        if any(put.key == "refused" for put in puts):
            raise ValueError("a key that this storage can't have")
        return await super().put(puts, lease, atomic=atomic)

    async def _wait(self, *call):
        self.asked.append(call)
        await asyncio.sleep(0)
        await self.open.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def remote():
    return Remote()


@pytest.fixture
def calls(remote):
    return Calls(remote)


async def begin(*coroutines):
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


def put_of(key, value=b"1", expected=ANY, **options):
    return Put(key, value, expected, **options)


async def test_a_call_that_comes_alone_goes_as_it_is_and_at_once(remote, calls):
    keys = ("1", "2")
    (task,) = await begin(calls.get(keys))
    assert remote.asked == [("get", keys)]
    assert remote.asked[0][1] is keys
    remote.open.set()
    assert await task == [None, None]


async def test_calls_made_meanwhile_go_together_as_the_next(remote, calls):
    tasks = await begin(*(calls.put([put_of(key)]) for key in "abcde"))
    assert remote.asked == [("put", ["a"])]
    remote.open.set()
    assert await asyncio.gather(*tasks) == [[True]] * 5
    assert remote.asked == [("put", ["a"]), ("put", ["b", "c", "d", "e"])]
    assert [record.value for record in await calls.get("abcde")] == [b"1"] * 5


async def test_each_caller_gets_the_answers_for_its_own_keys(remote, calls):
    await remote_holds(remote, {"a": b"1", "b": b"2", "c": b"3"})
    tasks = await begin(calls.get(["x"]), calls.get(["a"]), calls.get(["x", "b"]), calls.get(["c"]))
    remote.open.set()
    answers = await asyncio.gather(*tasks)
    assert [[record and record.value for record in answer] for answer in answers] == [
        [None],
        [b"1"],
        [None, b"2"],
        [b"3"],
    ]


async def remote_holds(remote, values):
    await Unbroken.put(remote, [put_of(key, value) for key, value in values.items()])


async def test_one_refused_change_is_refused_alone(remote, calls):
    await remote_holds(remote, {"b": b"other"})
    tasks = await begin(*(calls.put([put_of(key, expected=ABSENT)]) for key in "xabc"))
    remote.open.set()
    assert await asyncio.gather(*tasks) == [[True], [True], [False], [True]]


async def test_one_failing_key_fails_alone(remote, calls):
    tasks = await begin(*(calls.put([put_of(key)]) for key in ("first", "a", "refused", "b")))
    remote.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(2), ValueError)
    assert answers == [[True]] * 3


async def test_a_key_that_fails_after_the_others_were_done_fails_alone_and_they_are_not_repeated(
    remote, calls
):
    unlucky = StorageUnavailable(storage="s", reason="no room for this one")
    unlucky.outcomes = [True, unlucky, False, True]
    tasks = await begin(
        calls.put([put_of("first")]),
        calls.put([put_of("a")]),
        calls.put([put_of("b"), put_of("c")]),
        calls.put([put_of("d")]),
    )
    remote.open.set()
    await asyncio.sleep(0)
    remote.error = unlucky
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], StorageUnavailable)
    assert answers[:2] == [[True], [True]]
    assert answers[3] == [True]
    assert len(remote.asked) == 2


async def test_an_unreachable_storage_fails_all_callers_each_with_an_error_of_its_own(
    remote, calls
):
    tasks = await begin(*(calls.put([put_of(key)]) for key in "abc"))
    remote.error = StorageUnavailable(storage="dict:", reason="it is down")
    remote.open.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [StorageUnavailable] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(remote.asked) == 2  # nothing was tried again: what failed may have happened


async def test_cancelling_a_caller_that_waits_takes_its_change_back(remote, calls):
    tasks = await begin(*(calls.put([put_of(key)]) for key in "abc"))
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    remote.open.set()
    assert [await tasks[0], await tasks[2]] == [[True], [True]]
    assert remote.asked == [("put", ["a"]), ("put", ["c"])]


async def test_cancelling_a_caller_whose_change_was_sent_harms_nobody_and_waits_for_it(
    remote, calls
):
    tasks = await begin(*(calls.put([put_of(key)]) for key in "abc"))
    remote.open.set()
    await tasks[0]
    remote.open.clear()
    assert remote.asked[1] == ("put", ["b", "c"])
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    assert not tasks[1].done()
    remote.open.set()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert await tasks[2] == [True]
    assert (await calls.get(["b"]))[0].value == b"1"


async def test_cancelling_the_one_under_way_lets_the_others_go_on(remote, calls):
    tasks = await begin(*(calls.get([key]) for key in "abc"))
    tasks[0].cancel()
    remote.open.set()
    assert await asyncio.gather(*tasks[1:]) == [[None], [None]]


async def test_as_many_are_under_way_as_the_storage_says(remote):
    remote.calls_at_once = 3
    calls = Calls(remote)
    tasks = await begin(*(calls.get([key]) for key in "abcdefg"))
    assert len(remote.asked) == 3
    remote.open.set()
    await asyncio.gather(*tasks)
    assert remote.asked[3] == ("get", ["d", "e", "f", "g"])
    assert calls._lanes["get"]._under_way == 0


async def test_what_is_atomic_is_shared_with_nobody(remote, calls):
    tasks = await begin(
        calls.put([put_of("a")]),
        calls.put([put_of("b"), put_of("c")], atomic=True),
        calls.put([put_of("d"), put_of("e")], atomic=True),
        calls.put([put_of("f")]),
    )
    remote.open.set()
    await asyncio.gather(*tasks)
    assert remote.asked == [
        ("put", ["a"]),
        ("atomic", ["b", "c"]),
        ("atomic", ["d", "e"]),
        ("put", ["f"]),
    ]


async def test_a_key_stands_in_a_shared_call_once_and_its_changes_keep_their_order(remote, calls):
    tasks = await begin(
        calls.put([put_of("x")]),
        calls.put([put_of("a", b"1")]),
        calls.put([put_of("a", b"2"), put_of("b", b"2")]),
        calls.put([put_of("b", b"3")]),
        calls.put([put_of("c")]),
    )
    remote.open.set()
    await asyncio.gather(*tasks)
    assert remote.asked[1:] == [("put", ["a", "c"]), ("put", ["a", "b"]), ("put", ["b"])]
    assert [record.value for record in await calls.get("ab")] == [b"2", b"3"]


async def test_shared_calls_are_bounded_in_keys_and_bytes(remote, calls):
    tasks = await begin(*(calls.get([str(n)]) for n in range(KEYS_TOGETHER * 2 + 1)))
    remote.open.set()
    await asyncio.gather(*tasks)
    assert [len(keys) for _, keys in remote.asked] == [1, KEYS_TOGETHER, KEYS_TOGETHER]
    remote.asked.clear()
    remote.open.clear()
    large = b"x" * (BYTES_TOGETHER // 2)
    tasks = await begin(*(calls.put([put_of(str(n), large)]) for n in range(6)))
    remote.open.set()
    await asyncio.gather(*tasks)
    assert [len(keys) for _, keys in remote.asked] == [1, 2, 2, 1]


async def test_claims_are_shared_with_what_each_has_waited(remote, calls):
    rival = Lease("rival", 60)
    await Unbroken.claim(remote, ["b"], rival)
    tasks = await begin(
        calls.claim(["x"], Lease("us", 30)),
        calls.claim(["a"], Lease("us", 30)),
        calls.claim(["b"], Lease("us", 30, {"b": 1.5})),
        calls.claim(["c"], Lease("us", 5)),
    )
    remote.open.set()
    assert await asyncio.gather(*tasks) == [[None], [None], [BUSY], [None]]
    assert remote.asked == [
        ("claim", ["x"], {}),
        ("claim", ["c"], {}),
        ("claim", ["a", "b"], {"b": 1.5}),
    ]


async def test_changes_under_a_lease_are_not_mixed_with_those_without(remote, calls):
    await Unbroken.claim(remote, ["a", "b"], Lease("rival", 60))
    lease = Lease("us", 30)
    tasks = await begin(
        calls.put([put_of("x")]),
        calls.put([put_of("a")]),
        calls.put([put_of("y")], lease),
        calls.put([put_of("b")], lease),
        calls.put([Put("c", KEEP, ANY)], lease),
    )
    remote.open.set()
    assert await asyncio.gather(*tasks) == [[True], [True], [True], [False], [True]]


async def test_a_forked_child_does_not_wait_for_the_calls_of_its_parent(remote):
    sessions = Sessions(initial=Counter, storage=remote)
    (reading,) = await begin(sessions.get("a"))
    child = os.fork()
    if child == 0:
        found = 1
        try:
            remote.open = asyncio.Event()
            remote.open.set()
            found = asyncio.run(asyncio.wait_for(sessions.get("b"), 10))
        finally:
            os._exit(0 if found is None else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    remote.open.set()
    assert await reading is None


def test_a_storage_that_gains_nothing_is_called_without_a_detour():
    storage = Unbroken()
    calls = Calls(storage)
    assert (calls.get, calls.claim, calls.put) == (storage.get, storage.claim, storage.put)


@dataclass
class Counter:
    count: int = 0


async def test_many_updates_at_once_take_few_round_trips(remote):
    remote.open.set()
    sessions = Sessions(initial=Counter, storage=remote)

    async def count_up(key):
        async with sessions.open(key) as session:
            session.data.count += 1

    await asyncio.gather(*(count_up(str(number % 100)) for number in range(300)))
    counts = [counter.count async for _, counter in sessions.items()]
    assert counts == [3] * 100
    updates = [call for call in remote.asked if call[0] in {"claim", "put"}]
    assert len(updates) < 60
