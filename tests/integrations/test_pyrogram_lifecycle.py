"""Starting and stopping clients of Pyrogram: their sessions are opened, waited for and closed."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import textwrap
from contextlib import closing

import pytest
from integrations.drivers.events import ADA
from integrations.drivers.handlers import Gate, until
from integrations.drivers.pyrogram import Offline, new_message
from pyrogram import Client, StopPropagation

from gramkeep import Sessions, StorageUnavailable
from gramkeep.integrations.pyrogram import session


def client() -> Client:
    return Client("bot", api_id=1, api_hash="x", bot_token="42:x")


async def test_hooks_for_start_and_stop_find_the_sessions_open(sqlite_url):
    app = client()
    Offline(app, print)
    lists = session(initial=list, storage=sqlite_url)
    lists.setup(app)

    @app.on_start()
    async def begin(client):
        await lists.sessions.update("log", lambda log: [*log, "started"])

    @app.on_stop()
    async def end(client):
        await lists.sessions.update("log", lambda log: [*log, "stopped"])

    for _ in range(2):
        async with app:
            pass
        with pytest.raises(StorageUnavailable, match="it was closed"):
            await lists.sessions.get("log")
    async with Sessions(initial=list, storage=sqlite_url) as sessions:
        assert await sessions.get("log") == ["started", "stopped"] * 2


async def test_a_client_that_restarts_counts_on(sqlite_url):
    app = client()
    sent: list[str] = []
    telegram = Offline(app, sent.append)
    session(initial=list, storage=sqlite_url).setup(app)

    @app.on_message()
    async def count(client, message, session):
        session.append(message.id)
        await message.reply(str(len(session)))

    async with app:
        for _ in range(3):
            await telegram.deliver(new_message(ADA, "x", ADA))
            await app.restart()
    assert sent == ["1", "2", "3"]


async def test_a_client_leaves_ready_sessions_open():
    app = client()
    Offline(app, print)
    async with Sessions(initial=list, storage="memory://") as ready:
        session(ready).setup(app)
        async with app:
            pass
        assert await ready.get("x") is None


async def test_a_handler_may_stop_its_client_and_is_saved(sqlite_url):
    app = client()
    telegram = Offline(app, print)
    session(initial=list, storage=sqlite_url).setup(app)
    begun = Gate()

    @app.on_message()
    async def stop(client, message, session):
        await client.stop(block=False)
        begun.open()
        await asyncio.sleep(0.01)
        session.append("stopped")
        raise StopPropagation

    await app.start()
    await telegram.deliver(new_message(ADA, "x", ADA))
    await begun.passed()
    await until(lambda: not app.is_connected)
    async with Sessions(initial=list, storage=sqlite_url) as sessions:
        assert await sessions.get(str(ADA.id)) == ["stopped"]


async def test_stopping_waits_for_work_outside_of_handlers_that_holds_a_session(sqlite_url):
    app = client()
    Offline(app, print)
    lists = session(initial=list, storage=sqlite_url)
    lists.setup(app)

    async def work() -> None:
        async with lists.sessions.open("work") as opened:
            await asyncio.sleep(0.05)
            opened.data.append("done")

    async with app:
        working = asyncio.create_task(work())
    await working
    async with Sessions(initial=list, storage=sqlite_url) as sessions:
        assert await sessions.get("work") == ["done"]


async def test_two_clients_in_one_process_share_ready_sessions_and_lose_nothing():
    async with Sessions(initial=list, storage="memory://") as ready:
        bots = []
        for _ in range(2):
            app = client()
            bots.append((app, Offline(app, print)))
            session(ready).setup(app)

            @app.on_message()
            async def note(client, message, session):
                before = list(session)
                await asyncio.sleep(0.001)
                session[:] = [*before, str(message.text)]

        (one, of_one), (other, of_other) = bots
        async with one, other:
            for number in range(10):
                for telegram in (of_one, of_other):
                    await telegram.deliver(new_message(ADA, str(number), ADA))
        assert sorted(await ready.get(str(ADA.id))) == sorted(map(str, [*range(10)] * 2))


async def test_a_process_that_runs_a_client_is_stopped_by_sigterm_when_its_handlers_are_done(
    tmp_path,
):
    program = textwrap.dedent(
        """
        import asyncio, signal
        from integrations.drivers.events import ADA
        from integrations.drivers.pyrogram import Offline, new_message
        from pyrogram import Client
        from gramkeep.integrations.pyrogram import session

        app = Client("bot", api_id=1, api_hash="x", bot_token="42:x")
        telegram = Offline(app, print)
        session(initial=list, storage="sqlite:///bot.db").setup(app)

        @app.on_message()
        async def note(client, message, session):
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                await asyncio.sleep(0.001)  # until Pyrogram listens to it
            print("begun", flush=True)
            await asyncio.sleep(0.3)
            session.append(str(message.text))

        @app.on_message(group=1)
        def plain(client, message, session):
            session.append("in a thread")

        @app.on_start()
        async def write(client):
            await telegram.deliver(new_message(ADA, "a", ADA), new_message(ADA, "b", ADA))

        app.run()
        """
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    with closing(sqlite3.connect(tmp_path / "bot.db")) as connection:
        ((value,),) = connection.execute("SELECT value FROM gramkeep_sessions").fetchall()
    assert json.loads(value) == ["a", "in a thread", "b", "in a thread"]
