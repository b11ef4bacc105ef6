"""What grammY's enhanceStorage did and stored, recorded in tests/golden, and what is done here."""

import json
from pathlib import Path

import pytest

from gramkeep import ConfigurationError, NewerSessionVersion, SessionDecodeError
from gramkeep.enhance import enhance_storage

from .kinds import Listing

GRAMMY = Path(__file__).parents[1] / "golden" / "grammy"


def recorded(name):
    return json.loads((GRAMMY / f"{name}.json").read_text("utf-8"))


def enhanced(adapter, options):
    def step(number):
        return lambda old: {**old, "path": [*old.get("path", []), number]}

    lifetime = options.get("millisecondsToLive", "Infinity")
    return enhance_storage(
        storage=adapter,
        migrations={number: step(number) for number in options.get("migrations", [])},
        time_to_live=None if lifetime == "Infinity" else lifetime / 1000,
    )


CASES = {case["name"]: case for case in recorded("enhance")["cases"] if "operation" in case}

OWN = {"__d": {"inner": 1}, "name": "x"}
D = {"name": "x"}

# What is read here where grammY reads something else, and why.
DIFFERENT_READS = {
    # a user's own data, not an envelope
    "bare with its own __d is taken for an envelope": OWN,
    "bare with its own __d, v and e": {**OWN, "v": 1, "e": 1_000_009, "path": [1, 2]},
    "unknown fields of an envelope are kept by a write-back": {"__d": D, "x": 1},
    "version as text": {"v": "1", "__d": D, "path": [1, 2]},
    # what has expired is not there, with the option and without it
    "envelope, no option": None,
    "expired, without the expiry option": None,
    # an expiry of null is none, as MongoDB stores an infinite one
    "expiry null": D,
    # fractions are versions like others, each run once
    "fractional versions are cut: 1 runs twice, 1.5 never": {**D, "path": [1, 1.5]},
    "fractional versions are cut: there is no 2": {**D, "path": [1, 1.5, 2.5]},
    # no migrations are none
    "no migrations given": D,
    # None is "not there", so there is nothing to migrate
    "bare null, version": None,
}
NEWER = {
    "envelope of a newer version: nothing runs",
    "envelope without expiry: written back with one",  # of version 1, where there are no migrations
}


def named(operation):
    return [name for name, case in CASES.items() if case["operation"] == operation]


@pytest.mark.parametrize("name", named("read"))
async def test_what_grammy_reads_is_read_and_reading_writes_nothing(clock, name):
    case = CASES[name]
    clock.now = case["now"]
    adapter = Listing({"k": case["stored"]} if "stored" in case else {})
    before = json.dumps(adapter.data)
    storage = enhanced(adapter, case["options"])
    if name in NEWER:
        with pytest.raises(NewerSessionVersion):
            await storage.read("k")
    else:
        expected = DIFFERENT_READS.get(name, case.get("result"))
        assert await storage.read("k") == expected
    assert json.dumps(adapter.data) == before


def test_every_difference_is_of_a_case_that_was_recorded():
    assert DIFFERENT_READS.keys() | NEWER <= set(named("read"))


@pytest.mark.parametrize("name", named("write"))
async def test_what_grammy_writes_is_written_to_the_letter(clock, name):
    case = CASES[name]
    clock.now = case["now"]
    adapter = Listing({"k": case["stored"]} if "stored" in case else {})
    if case["options"].get("millisecondsToLive") == 0:
        with pytest.raises(ConfigurationError, match="time_to_live=0"):
            enhanced(adapter, case["options"])
        return
    await enhanced(adapter, case["options"]).write("k", case["value"])
    assert json.dumps(adapter.data["k"]) == json.dumps(case["after"])  # in the same order


STORED = [
    pytest.param(recording["recorded_with"]["now"], entry, id=f"{name} {entry['key']}")
    for name in ("redis", "psql", "file")
    for recording in [recorded(name)]
    for entry in recording["entries"]
    if "enhance" in entry
]


@pytest.mark.parametrize(("now", "entry"), STORED)
async def test_values_that_grammys_storages_hold_are_read(clock, now, entry):
    clock.now = now + 2000
    adapter = Listing({"k": json.loads(entry["raw"])})
    value = await enhanced(adapter, entry["enhance"]).read("k")
    if entry["key"].startswith("legacy_") and entry["key"].endswith(":own_d"):
        # grammY takes it for an envelope and loses the name
        assert value["__d"] == {"inner": 1}
        assert value["name"] == "the user's own __d"
    else:
        assert value == entry.get("value")


@pytest.mark.parametrize(
    ("now", "entry"),
    [case for case in STORED if not case.values[1]["key"].startswith(("legacy_", "expired"))],
)
async def test_values_are_written_as_grammys_storages_hold_them(clock, now, entry):
    clock.now = now
    adapter = Listing()
    await enhanced(adapter, entry["enhance"]).write("k", entry["value"])
    assert json.dumps(adapter.data["k"]) == json.dumps(json.loads(entry["raw"]))


async def test_a_migration_that_fails_names_the_key_and_itself(clock):
    def broken(old):
        return old["nothing"]

    storage = enhance_storage(storage=Listing({"k": D}), migrations={3: broken})
    with pytest.raises(SessionDecodeError, match="migration broken to version 3 raised Key") as e:
        await storage.read("k")
    assert (e.value.key, e.value.storage) == ("k", "Listing")
