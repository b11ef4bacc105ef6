"""The storage that docs/storages/custom.md shows keeps the contract, as its reader would see it."""

import re
from pathlib import Path

import pytest

from gramkeep.testing.conformance import StorageConformance

from .example import OneFileStorage

HERE = Path(__file__)
GUIDE = HERE.parents[2] / "docs" / "storages" / "custom.md"

pytest_plugins = ["pytester"]


# The guide's own test, word for word.
class TestOneFileStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path):
        return OneFileStorage(tmp_path / "sessions.json")

    def reopen(self, storage):
        return OneFileStorage(storage.path)


def blocks():
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_the_guide_shows_the_storage_that_is_tested():
    assert HERE.with_name("example.py").read_text() in blocks()


def test_the_guide_shows_the_test_that_is_run():
    imports, test = next(block for block in blocks() if "TestOneFileStorage" in block).split(
        "\n\n\n"
    )
    assert test in HERE.read_text()
    assert "from gramkeep.testing import StorageConformance" in imports


@pytest.fixture
def elsewhere(pytester):
    """Somebody else's project: no configuration of ours, pytest-asyncio in strict mode."""
    pytester.makeini(
        """
        [pytest]
        asyncio_mode = strict
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
        """
    )
    pytester.makepyfile(one_file_storage=HERE.with_name("example.py").read_text())
    return pytester


def run(elsewhere, *options):
    return elsewhere.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_the_guides_test_passes_in_a_project_in_strict_mode(elsewhere):
    (test,) = (block for block in blocks() if "class TestOneFileStorage" in block)
    elsewhere.makepyfile(test_one_file=test)
    result = run(elsewhere, "-k", "handle or order or atomic or cancelled")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed", "deselected"}
    assert outcomes["passed"] > 10


def test_a_broken_promise_is_explained_with_the_values_compared(elsewhere):
    elsewhere.makepyfile(
        test_broken="""
        import pytest
        import pytest_asyncio
        from gramkeep.testing import StorageConformance
        from one_file_storage import OneFileStorage

        class ReadsBackwards(OneFileStorage):
            async def get(self, keys):
                return (await super().get(keys))[::-1]

        class TestReadsBackwards(StorageConformance):
            @pytest_asyncio.fixture
            async def storage(self, tmp_path):
                storage = ReadsBackwards(tmp_path / "sessions.json")
                yield storage
                await storage.aclose()
        """
    )
    result = run(elsewhere, "-k", "test_answers_come_in_the_order or test_what_was_stored_outlives")
    assert set(result.parseoutcomes()) == {"failed", "deselected"}
    for explanation in (
        "E *assert [[]b'b', None, b'a', None, b'c'[]] == [[]b'c', None, b'a', None, b'b'[]]",
        "E *Failed: TestReadsBackwards must define reopen(self, storage), *",
    ):
        result.stdout.fnmatch_lines([explanation])
