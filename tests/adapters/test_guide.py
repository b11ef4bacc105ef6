"""The adapter that docs/guides/adapters.md shows keeps the storage contract, word for word."""

import re
import shelve
from pathlib import Path

import pytest

from gramkeep.storages.adapter import AdapterStorage
from gramkeep.testing.conformance import StorageConformance

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "adapters.md"


def first_block():
    (code, *_) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return code


class TestTheShelfOfTheGuide(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path):
        names = {}
        exec(compile(first_block(), GUIDE, "exec"), names)
        shelf = names["Shelf"](str(tmp_path / "sessions"))
        yield AdapterStorage(shelf)
        shelf.shelf.close()

    def reopen(self, storage):
        return AdapterStorage(storage.adapter)


def test_the_shelf_of_the_guide_needs_nothing_but_python():
    assert first_block().startswith("import shelve\nfrom pathlib import Path\n\n\nclass Shelf:")
    assert shelve.Shelf
