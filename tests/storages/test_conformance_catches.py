"""Every test of the conformance suite fails on some storage that is broken in one way."""

import pytest

from gramkeep.testing import conformance
from gramkeep.testing.conformance import base

from .broken import (
    changes,
    claims,
    concurrency,
    expiry,
    keys,
    leases,
    lifecycle,
    pruning,
    values,
    waiting,
)
from .broken.unbroken import Unbroken

BREAKAGES = [
    pytest.param(broken, test, arguments, id=f"{broken.__name__}-{test}")
    for part in (
        *(values, changes, expiry, pruning, keys),
        *(concurrency, claims, leases, waiting, lifecycle),
    )
    for broken in vars(part).values()
    if isinstance(broken, type)
    for test, *arguments in vars(broken).get("caught_by", ())
]


class TestUnbroken(conformance.StorageConformance, conformance.LeaseConformance):
    @pytest.fixture
    def storage(self):
        return Unbroken()

    def reopen(self, storage):
        return storage.reopen()


@pytest.fixture
def impatience(monkeypatch):
    monkeypatch.setattr(base, "PATIENCE", 1.0)


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize(("broken", "test", "arguments"), BREAKAGES)
async def test_the_suite_fails_on_a_broken_storage(broken, test, arguments):
    with pytest.raises(AssertionError):
        await getattr(TestUnbroken(), test)(broken(), *arguments)


def names_of_tests(suite):
    return {name for name in dir(suite) if name.startswith("test_")}


def test_every_test_of_the_suite_is_seen_to_fail():
    seen = {breakage.values[1] for breakage in BREAKAGES}
    assert seen == names_of_tests(TestUnbroken)


async def test_what_settles_as_late_as_declared_passes():
    class Suite(TestUnbroken):
        settling_seconds = 0.02

    await Suite().test_a_cancelled_put_is_settled(concurrency.WritesOnAfterCancelling())


async def test_reopen_may_be_async():
    class Suite(TestUnbroken):
        async def reopen(self, storage):
            return storage.reopen()

    await Suite().test_a_second_handle_sees_what_the_first_does(Unbroken())


async def test_what_is_not_declared_is_skipped_with_the_reason():
    class DeclaresNothing(Unbroken):
        transactional = False

    class Suite(TestUnbroken):
        reopens = False

    with pytest.raises(pytest.skip.Exception, match="dict: doesn't declare itself transactional"):
        await Suite().test_one_refusal_undoes_an_atomic_put(DeclaresNothing())
    with pytest.raises(pytest.skip.Exception, match="lives in the storage object itself"):
        await Suite().test_what_was_stored_outlives_the_handle(Unbroken())


class Client:
    """What a user would make and pass in."""

    def __init__(self):
        self.open = True
        self.data = {}


class OverClient(Unbroken):
    def __init__(self, client):
        super().__init__(client.data)
        self.client = client


class ClosesTheClient(OverClient):
    async def aclose(self):
        self.client.open = False


class ForgetsTheData(OverClient):
    async def aclose(self):
        self.data.clear()


class TestOverClient(conformance.ClientConformance):
    @pytest.fixture
    def client(self):
        return Client()

    def storage_over(self, client):
        return OverClient(client)

    def is_open(self, client):
        return client.open


CLIENT_BREAKAGES = [
    ("test_a_client_the_user_made_stays_open", ClosesTheClient),
    ("test_a_client_stays_open_when_nothing_was_stored", ClosesTheClient),
    ("test_storages_over_one_client_share_its_data", ForgetsTheData),
]


@pytest.mark.parametrize(("test", "broken"), CLIENT_BREAKAGES)
async def test_the_client_suite_fails_on_a_broken_storage(test, broken):
    suite = TestOverClient()
    suite.storage_over = broken
    with pytest.raises(AssertionError):
        await getattr(suite, test)(Client())


def test_every_test_of_the_client_suite_is_seen_to_fail():
    assert {test for test, _ in CLIENT_BREAKAGES} == names_of_tests(conformance.ClientConformance)
