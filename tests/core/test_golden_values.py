"""Sessions as grammY's and GramIO's Redis and PostgreSQL storages keep them: JSON under a key."""

import json
from pathlib import Path

import pytest

from gramkeep import Sessions
from gramkeep.storage import ANY, Put

GOLDEN = Path(__file__).parents[1] / "golden"


def recorded():
    for store in ("redis", "psql"):
        entries = json.loads((GOLDEN / "grammy" / f"{store}.json").read_text())["entries"]
        for entry in entries:
            # Lone surrogates, which JavaScript can store, are no text in Python.
            if entry["key"].startswith("plain:") and "\\ud83c" not in entry["raw"]:
                yield pytest.param(entry["raw"], entry["value"], id=f"{store}-{entry['key']}")
    for key, raw in json.loads((GOLDEN / "gramio" / "redis.json").read_text()).items():
        yield pytest.param(raw, json.loads(raw), id=f"gramio-{key}")


@pytest.mark.parametrize(("raw", "value"), [*recorded()])
async def test_what_they_wrote_is_read_left_alone_and_written_as_they_read_it(storage, raw, value):
    await storage.put([Put("chat", raw.encode(), ANY)])
    storage.puts.clear()
    sessions = Sessions(storage=storage)
    async with sessions.open("chat") as session:
        assert session.data == value
    assert storage.puts == []  # equal data is left in their spelling
    if value is None:
        return
    async with sessions.open("chat") as session:
        session.data = {"inside": session.data}
    assert json.loads(await storage.value("chat")) == {"inside": value}
