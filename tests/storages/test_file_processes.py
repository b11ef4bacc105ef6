"""Processes that are killed while they write to a folder."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

from gramkeep.storages.file import FileStorage

KILLS = 12

WRITER = """
    import asyncio, os, sys
    from gramkeep.storage import ANY, Put
    from gramkeep.storages.file import FileStorage

    async def write_on(storage, key, count):
        while True:
            count += 1
            value = b"%d " % count + bytes([count % 256]) * 20_000 + b" %d" % count
            await storage.put([Put(key, value, ANY, 3600 if count % 2 else None)])
            os.write(1, b"%s=%d\\n" % (key.encode(), count))

    async def main():
        storage = FileStorage(sys.argv[1])
        keys = ["42", "user:42", "-100:7", "k" * 300]
        await asyncio.gather(*(write_on(storage, key, int(sys.argv[2])) for key in keys))

    asyncio.run(main())
"""


def start_writer(path, count):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(count)],
        stdout=subprocess.PIPE,
    )


def written(count):
    return b"%d " % count + bytes([count % 256]) * 20_000 + b" %d" % count


async def test_kills_amid_writes_leave_whole_sessions_that_are_no_older_than_answered(tmp_path):
    path = tmp_path / "sessions"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    answered = {}
    torn_temporaries = 0
    for round_ in range(KILLS):
        writer = start_writer(path, max(answered.values(), default=0))
        output = writer.stdout.readline()
        killing = threading.Timer(chance.uniform(0.02, 0.2), os.kill, (writer.pid, signal.SIGKILL))
        killing.start()
        output += writer.communicate(timeout=60)[0]
        killing.join()
        for line in output.decode().splitlines(keepends=True):
            if line.endswith("\n"):
                key, _, count = line.rpartition("=")
                answered[key] = int(count)
        torn_temporaries += len(list(path.rglob("*.tmp")))

        storage = FileStorage(path)
        keys = [key async for key in storage.scan()]
        assert len(keys) == len(set(keys)), f"seed {seed}, round {round_}"
        assert set(keys) >= answered.keys(), f"seed {seed}, round {round_}"
        for key, record in zip(keys, await storage.get(keys), strict=True):
            count = int(record.value.partition(b" ")[0])
            is_whole = record.value == written(count)
            assert is_whole, f"seed {seed}, round {round_}"
            assert (record.expires_at is not None) is bool(count % 2)
            assert count >= answered.get(key, 0), f"seed {seed}, round {round_}"
        await storage.aclose()
    assert len(answered) == 4
    assert max(answered.values()) > KILLS
    assert torn_temporaries > 0  # some were hit while they wrote


async def test_nobody_sees_half_a_session_while_it_is_written(tmp_path):
    path = tmp_path / "sessions"
    writer = start_writer(path, 0)
    reader = FileStorage(path)
    seen = set()
    try:
        for _ in range(4):
            writer.stdout.readline()  # all keys are there
        until = time.monotonic() + 1.5
        while time.monotonic() < until or len(seen) < 2:
            keys = [key async for key in reader.scan()]
            assert "42" in keys
            for name in (path / "42").iterdir():
                assert name.suffix in {".json", ".tmp"}
            for record in await reader.get(keys):
                count = int(record.value.partition(b" ")[0])
                is_whole = record.value == written(count)
                assert is_whole
                seen.add(count)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
        await reader.aclose()
