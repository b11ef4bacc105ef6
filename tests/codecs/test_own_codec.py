"""A codec of a user's own needs encode and decode, and nothing else."""

import ast
import hashlib
import hmac
from dataclasses import dataclass, field

import msgspec
import pytest

from gramkeep import CodecError, Sessions
from gramkeep.codec import BoundCodec, Codec, CompressedCodec, EncryptedCodec, EnvelopeFound
from gramkeep.envelope import Envelope, is_envelope
from gramkeep.storages.memory import MemorySessionStorage

from .keeping import Kept, keep


class LiteralCodec(Codec):
    """Python literals: text that people can read, as repr() writes it."""

    def bind(self, data_type):
        return BoundLiterals(data_type)


class BoundLiterals(BoundCodec):
    def __init__(self, data_type):
        self.data_type = data_type

    def encode(self, value, key):
        try:
            return repr(msgspec.to_builtins(value, builtin_types=(bytes,))).encode()
        except (TypeError, ValueError) as error:
            raise CodecError(str(error)) from error

    def decode(self, data, key):
        try:
            value = ast.literal_eval(data.decode())
            if is_envelope(value) and not is_of_envelopes(self.data_type):
                raise EnvelopeFound
            return msgspec.convert(value, self.data_type, builtin_types=(bytes,))
        except (ValueError, SyntaxError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError(str(error)) from error


def is_of_envelopes(data_type):
    return getattr(data_type, "__origin__", None) is Envelope


@dataclass
class Note:
    text: str = ""
    blob: bytes = b""
    tags: tuple[str, ...] = ()
    seen: set[int] = field(default_factory=set)


VALUE = Note("it's", b"\xff", ("a",), {3})


def test_encode_and_decode_are_all_it_takes():
    kept = keep(LiteralCodec().bind(Note), VALUE)
    assert kept.stored == rb"""{'text': "it's", 'blob': b'\xff', 'tags': ('a',), 'seen': [3]}"""
    assert kept.load() == VALUE
    assert kept.changed_to(VALUE) is kept
    spaced = Kept(kept.bound, kept.key, kept.stored.replace(b" ", b"  "))
    assert spaced.changed_to(VALUE) is spaced
    assert kept.bound.is_sealed_as_now(kept.stored)


def test_what_would_load_as_something_else_is_refused_for_it():
    class Forgetful(BoundLiterals):
        def encode(self, value, key):
            return super().encode(Note(text=value.text.strip()), key)

    with pytest.raises(CodecError) as caught:
        Forgetful(Note).check(Note(" a "), Forgetful(Note).encode(Note(" a "), ""), "")
    assert (caught.value.path, caught.value.reason) == ("$.text", "' a ' would load as 'a'")


def test_it_can_be_compressed_and_encrypted():
    codec = EncryptedCodec([bytes(32)], CompressedCodec(LiteralCodec(), above=0))
    kept = keep(codec.bind(Note), VALUE)
    assert kept.load() == VALUE
    assert kept.changed_to(VALUE) is kept


class Signed(BoundLiterals):
    """Seals, too: what is stored starts with a signature."""

    def seal(self, encoded, key):
        return self.sign(encoded, key) + encoded

    def unseal(self, stored, key):
        if not hmac.compare_digest(stored[:32], self.sign(stored[32:], key)):
            raise CodecError("its signature is wrong")
        return stored[32:]

    def sign(self, encoded, key):
        return hmac.digest(b"secret", key.encode() + b"\0" + encoded, hashlib.sha256)


def test_it_may_seal_what_is_stored():
    kept = keep(Signed(Note), VALUE)
    assert kept.load() == VALUE
    with pytest.raises(CodecError, match="its signature is wrong"):
        kept._replace(key="another").load()


async def test_sessions_use_it():
    storage = MemorySessionStorage()
    sessions = Sessions(initial=Note, storage=storage, codec=LiteralCodec())
    async with sessions.open("42") as session:
        session.data.seen.add(5)
    (record,) = await storage.get(["42"])
    assert record.value == b"{'text': '', 'blob': b'', 'tags': (), 'seen': [5]}"
    assert await sessions.get("42") == Note(seen={5})


async def test_sessions_with_versions_use_it():
    storage = MemorySessionStorage()
    old = Sessions(initial=dict, storage=storage, codec=LiteralCodec())
    async with old.open("42") as session:
        session.data["content"] = "hello"
    new = Sessions(
        initial=Note,
        storage=storage,
        codec=LiteralCodec(),
        migrations={1: lambda old: {"text": old["content"]}},
    )
    assert await new.get("42") == Note("hello")
    async with new.open("42") as session:
        session.data.text += "!"
    assert await new.get("42") == Note("hello!")
