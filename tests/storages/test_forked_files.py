"""Storages in files that a forked process inherits: their threads and connections stay behind."""

import asyncio
import subprocess
import sys

import pytest

from gramkeep.storage_url import storage_from_url

PROGRAM = """
import asyncio, os, sys, warnings
from gramkeep.storage import ANY, Put
from gramkeep.storage_url import storage_from_url

storage = storage_from_url(sys.argv[1])

async def put(key):
    await storage.put([Put(key, b"1", ANY)])
    return [record is not None for record in await storage.get(["parent", "child"])]

async def put_and_close():
    assert await put("child") == [True, True]
    await storage.aclose()

def in_child(coroutine):
    child = os.fork()
    if child == 0:
        asyncio.run(asyncio.wait_for(coroutine, 20))
        sys.exit(0)
    coroutine.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

asyncio.run(put("parent"))
warnings.simplefilter("ignore")  # that this program has threads is the point
in_child(put_and_close())
assert asyncio.run(put("parent")) == [True, True]
in_child(storage.aclose())  # of what it inherited
assert asyncio.run(put("parent")) == [True, True]
asyncio.run(storage.aclose())
"""


@pytest.mark.parametrize("url", ["sqlite:///{}/bot.db", "file://{}/sessions"])
async def test_a_forked_child_uses_and_closes_what_it_inherited_for_itself(tmp_path, url):
    url = url.format(tmp_path)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", PROGRAM, url], stderr=subprocess.PIPE, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    storage = storage_from_url(url)
    assert sorted([key async for key in storage.scan()]) == ["child", "parent"]
    await storage.aclose()
