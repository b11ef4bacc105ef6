"""The storage contract as tests: subclass `StorageConformance` and give it your storage.

```python
class TestMyStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path):
        return MyStorage(tmp_path / "sessions")

    def reopen(self, storage):
        return MyStorage(storage.path)
```

It needs pytest and pytest-asyncio, in either of its modes.
"""

from __future__ import annotations

import pytest

# The asserts are in other modules than the tests that run them, where pytest explains a failure
# only if told so before the import.
_PARTS = (
    *("base", "changes", "claims", "clients", "concurrency", "expiry", "keys", "leases"),
    *("lifecycle", "owners", "values", "waiting"),
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

# ruff: noqa: E402 - see above
from gramkeep.testing.conformance.changes import Changes
from gramkeep.testing.conformance.claims import Claims
from gramkeep.testing.conformance.clients import ClientConformance
from gramkeep.testing.conformance.concurrency import Concurrency
from gramkeep.testing.conformance.expiry import Expiry
from gramkeep.testing.conformance.keys import Keys
from gramkeep.testing.conformance.leases import Leases
from gramkeep.testing.conformance.lifecycle import Lifecycle
from gramkeep.testing.conformance.values import Values
from gramkeep.testing.conformance.waiting import Waiting

__all__ = ["ClientConformance", "StorageConformance"]


@pytest.mark.asyncio
class StorageConformance(
    Values, Changes, Expiry, Keys, Concurrency, Claims, Leases, Waiting, Lifecycle
):
    """The storage contract. A storage that passes it keeps what `gramkeep.Storage` promises.

    A subclass provides:

    - a fixture ``storage``, sync or async: a new `Storage` that holds nothing. It closes the
      storage afterwards; closing twice is part of the contract.
    - ``reopen(storage)``, sync or async: a second storage object over the same data, which shares
      no connection with the first. A storage whose data lives in the object itself says
      ``reopens = False`` instead, and the tests that need two are skipped.
    - ``settling_seconds``, if `put` goes over a network: how long a cancelled one may take until
      the server has dropped it.

    What the storage's class declares, ``transactional`` and ``can_lease``, decides what else is
    asked of it. A storage over a client that users may pass in has its `ClientConformance` too.
    """
