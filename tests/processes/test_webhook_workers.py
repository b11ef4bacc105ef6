"""One bot behind a webhook, on several processes."""

import asyncio
import random
import re
import time
from uuid import uuid4

import aiohttp
import pytest
from child_processes import run_webhook_bot
from servers.process import accepts_connections, free_port

WORKERS, CHATS, UPDATES = 4, 10, 1000
TOKEN = "42:TEST"


@pytest.fixture
def ports(processes, backend):
    """Where the workers of the bot listen."""
    ports = [free_port() for _ in range(WORKERS)]
    prefix = f"{uuid4().hex}:"
    workers = [
        processes.Process(target=run_webhook_bot, args=(port, TOKEN, backend.url, prefix))
        for port in ports
    ]
    for worker in workers:
        worker.start()
    for port in ports:
        wait_for(port)
    yield ports
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            accepts_connections(port)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def update(number: int, chat_id: int) -> dict:
    person = {"id": chat_id, "is_bot": False, "first_name": "Ada"}
    chat = {"id": chat_id, "type": "private", "first_name": "Ada"}
    message = {"message_id": number, "date": 1, "chat": chat, "from": person, "text": "x"}
    return {"update_id": number, "message": message}


async def send(http: aiohttp.ClientSession, port: int, number: int, chat_id: int) -> int:
    """Deliver an update as Telegram does, and give the count that the bot answers with."""
    async with http.post(f"http://127.0.0.1:{port}/", json=update(number, chat_id)) as response:
        assert response.status == 200
        answer = await response.text()
    (count,) = re.findall(r'name="text"\s+(\d+)\s', answer)
    return int(count)


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
async def test_a_thousand_updates_to_random_workers_are_counted_right(ports):
    connector = aiohttp.TCPConnector(limit=100)  # Telegram makes up to 100 connections
    async with aiohttp.ClientSession(connector=connector) as http:

        async def chat(chat_id: int) -> list[int]:
            return await asyncio.gather(
                *(
                    send(http, random.choice(ports), number, chat_id)
                    for number in range(UPDATES // CHATS)
                )
            )

        counts = await asyncio.gather(*(chat(chat_id) for chat_id in range(1, CHATS + 1)))
    for told in counts:
        assert sorted(told) == list(range(1, UPDATES // CHATS + 1))


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
async def test_a_chat_whose_updates_wait_for_the_answer_to_the_last_keeps_its_order(ports):
    async with aiohttp.ClientSession() as http:

        async def chat(chat_id: int) -> list[int]:
            return [
                await send(http, random.choice(ports), number, chat_id)
                for number in range(UPDATES // CHATS)
            ]

        counts = await asyncio.gather(*(chat(chat_id) for chat_id in range(1, CHATS + 1)))
    for told in counts:
        assert told == list(range(1, UPDATES // CHATS + 1))
