"""State to bytes and back, so that what is saved loads as the same.

A `Codec` is an option; bound to the type of a session it makes a `BoundCodec`, which does the
work. Codecs know nothing of the storage: they raise `CodecError`, and the manager says whose.
"""

from gramkeep.codec.base import BoundCodec, Codec, CodecError, EnvelopeFound
from gramkeep.codec.compressed import CompressedCodec
from gramkeep.codec.differences import differences
from gramkeep.codec.encrypted import EncryptedCodec
from gramkeep.codec.json import JSONCodec
from gramkeep.codec.msgpack import MessagePackCodec

__all__ = [
    "BoundCodec",
    "Codec",
    "CodecError",
    "CompressedCodec",
    "EncryptedCodec",
    "EnvelopeFound",
    "JSONCodec",
    "MessagePackCodec",
    "differences",
]
