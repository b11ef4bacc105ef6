"""Sessions, compressed where that is worth it."""

from __future__ import annotations

import zlib
from typing import Any, Final

from gramkeep.codec.base import BoundCodec, Codec, CodecError
from gramkeep.codec.encrypted import EncryptedCodec
from gramkeep.codec.json import JSONCodec
from gramkeep.codec.wrapping import BoundWrapping, WrappingCodec
from gramkeep.errors import ConfigurationError

MAGIC: Final = b"\xc1z"
HEADER: Final = MAGIC + b"\x01"


class CompressedCodec(WrappingCodec):
    """Compresses sessions that take more than ``above`` bytes; smaller ones stay as they are.

    What is stored of a larger one, if compressing makes it smaller::

        offset  bytes
        0       2      C1 7A: no UTF-8 text has a byte C1, and MessagePack never uses it
        2       1      01, the version of this layout
        3              a zlib stream (RFC 1950) of what ``codec`` made

    Both forms are read, so ``above`` may be changed at any time, and the codec be put around
    another one whose sessions are already stored. A session that would take more than
    ``max_expanded`` bytes again is neither read nor written, so that a small record which expands
    to gigabytes does no harm. The option ``max_bytes`` counts compressed bytes.

    Encrypted bytes can't be compressed: to have both, write
    ``EncryptedCodec(keys=..., codec=CompressedCodec())``.
    """

    def __init__(
        self,
        codec: Codec = JSONCodec(),  # noqa: B008 - it has no state to share
        above: int = 1024,
        *,
        max_expanded: int = 16 * 1024 * 1024,
    ) -> None:
        super().__init__(codec)
        for inner in self.inner_codecs():
            if isinstance(inner, EncryptedCodec):
                text = (
                    "CompressedCodec around EncryptedCodec saves nothing, as encrypted bytes can't "
                    "be compressed: write EncryptedCodec(keys=..., codec=CompressedCodec(...))"
                )
                raise ConfigurationError(text)
            if isinstance(inner, CompressedCodec):
                raise ConfigurationError("CompressedCodec around CompressedCodec: once is enough")
        for name, value in (("above", above), ("max_expanded", max_expanded)):
            if type(value) is not int or value < 0:
                text = f"{name}={value!r} must be a number of bytes"
                raise ConfigurationError(text)
        if max_expanded < above:
            text = f"max_expanded={max_expanded} must not be less than above={above}"
            raise ConfigurationError(text)
        self.above = above
        self.max_expanded = max_expanded

    def __repr__(self) -> str:
        return f"CompressedCodec({self.codec!r}, above={self.above})"

    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises what the codec inside raises."""
        return _BoundCompressed(self.codec.bind(data_type), self.above, self.max_expanded)


class _BoundCompressed(BoundWrapping):
    def __init__(self, inner: BoundCodec, above: int, max_expanded: int) -> None:
        super().__init__(inner)
        self._above = above
        self._max_expanded = max_expanded

    def seal(self, encoded: bytes, key: str) -> bytes:
        plain = super().seal(encoded, key)
        is_ambiguous = plain.startswith(MAGIC)  # a user's own codec may begin as we do
        if len(plain) <= self._above and not is_ambiguous:
            return plain
        if len(plain) > self._max_expanded:
            raise CodecError(
                f"it takes {len(plain)} bytes, more than max_expanded={self._max_expanded} of "
                "CompressedCodec lets it have again when it is read"
            )
        compressed = HEADER + zlib.compress(plain)
        return compressed if is_ambiguous or len(compressed) < len(plain) else plain

    def unseal(self, stored: bytes, key: str) -> bytes:
        if not stored.startswith(MAGIC):
            return super().unseal(stored, key)
        if not stored.startswith(HEADER):
            raise CodecError("it is compressed in a way that this version of gramkeep doesn't know")
        stream = zlib.decompressobj()
        try:
            plain = stream.decompress(stored[len(HEADER) :], self._max_expanded + 1)
        except zlib.error as error:
            raise CodecError(f"it can't be decompressed: {error}") from error
        if len(plain) > self._max_expanded:
            raise CodecError(
                f"it takes more than max_expanded={self._max_expanded} bytes when decompressed"
            )
        if not stream.eof or stream.unused_data:
            raise CodecError("it can't be decompressed: it was cut off, or something was appended")
        return super().unseal(plain, key)
