"""What is stored is readable with a key only, only in its place, and only as it was written."""

import base64
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import CodecError, ConfigurationError, JSONCodec
from gramkeep.codec import CompressedCodec, EncryptedCodec, MessagePackCodec

from .keeping import Kept, keep


@dataclass
class Note:
    text: str = ""
    count: int = 0


OLD, NEW, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
SECRET = Note("the cat's name is Schroedinger")


def bound(*keys, codec=None, accept_plain=False, data_type=Note):
    inner = JSONCodec() if codec is None else codec
    return EncryptedCodec(list(keys), inner, accept_plain=accept_plain).bind(data_type)


def refusal(bound_codec, stored, key="chat:42"):
    with pytest.raises(CodecError) as caught:
        Kept(bound_codec, key, stored).load()
    assert caught.value.path == "$"
    return caught.value.reason


# What is stored.


def test_what_is_saved_loads_and_is_not_to_be_read(codec):
    kept = keep(bound(NEW, codec=codec), SECRET)
    assert kept.load() == SECRET
    assert b"Schroedinger" not in kept.stored
    assert b"text" not in kept.stored


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(), min_size=1))
def test_any_text_under_any_key_loads_again(text, key):
    kept = keep(bound(NEW), Note(text), key)
    assert kept.load() == Note(text)
    assert len(kept.stored) == len(kept.bound.encode(Note(text), key)) + 35


def test_the_layout_is_the_documented_one():
    stored = keep(bound(NEW), SECRET, "chat:Ω").stored
    assert stored[:3] == b"\xc1e\x01"
    digest = hashlib.sha256(b"gramkeep key id, version 1\0" + NEW).digest()
    assert stored[3:7] == digest[:4]
    associated = stored[:7] + "chat:Ω".encode()
    plain = AESGCM(NEW).decrypt(stored[7:19], stored[19:], associated)
    assert plain == JSONCodec().bind(Note).encode(SECRET, "")


def test_a_record_written_by_the_first_release_is_read():
    stored = bytes.fromhex(
        "c1650183cd00ee000102030405060708090a0b322a969fa93dae7e09e0257af2d1478613027d70b7624baf099d"
        "d587f315aacc"
    )
    codec = EncryptedCodec([bytes([2]) * 32]).bind(dict)
    assert Kept(codec, "chat:42", stored).load() == {"text": "hello"}


def test_each_write_has_a_nonce_of_its_own():
    codec = bound(NEW)
    nonces = {codec.seal(b"{}", "chat:42")[7:19] for _ in range(10_000)}
    assert len(nonces) == 10_000


def test_an_unchanged_session_is_recognised_although_each_write_is_different():
    kept = keep(bound(NEW), SECRET)
    assert kept.bound.seal(kept.bound.encode(SECRET, kept.key), kept.key) != kept.stored
    assert kept.changed_to(kept.load()) is kept
    assert kept.changed_to(Note()) is not kept


def test_neither_loading_nor_comparing_encrypts(monkeypatch):
    kept = keep(bound(NEW), SECRET)
    monkeypatch.setattr(os, "urandom", None)
    assert kept.changed_to(kept.load()) is kept


# Keys.


def test_after_a_rotation_old_sessions_load_and_changed_ones_have_the_new_key():
    kept = keep(bound(OLD), SECRET)
    rotated = Kept(bound(NEW, OLD), kept.key, kept.stored)
    assert rotated.load() == SECRET
    assert rotated.changed_to(SECRET) is rotated
    assert not rotated.bound.is_sealed_as_now(rotated.stored)
    changed = rotated.changed_to(Note("other"))
    assert rotated.bound.is_sealed_as_now(changed.stored)
    assert Kept(bound(NEW), kept.key, changed.stored).load() == Note("other")


def test_the_right_key_is_found_among_many():
    keys = [bytes([n]) * 32 for n in range(50)]
    for key in keys:
        assert Kept(bound(*keys), "chat:42", keep(bound(key), SECRET).stored).load() == SECRET


def test_two_keys_with_the_same_id_are_both_tried(monkeypatch):
    class Constant:
        def digest(self):
            return bytes(32)

    monkeypatch.setattr("gramkeep.codec.encrypted.hashlib.sha256", lambda _: Constant())
    kept = keep(bound(OLD), SECRET)
    assert Kept(bound(NEW, OTHER, OLD), kept.key, kept.stored).load() == SECRET
    assert "does not decrypt" in refusal(bound(NEW, OTHER), kept.stored)


def test_an_unknown_key_is_said_to_be_unknown_by_its_id():
    kept = keep(bound(OLD), SECRET)
    reason = refusal(bound(NEW, OTHER), kept.stored)
    assert "not one of the 2 in keys=" in reason
    assert kept.stored[3:7].hex() in reason


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_keys_may_be_text_in_base64(encode):
    key = bytes([0xFB, 0xFF] * 16)
    kept = keep(bound(encode(key).decode() + "\n"), SECRET)
    assert Kept(bound(key), kept.key, kept.stored).load() == SECRET


def test_generated_keys_are_good_and_all_different():
    keys = {EncryptedCodec.generate_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert keep(bound(key), SECRET).load() == SECRET


@pytest.mark.parametrize(
    "key",
    [b"", b"short", bytes(31), bytes(33), "letmein!", "ab" * 32, "", 5, None, bytearray(32)],
    ids=repr,
)
def test_what_is_no_key_is_refused_without_being_shown(key):
    with pytest.raises(ConfigurationError, match=r"keys\[1\] must be 32 random bytes") as caught:
        EncryptedCodec([NEW, key])
    if key:
        assert str(key) not in str(caught.value)


@pytest.mark.parametrize("keys", [[], NEW, base64.b64encode(NEW).decode(), None, {NEW}], ids=repr)
def test_keys_must_be_a_list(keys):
    with pytest.raises(ConfigurationError, match="keys= must be a list of keys"):
        EncryptedCodec(keys)


@pytest.mark.parametrize("accept_plain", ["no", "", None, 0, 1, []])
def test_whether_plain_sessions_are_accepted_is_true_or_false(accept_plain):
    with pytest.raises(ConfigurationError, match=r"accept_plain=.* must be True or False"):
        EncryptedCodec([EncryptedCodec.generate_key()], accept_plain=accept_plain)


def test_no_key_shows_in_what_is_printed():
    codec = EncryptedCodec([NEW])
    for text in (repr(codec), str(vars(codec)), repr(codec.bind(Note))):
        assert repr(NEW)[2:20] not in text
        assert base64.b64encode(NEW).decode()[:10] not in text


# Whoever can write to the storage.


def test_a_record_that_was_moved_to_another_key_does_not_load():
    kept = keep(bound(NEW), SECRET, "chat:42")
    assert "moved or copied" in refusal(kept.bound, kept.stored, "chat:43")
    assert "moved or copied" in refusal(kept.bound, kept.stored, "")


def test_a_record_with_any_bit_changed_does_not_load():
    kept = keep(bound(NEW, OLD), SECRET)
    for place in range(len(kept.stored)):
        for bit in (1, 128):
            changed = bytearray(kept.stored)
            changed[place] ^= bit
            refusal(kept.bound, bytes(changed))


def test_a_record_that_was_cut_off_or_lengthened_does_not_load():
    kept = keep(bound(NEW), SECRET)
    for length in range(len(kept.stored)):
        refusal(kept.bound, kept.stored[:length])
    refusal(kept.bound, kept.stored + b"\0")


def test_changed_bytes_say_so():
    kept = keep(bound(NEW), SECRET)
    changed = kept.stored[:-1] + bytes([kept.stored[-1] ^ 1])
    assert "its bytes were changed, or it was encrypted for another" in refusal(kept.bound, changed)
    assert "version of gramkeep doesn't know" in refusal(kept.bound, b"\xc1e\x02" + bytes(50))
    assert "cut off" in refusal(kept.bound, kept.stored[:20])


# Sessions from before.


PLAIN = JSONCodec().bind(Note).encode(SECRET, "chat:42")


def test_a_session_that_is_not_encrypted_is_refused():
    assert "it is not encrypted" in refusal(bound(NEW), PLAIN)
    assert "accept_plain=True" in refusal(bound(NEW), PLAIN)


def test_plain_sessions_are_read_where_that_is_allowed_and_encrypted_when_they_change():
    kept = Kept(bound(NEW, accept_plain=True), "chat:42", PLAIN)
    assert kept.load() == SECRET
    assert kept.changed_to(SECRET) is kept
    assert not kept.bound.is_sealed_as_now(PLAIN)
    changed = kept.changed_to(Note("other"))
    assert Kept(bound(NEW), "chat:42", changed.stored).load() == Note("other")


def test_where_plain_sessions_are_allowed_damaged_ones_are_refused_all_the_same():
    codec = bound(NEW, accept_plain=True)
    stored = keep(codec, SECRET).stored
    refusal(codec, stored[:-1])
    refusal(codec, stored, "chat:43")


# Together with other codecs.


def test_sessions_are_compressed_before_they_are_encrypted():
    value = Note("long " * 1000)
    kept = keep(bound(NEW, codec=CompressedCodec()), value)
    assert len(kept.stored) < 200
    assert kept.load() == value
    assert kept.changed_to(value) is kept


def test_plain_sessions_that_were_compressed_are_read_where_plain_ones_are_allowed():
    value = Note("long " * 1000)
    stored = keep(CompressedCodec().bind(Note), value).stored
    both = bound(NEW, codec=CompressedCodec(), accept_plain=True)
    assert Kept(both, "chat:42", stored).load() == value


def test_the_wrong_order_is_refused_with_the_right_one():
    encrypted = EncryptedCodec([NEW], MessagePackCodec())
    with pytest.raises(ConfigurationError, match=r"EncryptedCodec\(keys=..., codec=CompressedC"):
        CompressedCodec(encrypted)
    with pytest.raises(ConfigurationError, match="once is enough"):
        EncryptedCodec([NEW], encrypted)
    with pytest.raises(ConfigurationError, match="once is enough"):
        EncryptedCodec([NEW], CompressedCodec(CompressedCodec()))


def test_the_codec_inside_must_be_one():
    for wrong in (JSONCodec, "json", None):
        with pytest.raises(ConfigurationError, match="is no Codec; pass an instance"):
            EncryptedCodec([NEW], wrong)
        with pytest.raises(ConfigurationError, match="is no Codec; pass an instance"):
            CompressedCodec(wrong)


def test_a_type_that_can_not_be_kept_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="can't be kept as JSON"):
        bound(NEW, data_type=complex)


def test_what_would_not_load_is_refused_as_without_encryption():
    with pytest.raises(CodecError, match="a set would load as a list") as caught:
        keep(bound(NEW, codec=MessagePackCodec(), data_type=Any), {"a": {1}})
    assert caught.value.path == "$.a"


def test_without_cryptography_the_error_says_what_to_install():
    program = """
import sys
sys.modules["cryptography.hazmat.primitives.ciphers.aead"] = None
from gramkeep import ConfigurationError
from gramkeep.codec import EncryptedCodec
try:
    EncryptedCodec([EncryptedCodec.generate_key()])
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b'pip install "gramkeep[encryption]"' in done.stdout
