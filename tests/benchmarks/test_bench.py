"""The benchmark runs, stops when told to, and its page is what its results give."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
LATEST = ROOT / "benchmarks/results/latest.json"
PAGE = ["performance.md", "assets/performance-updates.svg", "assets/performance-latencies.svg"]
MARK = "GRAMKEEP_BENCH_TEST"


@pytest.fixture
def bench(tmp_path):
    """Start the benchmark in an environment by which its processes can be found."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "TMPDIR": str(scratch),
        MARK: uuid.uuid4().hex,
    }

    started = []

    def bench(*words):
        command = [sys.executable, "-m", "benchmarks", *map(str, words)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield bench
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
    assert not list(scratch.iterdir()), "folders were left"
    assert not marked(environment[MARK]), "processes were left"


def marked(value):
    """Find the processes that have inherited the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={value}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass  # it has just ended, or is somebody else's
    return found


def test_a_tiny_run_measures_all_that_are_there_and_says_why_others_are_not(bench, tmp_path):
    results = tmp_path / "results.json"
    plan = ("tiny", "--only", "memory,sqlite", "--no-install", "--results", results)
    process = bench(*plan, "--docs", tmp_path / "docs")
    _, told = process.communicate(timeout=110)
    assert process.returncode == 0, told
    found = json.loads(results.read_text("utf-8"))
    closed = {(loop["family"], loop["name"], loop["concurrency"]) for loop in found["closed"]}
    for one in found["contenders"]:
        for level in (1, 16):
            is_there = (one["family"], one["name"], level) in closed
            assert is_there == (not one["reason"]), one
    for name in ("gramkeep", "aiogram FSM", "pyTelegramBotAPI states"):
        assert ("memory", name, 16) in closed
    assert ("sqlite", "gramkeep, NORMAL", 1) in closed
    for loop in found["closed"]:
        for one in loop["rounds"]:
            assert one["rate"] > 0
            assert 0 < one["p50"] <= one["p99"] <= one["p999"]
    steps = {(step["family"], step["concurrency"]): step["longest"] for step in found["steps"]}
    assert set(steps) == {(family, level) for family in ("memory", "sqlite") for level in (1, 16)}
    assert all(longest > 0 for longest in steps.values())
    page = (tmp_path / "docs/performance.md").read_text("utf-8")
    assert "| Memory | aiogram FSM |" in page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing_behind(bench, tmp_path, number):
    results = tmp_path / "results.json"
    process = bench("tiny", "--only", "redis", "--no-install", "--results", results)
    for line in process.stderr:
        if "at once" in line:
            break
    process.send_signal(number)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not results.exists()


def test_the_page_is_made_of_recorded_results(bench, tmp_path):
    process = bench("page", "--results", RECORDED, "--docs", tmp_path / "docs")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    page = (tmp_path / "docs/performance.md").read_text("utf-8")
    ratios = ["0.75 (0.50 to 1.00)", "2.00 (1.50 to 2.50)"]
    assert row(page, "Redis", "grammY") == ["4,000", "50,000", "20", *ratios]
    wanted = "updates a second ≥ {} times those of grammY"
    assert row(page, "Redis", "1", wanted.format("0.9")) == [ratios[0], "**missed**"]
    assert row(page, "Redis", "128", wanted.format("1.8")) == [ratios[1], "✓"]
    assert row(page, "Redis", "128", "no stall of the event loop > 10 ms")[0] == "12.0 ms"
    assert "fell behind by 25%" in page
    assert "npm's package @gramio/storage-redis wasn't to be had" in page
    for name in PAGE[1:]:
        assert (tmp_path / "docs" / name).read_text("utf-8").startswith("<svg")


def test_the_page_of_the_documentation_is_what_the_latest_results_give(bench, tmp_path):
    process = bench("page", "--results", LATEST, "--docs", tmp_path / "docs")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    for name in PAGE:
        made = (tmp_path / "docs" / name).read_text("utf-8")
        assert (ROOT / "docs" / name).read_text("utf-8") == made, (
            f"docs/{name} is out of date: `python -m benchmarks page` makes it"
        )


STEPS = """
import asyncio, time
from benchmarks.python_worker.gauges import StepGauge

async def main():
    waiting = []
    for _ in range(5):  # of which the machine may hold some up
        with StepGauge() as gauge:
            await asyncio.gather(*(asyncio.sleep(0.02) for _ in range(10)))
            waiting.append(gauge.longest)
    print(min(waiting))
    with StepGauge() as gauge:
        asyncio.get_running_loop().call_soon(time.sleep, 0.05)
        await asyncio.sleep(0.01)
        print(gauge.longest)

asyncio.run(main())
"""


def test_a_step_that_holds_the_event_loop_up_is_seen():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STEPS]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    waiting, held_up = map(float, process.stdout.split())
    assert 0 < waiting < held_up
    assert held_up >= 0.04


def row(page, *cells):
    """Find the first row that begins with these cells, and give the others."""
    start = f"| {' | '.join(cells)} | "
    found = next(line for line in page.splitlines() if line.startswith(start))
    return found.removeprefix(start).removesuffix(" |").split(" | ")
