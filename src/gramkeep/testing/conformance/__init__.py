"""The storage contract as tests: subclass `StorageConformance` and give it your storage.

```python
class TestMyStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path):
        return MyStorage(tmp_path / "sessions")

    def reopen(self, storage):
        return MyStorage(storage.path)
```

A storage that leases is held to its leases by one more: ``class TestMyStorage(StorageConformance,
LeaseConformance)``.

It needs pytest and pytest-asyncio, in either of its modes.
"""

from __future__ import annotations

import pytest

# The asserts are in other modules than the tests that run them, where pytest explains a failure
# only if told so before the import.
_PARTS = (
    *("base", "changes", "claims", "clients", "concurrency", "expiry", "keys", "leases"),
    *("lifecycle", "owners", "pruning", "values", "waiting"),
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

# ruff: noqa: E402 - see above
from gramkeep.storage import Storage
from gramkeep.testing.conformance.changes import Changes
from gramkeep.testing.conformance.claims import Claims
from gramkeep.testing.conformance.clients import ClientConformance
from gramkeep.testing.conformance.concurrency import Concurrency
from gramkeep.testing.conformance.expiry import Expiry
from gramkeep.testing.conformance.keys import Keys
from gramkeep.testing.conformance.leases import Leases
from gramkeep.testing.conformance.lifecycle import Lifecycle
from gramkeep.testing.conformance.pruning import Pruning
from gramkeep.testing.conformance.values import Values
from gramkeep.testing.conformance.waiting import Waiting

__all__ = ["ClientConformance", "LeaseConformance", "StorageConformance"]


@pytest.mark.asyncio
class LeaseConformance(Claims, Leases, Waiting):
    """What the contract asks of a storage that ``can_lease``. It stands beside the other tests.

    Its tests use the fixture and the hooks of `StorageConformance`.
    """


@pytest.mark.asyncio
class StorageConformance(Values, Changes, Expiry, Pruning, Keys, Concurrency, Lifecycle):
    """The storage contract. A storage that passes it keeps what `gramkeep.Storage` promises.

    A subclass provides:

    - a fixture ``storage``, sync or async: a new `Storage` that holds nothing. It closes the
      storage afterwards; closing twice is part of the contract.
    - ``reopen(storage)``, sync or async: a second storage object over the same data, which shares
      no connection with the first. A storage whose data lives in the object itself says
      ``reopens = False`` instead, and the tests that need two are skipped.
    - ``settling_seconds``, if `put` goes over a network: how long a cancelled one may take until
      the server has dropped it.
    - ``many``, if its server is too slow to be asked for 1000 keys at once.

    It inherits from `LeaseConformance` too if the storage says ``can_lease``; a test tells who
    forgets. A storage that isn't ``transactional`` isn't asked for writing all or none. One over a
    client that users may pass in has its `ClientConformance` too.
    """

    async def test_a_storage_that_leases_is_asked_about_leases(self, storage: Storage) -> None:
        is_asked = isinstance(self, LeaseConformance)
        assert is_asked == storage.can_lease, (  # noqa: S101 - a test suite asserts
            f"{storage.name} says can_lease = {storage.can_lease}: its tests are those of "
            f"StorageConformance {'and' if storage.can_lease else 'without'} LeaseConformance"
        )
