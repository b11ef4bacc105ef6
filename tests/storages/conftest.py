"""What tests of several storages need."""

import pytest


@pytest.fixture
async def opening():
    """Make storages of any class, to be closed after the test."""
    made = []

    def make(storage_class, place, **options):
        made.append(storage_class(place, **options))
        return made[-1]

    yield make
    for storage in made:
        await storage.aclose()
