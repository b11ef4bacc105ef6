"""The thread that does blocking work: together what gathered, one answer each, and an end."""

import asyncio
import gc
import threading

import pytest

from gramkeep.storages.worker import TOGETHER_AT_MOST, Job, Worker


class Ask(Job):
    __slots__ = ("what",)

    def __init__(self, what):
        super().__init__()
        self.what = what


class Desk:
    """Answers jobs on the worker's thread; can be held up, and remembers how they came."""

    def __init__(self):
        self.batches = []
        self.threads = set()
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.closed = 0

    def process(self, jobs):
        self.threads.add(threading.get_ident())
        self.batches.append([job.what for job in jobs])
        self.entered.set()
        self.go.wait(20)
        for job in jobs:
            if isinstance(job.what, Exception):
                job.error = job.what
            else:
                job.answer = job.what * 2
        yield jobs

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed += 1


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
async def worker(desk):
    worker = Worker("worker under test", desk.process, desk.close)
    yield worker
    desk.go.set()
    await worker.stop()


async def held_up(desk, worker):
    """Keep the thread busy, so that what is asked meanwhile gathers."""
    desk.go.clear()
    first = asyncio.ensure_future(ask(worker, 0))
    await asyncio.to_thread(desk.entered.wait, 10)
    return first


async def ask(worker, what):
    return await worker.submit(Ask(what))


async def test_a_call_gets_its_own_answer(worker, desk):
    assert await asyncio.gather(*(ask(worker, i) for i in range(100))) == [
        2 * i for i in range(100)
    ]
    assert len(desk.threads) == 1
    assert threading.get_ident() not in desk.threads


async def test_calls_that_gather_while_one_runs_go_together_in_their_order(worker, desk):
    first = await held_up(desk, worker)
    rest = [asyncio.ensure_future(ask(worker, i)) for i in range(1, 50)]
    await asyncio.sleep(0)
    desk.go.set()
    await asyncio.gather(first, *rest)
    assert desk.batches == [[0], list(range(1, 50))]


async def test_no_batch_is_longer_than_the_limit(worker, desk):
    first = await held_up(desk, worker)
    many = 2 * TOGETHER_AT_MOST + 5
    rest = [asyncio.ensure_future(ask(worker, i)) for i in range(many)]
    await asyncio.sleep(0)
    desk.go.set()
    assert await asyncio.gather(first, *rest) == [0, *(2 * i for i in range(many))]
    assert max(map(len, desk.batches)) <= TOGETHER_AT_MOST


async def test_one_failing_job_fails_alone(worker, desk):
    first = await held_up(desk, worker)
    error = ValueError("bad")
    rest = [asyncio.ensure_future(ask(worker, what)) for what in (1, error, 3)]
    await asyncio.sleep(0)
    desk.go.set()
    assert await asyncio.gather(first, *rest, return_exceptions=True) == [0, 2, error, 6]


async def test_when_processing_breaks_down_every_caller_is_told_and_the_thread_goes_on():
    broken = True

    def process(jobs):
        if broken:
            raise RuntimeError("broken")
        for job in jobs:
            job.answer = "fine"
        yield jobs

    worker = Worker("worker under test", process, lambda: None)
    outcomes = await asyncio.gather(*(ask(worker, i) for i in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken"] * 3
    broken = False
    assert await ask(worker, 1) == "fine"
    await worker.stop()


async def test_when_processing_breaks_down_half_way_those_answered_keep_their_answers():
    both_wait = threading.Event()

    def process(jobs):
        both_wait.wait(10)
        for job in jobs:
            if job.what == "bad":
                raise RuntimeError("broken")
            job.answer = job.what
            yield [job]

    worker = Worker("worker under test", process, lambda: None)
    asked = [asyncio.ensure_future(ask(worker, what)) for what in ("good", "bad", "never")]
    await asyncio.sleep(0)
    both_wait.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert outcomes[0] == "good"
    assert str(outcomes[1]) == "broken"
    await worker.stop()


async def test_a_call_cancelled_while_it_waits_is_never_run(worker, desk):
    first = await held_up(desk, worker)
    rest = [asyncio.ensure_future(ask(worker, i)) for i in (1, 2, 3)]
    await asyncio.sleep(0)
    rest[1].cancel()
    await asyncio.wait([rest[1]], timeout=5)  # at once, although the thread is busy
    assert rest[1].cancelled()
    desk.go.set()
    await asyncio.gather(first, rest[0], rest[2])
    assert desk.batches == [[0], [1, 3]]


async def test_a_call_cancelled_while_it_runs_ends_when_it_is_done(worker, desk):
    first = await held_up(desk, worker)
    first.cancel()
    done, _ = await asyncio.wait([first], timeout=0.05)
    assert not done
    first.cancel()  # again: it still isn't settled
    await asyncio.sleep(0)
    desk.go.set()
    await asyncio.wait([first], timeout=5)
    assert first.cancelled()


async def test_stopping_finishes_what_was_asked_before(desk):
    worker = Worker("worker under test", desk.process, desk.close)
    first = await held_up(desk, worker)
    rest = [asyncio.ensure_future(ask(worker, i)) for i in range(1, 5)]
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(worker.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    desk.go.set()
    await asyncio.wait_for(stopping, 10)
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8]
    assert desk.closed == 1
    assert len(desk.threads) == 1


async def test_stopping_does_not_stall_the_loop(desk):
    worker = Worker("worker under test", desk.process, desk.close)
    first = await held_up(desk, worker)
    stopping = asyncio.ensure_future(worker.stop())
    for _ in range(5):
        await asyncio.sleep(0.005)
    assert not stopping.done()
    desk.go.set()
    await asyncio.gather(first, stopping)


async def test_a_dismissed_thread_ends_by_itself(desk):
    worker = Worker("worker under test", desk.process, desk.close)
    await ask(worker, 1)
    worker.dismiss()
    await asyncio.to_thread(worker._thread.join, 10)
    assert not worker._thread.is_alive()
    assert desk.closed == 1


async def test_what_was_asked_is_let_go_of_after_the_answer(worker):
    class Big:
        def __mul__(self, _):
            return 0

    alive = Big()
    await ask(worker, alive)
    await ask(worker, 1)
    gc.collect()
    assert not [job for job in gc.get_objects() if isinstance(job, Ask) and job.what is alive]


def test_a_loop_that_ended_meanwhile_is_no_trouble_for_the_next(desk):
    worker = None

    async def leave():
        nonlocal worker
        worker = Worker("worker under test", desk.process, desk.close)
        desk.go.clear()
        worker.submit(Ask(1))
        await asyncio.to_thread(desk.entered.wait, 10)

    asyncio.run(leave())
    desk.go.set()

    async def again():
        try:
            return await asyncio.wait_for(ask(worker, 2), 10)
        finally:
            await worker.stop()

    assert asyncio.run(again()) == 4


def test_several_loops_can_ask_one_worker(desk):
    worker = Worker("worker under test", desk.process, desk.close)
    answers = []

    async def many():
        return await asyncio.gather(*(ask(worker, i) for i in range(50)))

    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(many()))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [[2 * i for i in range(50)]] * 2
    worker.dismiss()
