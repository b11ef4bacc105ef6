"""Large sessions are compressed, small ones stay readable, and both are told apart."""

import os
import zlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import CodecError, ConfigurationError, JSONCodec
from gramkeep.codec import BoundCodec, Codec, CompressedCodec, MessagePackCodec

from .keeping import Kept, keep


@dataclass
class Log:
    lines: list[str]


SMALL = Log(["hello"])
LARGE = Log(["the same line"] * 1000)


class RawCodec(Codec):
    """Bytes as they are: whatever a codec may make."""

    def bind(self, data_type):
        return BoundRaw()


class BoundRaw(BoundCodec):
    def encode(self, value, key):
        return value

    def decode(self, data, key):
        return data


def refusal(bound, stored):
    with pytest.raises(CodecError) as caught:
        Kept(bound, "key", stored).load()
    return caught.value.reason


def test_small_sessions_stay_readable(codec):
    stored = keep(CompressedCodec(codec).bind(Log), SMALL).stored
    assert stored == keep(codec.bind(Log), SMALL).stored


def test_large_sessions_take_less_and_load_again(codec):
    kept = keep(CompressedCodec(codec).bind(Log), LARGE)
    assert len(kept.stored) < 300
    assert kept.load() == LARGE
    assert kept.changed_to(kept.load()) is kept
    assert kept.changed_to(SMALL).stored == keep(codec.bind(Log), SMALL).stored


def test_the_layout_is_the_documented_one():
    stored = keep(CompressedCodec().bind(Log), LARGE).stored
    assert stored[:3] == b"\xc1z\x01"
    assert zlib.decompress(stored[3:]) == JSONCodec().bind(Log).encode(LARGE, "key")


def test_a_record_written_by_the_first_release_is_read():
    stored = bytes.fromhex("c17a01789cab562a49ad2851b2524a241228d50200ded812a8")
    assert Kept(CompressedCodec().bind(dict), "key", stored).load() == {"text": "a" * 40}


@pytest.mark.parametrize(("size", "compressed"), [(1024, False), (1025, True)])
def test_above_is_the_largest_size_that_is_left_alone(size, compressed):
    sealed = CompressedCodec(RawCodec()).bind(bytes).seal(b"x" * size, "key")
    assert (sealed != b"x" * size) is compressed


def test_what_gets_no_smaller_is_left_alone():
    noise = os.urandom(5000)
    while noise.startswith(b"\xc1z"):
        noise = os.urandom(5000)
    assert keep(CompressedCodec(RawCodec()).bind(bytes), noise).stored == noise


@given(st.binary(max_size=50), st.sampled_from([b"", b"\xc1", b"\xc1z", b"\xc1z\x01", b"\xc1e"]))
def test_any_bytes_of_any_codec_load_again(data, start):
    for above in (0, 10, 1024):
        assert keep(CompressedCodec(RawCodec(), above).bind(bytes), start + data).load() == (
            start + data
        )


def test_compression_may_be_turned_on_over_stored_sessions_and_its_size_be_changed(codec):
    stored = keep(codec.bind(Log), LARGE).stored
    kept = Kept(CompressedCodec(codec).bind(Log), "key", stored)
    assert kept.load() == LARGE
    assert kept.changed_to(LARGE) is kept
    compressed = keep(CompressedCodec(codec, above=0).bind(Log), SMALL).stored
    assert Kept(CompressedCodec(codec, above=10_000).bind(Log), "key", compressed).load() == SMALL


def test_what_expands_beyond_the_limit_is_not_read():
    bomb = b"\xc1z\x01" + zlib.compress(bytes(50_000_000))
    assert len(bomb) < 50_000
    reason = refusal(CompressedCodec().bind(Any), bomb)
    assert reason == "it takes more than max_expanded=16777216 bytes when decompressed"


def test_what_would_not_be_read_again_is_not_written():
    bound = CompressedCodec(RawCodec(), max_expanded=5000).bind(bytes)
    assert keep(bound, bytes(5000)).load() == bytes(5000)
    with pytest.raises(CodecError, match="more than max_expanded=5000"):
        keep(bound, bytes(5001))


def test_damaged_bytes_are_refused():
    bound = CompressedCodec().bind(Log)
    stored = keep(bound, LARGE).stored
    for length in range(2, len(stored)):
        assert refusal(bound, stored[:length])
    assert "appended" in refusal(bound, stored + b"\0")
    assert "this version of gramkeep doesn't know" in refusal(bound, b"\xc1z\x02" + stored[3:])
    for place in range(3, len(stored)):
        changed = bytearray(stored)
        changed[place] ^= 255
        refusal(bound, bytes(changed))


def test_what_the_codec_inside_refuses_is_refused():
    with pytest.raises(CodecError, match="a set would load as a list"):
        keep(CompressedCodec(MessagePackCodec()).bind(dict), {"a": {1}})
    with pytest.raises(ConfigurationError, match="can't be kept as MessagePack"):
        CompressedCodec(MessagePackCodec()).bind(complex)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"above": -1}, "above=-1"),
        ({"above": 1.5}, "above=1.5"),
        ({"above": True}, "above=True"),
        ({"max_expanded": "1"}, "max_expanded='1'"),
        ({"above": 100, "max_expanded": 50}, "max_expanded=50 must not be less than above=100"),
    ],
)
def test_wrong_options_are_refused_with_their_name(options, name):
    with pytest.raises(ConfigurationError, match=name):
        CompressedCodec(**options)
