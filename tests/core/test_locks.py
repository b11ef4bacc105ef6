"""One holder per key, first come first served, and nothing left behind."""

import asyncio
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import MemorySessionStorage, Sessions
from gramkeep.locks import HeldByThisTask, KeyLocks, TicketReleased

LONG = 30.0


@pytest.fixture
def locks():
    return KeyLocks()


async def hold(locks, key, until, *, turns=None, name=None, timeout=LONG):
    ticket = locks.reserve(key)
    try:
        await ticket.wait(timeout)
        if turns is not None:
            turns.append(name)
        await until.wait()
    finally:
        ticket.release()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_waiters_have_their_turn_in_the_order_in_which_they_came(locks):
    turns, go = [], asyncio.Event()
    go.set()
    await asyncio.gather(*(hold(locks, "a", go, turns=turns, name=i) for i in range(500)))
    assert turns == list(range(500))
    assert len(locks) == 0


async def test_one_ticket_at_a_time_has_its_turn(locks):
    inside = 0

    async def enter():
        nonlocal inside
        ticket = locks.reserve("a")
        await ticket.wait(LONG)
        inside += 1
        assert inside == 1
        await asyncio.sleep(0)
        inside -= 1
        ticket.release()

    await asyncio.gather(*(enter() for _ in range(100)))


async def test_other_keys_do_not_wait(locks):
    never = asyncio.Event()
    holder = asyncio.create_task(hold(locks, "a", never))
    await settle()
    ticket = locks.reserve("b")
    async with asyncio.timeout(5):
        await ticket.wait(LONG)
    ticket.release()
    holder.cancel()
    await asyncio.wait([holder])
    assert len(locks) == 0


async def test_a_place_is_taken_when_reserved_not_when_waited_for(locks):
    turns, go = [], asyncio.Event()
    go.set()
    first = locks.reserve("a")
    second = asyncio.create_task(hold(locks, "a", go, turns=turns, name="second"))
    await settle()
    assert turns == []
    await first.wait(LONG)
    turns.append("first")
    first.release()
    await second
    assert turns == ["first", "second"]


async def test_a_reserved_place_given_up_without_waiting_lets_the_next_one_in(locks):
    go = asyncio.Event()
    go.set()
    first = locks.reserve("a")
    second = asyncio.create_task(hold(locks, "a", go))
    await settle()
    first.release()
    await asyncio.wait_for(second, 5)
    assert len(locks) == 0


@pytest.mark.parametrize("cancelled", [[1], [4], [8], [1, 2], [3, 4, 5], [7, 8], range(1, 9)])
async def test_cancelled_waiters_leave_the_queue_and_the_others_keep_their_order(locks, cancelled):
    turns, go = [], asyncio.Event()
    tasks = [asyncio.create_task(hold(locks, "a", go, turns=turns, name=i)) for i in range(9)]
    await settle()
    for i in cancelled:
        tasks[i].cancel()
    await settle()
    go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert turns == [i for i in range(9) if i not in cancelled]
    assert all(isinstance(outcomes[i], asyncio.CancelledError) for i in cancelled)
    assert len(locks) == 0


async def test_a_cancelled_holder_lets_the_next_one_in(locks):
    never, go = asyncio.Event(), asyncio.Event()
    go.set()
    holder = asyncio.create_task(hold(locks, "a", never))
    await settle()
    waiter = asyncio.create_task(hold(locks, "a", go))
    await settle()
    holder.cancel()
    await asyncio.wait_for(waiter, 5)
    assert len(locks) == 0


async def test_a_waiter_cancelled_at_the_moment_of_its_turn_passes_it_on(locks):
    turns, go = [], asyncio.Event()
    first = locks.reserve("a")
    await first.wait(LONG)
    second = asyncio.create_task(hold(locks, "a", go, turns=turns, name="second"))
    third = asyncio.create_task(hold(locks, "a", go, turns=turns, name="third"))
    await settle()
    first.release()  # wakes the second one ...
    second.cancel()  # ... which is cancelled before it runs
    go.set()
    await asyncio.wait_for(third, 5)
    await asyncio.wait([second])
    assert second.cancelled()
    assert turns == ["third"]
    assert len(locks) == 0


async def test_a_waiter_cancelled_just_before_its_turn_passes_it_on(locks):
    turns, go = [], asyncio.Event()
    first = locks.reserve("a")
    await first.wait(LONG)
    second = asyncio.create_task(hold(locks, "a", go, turns=turns, name="second"))
    third = asyncio.create_task(hold(locks, "a", go, turns=turns, name="third"))
    await settle()
    second.cancel()
    first.release()
    go.set()
    await asyncio.wait_for(third, 5)
    await asyncio.wait([second])
    assert turns == ["third"]
    assert len(locks) == 0


async def test_waiting_ends_with_a_timeout_error_and_leaves_the_others_in_order(locks):
    turns, go = [], asyncio.Event()
    holder = asyncio.create_task(hold(locks, "a", go))
    await settle()
    hasty = asyncio.create_task(hold(locks, "a", go, turns=turns, name="hasty", timeout=0.02))
    patient = asyncio.create_task(hold(locks, "a", go, turns=turns, name="patient"))
    with pytest.raises(TimeoutError):
        await hasty
    go.set()
    await asyncio.gather(holder, patient)
    assert turns == ["patient"]
    assert len(locks) == 0


async def test_a_wait_that_was_cancelled_can_be_taken_up_again(locks):
    first = locks.reserve("a")
    await first.wait(LONG)
    second = None

    async def wait():
        nonlocal second
        second = second or locks.reserve("a")
        await second.wait(LONG)

    waiting = asyncio.create_task(wait())
    await settle()
    waiting.cancel()
    await asyncio.wait([waiting])
    third = asyncio.create_task(hold(locks, "a", asyncio.Event()))
    await settle()
    first.release()
    await asyncio.wait_for(asyncio.create_task(wait()), 5)  # its place was kept
    second.release()
    third.cancel()
    await asyncio.wait([third])
    assert len(locks) == 0


async def test_a_task_that_would_wait_for_itself_is_refused_at_once(locks):
    first = locks.reserve("a")
    await first.wait(LONG)
    second = locks.reserve("a")
    async with asyncio.timeout(5):
        with pytest.raises(HeldByThisTask):
            await second.wait(LONG)
    second.release()
    first.release()
    assert len(locks) == 0


async def test_a_task_that_waits_behind_itself_is_refused_at_once(locks):
    never = asyncio.Event()
    holder = asyncio.create_task(hold(locks, "a", never))
    await settle()
    ahead = locks.reserve("a")
    second = locks.reserve("a")
    async with asyncio.timeout(5):
        with pytest.raises(HeldByThisTask):
            await second.wait(LONG)
    second.release()
    ahead.release()
    holder.cancel()
    await asyncio.wait([holder])
    assert len(locks) == 0


async def test_a_task_may_come_again_after_it_left(locks):
    for _ in range(3):
        ticket = locks.reserve("a")
        await ticket.wait(LONG)
        ticket.release()
    assert len(locks) == 0


async def test_releasing_twice_lets_nobody_in_too_early(locks):
    never = asyncio.Event()
    first = locks.reserve("a")
    await first.wait(LONG)
    turns = []
    second = asyncio.create_task(hold(locks, "a", never, turns=turns, name="second"))
    third = asyncio.create_task(hold(locks, "a", never, turns=turns, name="third"))
    await settle()
    first.release()
    first.release()
    await settle()
    assert turns == ["second"]
    for task in (second, third):
        task.cancel()
    await asyncio.wait([second, third])
    assert len(locks) == 0


async def test_waiting_with_a_released_ticket_is_an_error(locks):
    ticket = locks.reserve("a")
    ticket.release()
    with pytest.raises(TicketReleased):
        await ticket.wait(LONG)
    assert len(locks) == 0


@pytest.mark.parametrize("behind", [0, 1])
async def test_a_ticket_released_while_its_turn_is_waited_for_ends_the_wait(locks, behind):
    never = asyncio.Event()
    holders = [asyncio.create_task(hold(locks, "a", never)) for _ in range(1 + behind)]
    await settle()
    ticket = locks.reserve("a")
    waiting = asyncio.create_task(ticket.wait(LONG))
    await settle()
    ticket.release()
    with pytest.raises(TicketReleased):
        await asyncio.wait_for(waiting, 5)
    for holder in holders:
        holder.cancel()
    await asyncio.wait(holders)
    assert len(locks) == 0


async def test_thousands_of_keys_leave_nothing_behind(locks):
    go = asyncio.Event()
    tasks = [asyncio.create_task(hold(locks, f"key {i % 3000}", go)) for i in range(9000)]
    await settle()
    assert len(locks) == 3000
    chance = random.Random(1)
    for task in chance.sample(tasks, 4000):
        task.cancel()
    go.set()
    await asyncio.wait(tasks)
    assert len(locks) == 0


async def test_thousands_can_wait_for_one_key_without_slowing_each_other_down_for_long(locks):
    turns, go = [], asyncio.Event()
    tasks = [
        asyncio.create_task(hold(locks, "a", go, turns=turns, name=i, timeout=100))
        for i in range(3000)
    ]
    await settle()
    for task in tasks[1::2]:
        task.cancel()
    go.set()
    await asyncio.wait(tasks)
    assert turns == list(range(0, 3000, 2))
    assert len(locks) == 0


async def test_inherited_tickets_leave_the_queues_of_a_forked_child_alone(locks):
    theirs = locks.reserve("a")
    behind = locks.reserve("a")
    locks.disown()
    assert len(locks) == 0
    ours = locks.reserve("a")
    await ours.wait(0)
    theirs.release()
    behind.release()
    assert len(locks) == 1
    ours.release()
    assert len(locks) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
async def test_a_forked_child_does_not_wait_for_what_its_parent_holds():
    sessions = Sessions(initial=dict, storage=MemorySessionStorage(), lock_timeout=1)

    async def use():
        await sessions.update("42", lambda data: {**data, "child": True})
        async with asyncio.timeout(10):
            await sessions.drain(20)
        return await sessions.get("42")

    async with sessions.open("42") as session:
        session.data["parent"] = True
        child = os.fork()
        if child == 0:
            found = None
            try:
                found = asyncio.run(use())
            finally:
                os._exit(0 if found == {"child": True} else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await sessions.get("42") == {"parent": True}


def test_queues_go_on_in_another_event_loop_when_the_first_is_over():
    locks = KeyLocks()

    async def wait_for_itself():
        first, second = locks.reserve("a"), locks.reserve("a")
        with pytest.raises(HeldByThisTask):
            await second.wait(LONG)
        waiting = asyncio.create_task(hold(locks, "a", asyncio.Event()))
        await settle()
        assert locks.loop is asyncio.get_running_loop()
        waiting.cancel()
        await asyncio.wait([waiting])
        second.release()
        first.release()

    for _ in range(2):
        asyncio.run(wait_for_itself())
    assert len(locks) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("ab")),
        st.tuples(st.just("enter in a hurry"), st.sampled_from("ab")),
        st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 30)),
        st.tuples(st.just("run"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_any_sequence_of_coming_waiting_cancelling_and_leaving_keeps_the_order(steps):
    asyncio.run(_play(steps))


async def _play(steps):
    locks, held, turns = KeyLocks(), {}, {"a": [], "b": []}
    tasks, leave, key_of, hurried, cancelled = [], [], [], set(), set()

    async def update(number, key, timeout):
        ticket = locks.reserve(key)
        try:
            await ticket.wait(timeout)
            assert key not in held, "two hold one key"
            held[key] = number
            turns[key].append(number)
            try:
                await leave[number].wait()
            finally:
                del held[key]
        finally:
            ticket.release()

    for step, what in steps:
        if step.startswith("enter"):
            number, timeout = len(tasks), LONG
            if step != "enter":
                hurried.add(number)
                timeout = 0.0
            leave.append(asyncio.Event())
            key_of.append(what)
            tasks.append(asyncio.create_task(update(number, what, timeout)))
        elif step == "run":
            for _ in range(what):
                await asyncio.sleep(0)
        elif what < len(tasks) and step == "leave":
            leave[what].set()
        elif what < len(tasks):
            cancelled.add(what)
            tasks[what].cancel()
    for event in leave:
        event.set()
    if tasks:
        await asyncio.wait_for(asyncio.wait(tasks), 20)
    for number, task in enumerate(tasks):
        if task.cancelled():
            assert number in cancelled
        elif isinstance(task.exception(), TimeoutError):
            assert number in hurried
        else:
            assert task.exception() is None
            assert number in turns[key_of[number]]
    for order in turns.values():
        assert order == sorted(order)
    assert len(locks) == 0
    assert not held
