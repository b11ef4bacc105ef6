"""Bytes that are known to be what their data encodes to: which are, and for how long."""

from dataclasses import dataclass

import pytest

from gramkeep import (
    CompressedCodec,
    EncryptedCodec,
    JSONCodec,
    MemorySessionStorage,
    MessagePackCodec,
    Sessions,
)
from gramkeep.codec.checked import REMEMBERED, Checked


@dataclass
class Price:
    euros: float = 0.0


class Noting(MemorySessionStorage):
    def __init__(self):
        super().__init__()
        self.puts = 0

    async def put(self, puts, lease=None, *, atomic=False):
        self.puts += 1
        return await super().put(puts, lease, atomic=atomic)


async def test_data_that_loads_as_another_form_of_itself_is_not_written_when_it_is_only_read():
    storage = Noting()
    sessions = Sessions(initial=Price, storage=storage)
    async with sessions.open("42") as session:
        session.data = Price(5)  # stored as 5, and loaded as 5.0
    async with sessions.open("42") as session:
        assert session.data.euros == 5
    assert storage.puts == 1


@pytest.mark.parametrize(
    "codec",
    [JSONCodec(), MessagePackCodec(), EncryptedCodec([bytes(32)]), CompressedCodec()],
    ids=lambda codec: type(codec).__name__,
)
def test_what_was_checked_is_known_and_nothing_else_is(codec):
    bound = codec.bind(Price)
    encoded = bound.encode(Price(0.5), "key")
    assert not bound.is_canonical_form(encoded)
    bound.check(Price(0.5), encoded, "key")
    assert bound.is_canonical_form(encoded)
    assert not bound.is_canonical_form(encoded + b" ")


def test_what_loads_as_equal_but_not_as_the_same_is_not_known():
    bound = JSONCodec().bind(Price)
    encoded = bound.encode(Price(5), "key")
    bound.check(Price(5), encoded, "key")
    assert not bound.is_canonical_form(encoded)


def test_the_latest_are_remembered_and_no_more_than_two_generations():
    checked = Checked()
    texts = [b"%d" % number for number in range(5 * REMEMBERED)]
    for text in texts:
        checked.add(text)
    assert all(text in checked for text in texts[-REMEMBERED:])
    assert not any(text in checked for text in texts[: -2 * REMEMBERED])
    assert len(checked._latest) + len(checked._before) <= 2 * REMEMBERED
