"""grammY's own packages, run by Node.js, to write what is read here and to read what is written."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from gramkeep.storage import ANY, Put

GOLDEN = Path(__file__).parent / "golden"

with_node = pytest.mark.skipif(
    not shutil.which("node"), reason="needs Node.js, for which make test installs grammY"
)

CASES = [
    *({"key": key, "value": {"count": 1}} for key in ("42", "-100123:7", "user:42", "ключ", "a😀")),
    {"key": "list", "value": [1, "two", None, {"three": []}]},
    {"key": "version", "value": {"a": 1}, "enhance": {"migrations": [1, 2]}},
    {"key": "expiry", "value": {"a": 1}, "enhance": {"millisecondsToLive": 60_000}},
    {
        "key": "both",
        "value": {"a": {"__d": 1}},
        "enhance": {"migrations": [1, 2], "millisecondsToLive": 60_000},
    },
]
"""Sessions for any storage: keys and values, and how `enhanceStorage` is set up for them."""


def recorded(file):
    """Give what was recorded from the originals; see ``tests/golden/README.md``."""
    return json.loads((GOLDEN / file).read_text("utf-8"))


async def run_node(script, storage, cases, **environment):
    """Have one of the scripts in ``tests/golden`` do its work, and give what it prints."""
    process = await asyncio.create_subprocess_exec(
        *("node", script, storage, "-"),
        cwd=GOLDEN,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps({"cases": cases}).encode())
    assert process.returncode == 0, (output + errors).decode()
    return output


def put_of(case):
    """Give what gramkeep would store for a case: versions in an envelope, a lifetime beside it."""
    options = case.get("enhance", {})
    value = case["value"]
    if "migrations" in options:
        value = {"v": max(options["migrations"]), "__d": value}
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Put(case["key"], encoded, ANY, options.get("millisecondsToLive", 0) / 1000 or None)


def lasting(cases):
    """Leave out what expires: its moment differs from run to run."""
    return [case for case in cases if "millisecondsToLive" not in case.get("enhance", {})]
