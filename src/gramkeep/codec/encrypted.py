"""Sessions, encrypted before they reach the storage."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gramkeep.codec.base import BoundCodec, Codec, CodecError
from gramkeep.codec.json import JSONCodec
from gramkeep.codec.wrapping import BoundWrapping, WrappingCodec
from gramkeep.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
ID_BYTES: Final = 4
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MAGIC: Final = b"\xc1e"
VERSION: Final = b"\x01"
HEADER_BYTES: Final = len(MAGIC) + len(VERSION) + ID_BYTES
ID_OF_KEY: Final = b"gramkeep key id, version 1\0"


class EncryptedCodec(WrappingCodec):
    """Encrypts sessions with AES-256-GCM, so that whoever reads the storage can't read them.

    ``keys`` are secrets of 32 bytes, as bytes or in base64; `generate_key` makes one. The first
    encrypts, all decrypt: to change the key, put a new one in front and keep the old one until
    nothing is stored under it any more. ``codec`` does the encoding.

    A record is bound to the key under which the storage keeps it: copied to another chat's key it
    doesn't decrypt. It says nothing about age: an older record of the same chat, put back in its
    place, does.

    What is stored::

        offset  bytes
        0       2      C1 65: no UTF-8 text has a byte C1, and MessagePack never uses it
        2       1      01, the version of this layout
        3       4      which key: the start of SHA-256 of a fixed text and the key
        7       12     the nonce, random for each write
        19      n      the ciphertext, as long as what ``codec`` made
        19 + n  16     the tag

    Bytes 0 to 6 and the storage's key in UTF-8 are the associated data. AES-GCM is that of NIST
    SP 800-38D and, as AEAD_AES_256_GCM, of RFC 5116. With random nonces one key is good for 2**32
    writes (SP 800-38D, section 8.3).

    ``accept_plain=True`` also reads sessions that aren't encrypted, and encrypts them when they
    change: for turning encryption on over stored sessions. Take it out once all are encrypted, as
    with it anyone who can write to the storage can put a session of their own there.

    Raises `ConfigurationError` for wrong keys, and without the extra: ``gramkeep[encryption]``.
    """

    def __init__(
        self,
        keys: Sequence[bytes | str],
        codec: Codec = JSONCodec(),  # noqa: B008 - it has no state to share
        *,
        accept_plain: bool = False,
    ) -> None:
        super().__init__(codec)
        if any(isinstance(inner, EncryptedCodec) for inner in self.inner_codecs()):
            raise ConfigurationError("EncryptedCodec around EncryptedCodec: once is enough")
        if isinstance(keys, bytes | str) or not isinstance(keys, Sequence) or not keys:
            text = "keys= must be a list of keys, the one that encrypts first: keys=[key]"
            raise ConfigurationError(text)
        if not isinstance(accept_plain, bool):
            text = f"accept_plain={accept_plain!r} must be True or False"
            raise ConfigurationError(text)
        self.accept_plain = accept_plain
        self._keys = [_key(secret, place) for place, secret in enumerate(keys)]

    def __repr__(self) -> str:
        return f"EncryptedCodec({len(self._keys)} keys, {self.codec!r})"

    @classmethod
    def generate_key(cls) -> str:
        """Make a new random key, in base64."""
        return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()

    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises what the codec inside raises."""
        return _BoundEncrypted(
            self.codec.bind(data_type), self._keys, accept_plain=self.accept_plain
        )


class _Key(NamedTuple):
    header: bytes
    cipher: AESGCM


def _key(secret: Any, place: int) -> _Key:
    """Make a key ready. No text here shows any of it."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
    except ImportError as error:
        text = 'EncryptedCodec needs cryptography: pip install "gramkeep[encryption]"'
        raise ConfigurationError(text) from error
    if isinstance(secret, str):
        try:
            standard = secret.strip().translate(str.maketrans("-_", "+/"))
            secret = base64.b64decode(standard, validate=True)
        except (binascii.Error, ValueError):
            secret = None
    if not isinstance(secret, bytes) or len(secret) != KEY_BYTES:
        text = (
            f"keys[{place}] must be {KEY_BYTES} random bytes, as bytes or in base64, and not a "
            "password; EncryptedCodec.generate_key() makes one"
        )
        raise ConfigurationError(text)
    digest = hashlib.sha256(ID_OF_KEY + secret).digest()
    return _Key(MAGIC + VERSION + digest[:ID_BYTES], AESGCM(secret))


class _BoundEncrypted(BoundWrapping):
    def __init__(self, inner: BoundCodec, keys: list[_Key], *, accept_plain: bool) -> None:
        super().__init__(inner)
        self._keys = keys
        self._accept_plain = accept_plain

    def seal(self, encoded: bytes, key: str) -> bytes:
        header, cipher = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        plain = super().seal(encoded, key)
        return header + nonce + cipher.encrypt(nonce, plain, _bound_to(header, key))

    def unseal(self, stored: bytes, key: str) -> bytes:
        if not stored.startswith(MAGIC):
            if self._accept_plain:
                return super().unseal(stored, key)
            raise CodecError(
                "it is not encrypted: it was stored before encryption was turned on, or not by "
                "this bot. If it was, EncryptedCodec(..., accept_plain=True) reads it"
            )
        if not stored.startswith(MAGIC + VERSION):
            raise CodecError(
                "it is encrypted in a way that this version of gramkeep doesn't know, or its "
                "first bytes were changed"
            )
        if len(stored) < HEADER_BYTES + NONCE_BYTES + TAG_BYTES:
            raise CodecError("it is encrypted, and was cut off")
        header, rest = stored[:HEADER_BYTES], stored[HEADER_BYTES:]
        known = [cipher for its_header, cipher in self._keys if its_header == header]
        if not known:
            raise CodecError(
                f"it was encrypted with a key (id {header[-ID_BYTES:].hex()}) that is not one of "
                f"the {len(self._keys)} in keys=, or its first bytes were changed"
            )
        for cipher in known:
            try:
                plain = _decrypt(cipher, rest, _bound_to(header, key))
            except CodecError:
                continue
            return super().unseal(plain, key)
        raise CodecError(
            "it does not decrypt: its bytes were changed, or it was encrypted for another key in "
            "the storage, and moved or copied to this one"
        )

    def is_sealed_as_now(self, stored: bytes) -> bool:
        return stored.startswith(self._keys[0].header)


def _decrypt(cipher: AESGCM, rest: bytes, bound_to: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

    try:
        return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound_to)
    except InvalidTag as error:
        raise CodecError("it does not decrypt") from error


def _bound_to(header: bytes, key: str) -> bytes:
    return header + key.encode("utf-8", "surrogatepass")
