"""Answers that wake their tasks at once, whatever those do then."""

import asyncio
from contextvars import ContextVar, copy_context

import pytest
from servers.redis import redis_server, redis_url

from gramkeep.storage import ANY, Put
from gramkeep.storages.redis import RedisStorage
from gramkeep.storages.redis.answers import Answer, wake, wake_soon
from gramkeep.storages.redis.calls import command_of

__all__ = ["redis_server", "redis_url"]

PLACE = ContextVar("place", default="nowhere")


@pytest.fixture
async def storage(redis_url):
    storage = RedisStorage.from_url(redis_url)
    await storage.put([Put(f"key {n}", b"%d" % n, ANY) for n in range(50)])
    yield storage
    await storage.aclose()


def answer_in(queue):
    answer = Answer(command_of(b"PING"), queue, loop=asyncio.get_running_loop())
    queue.append(answer)
    return answer


async def test_a_task_that_is_woken_goes_on_in_its_own_context(storage):
    async def read(n):
        PLACE.set(n)
        for _ in range(3):
            await storage.get([f"key {n}"])
            assert PLACE.get() == n
            assert asyncio.current_task().get_name() == f"reader {n}"

    tasks = [asyncio.create_task(read(n), name=f"reader {n}") for n in range(50)]
    await asyncio.gather(*tasks)
    assert PLACE.get() == "nowhere"


async def test_a_task_that_fails_when_it_is_woken_disturbs_no_other(storage):
    async def read(n):
        (record,) = await storage.get([f"key {n}"])
        if n % 2:
            raise ValueError(n)
        return record.value

    outcomes = await asyncio.gather(*map(read, range(50)), return_exceptions=True)
    assert outcomes[::2] == [b"%d" % n for n in range(0, 50, 2)]
    assert all(isinstance(outcome, ValueError) for outcome in outcomes[1::2])


async def test_of_several_that_are_woken_those_behind_one_that_leaves_come_in_the_next_turn():
    woken = []

    def leave(_):
        raise SystemExit

    answers = [answer_in([]) for _ in range(3)]
    for answer, waiter in zip(answers, (woken.append, leave, woken.append), strict=True):
        answer.add_done_callback(waiter, context=copy_context())
        answer.set_result(None)
    with pytest.raises(SystemExit):
        wake(answers)
    assert woken == answers[:1]
    await asyncio.sleep(0)
    assert woken == [answers[0], answers[2]]


async def test_a_task_is_woken_once_however_often_it_is_told():
    answer = answer_in([])
    waiting = asyncio.create_task(asyncio.wait_for(answer_of(answer), 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result(7)
    wake_soon([answer, answer])
    assert await waiting == 7
    answer.wake()


async def answer_of(answer):
    return await answer


async def test_an_answer_serves_as_any_future_to_others_than_a_task():
    answer = answer_in([])
    told = []
    answer.add_done_callback(told.append)
    answer.set_result(1)
    assert told == []
    await asyncio.sleep(0)
    assert told == [answer]
    assert await answer == 1


async def test_only_what_still_waits_to_be_sent_can_be_taken_back():
    queue = []
    first, second = answer_in(queue), answer_in(queue)
    assert first.cancel()
    assert queue == [second]
    assert first.cancelled()
    queue.clear()  # sent
    assert not second.cancel()
    assert not second.done()
