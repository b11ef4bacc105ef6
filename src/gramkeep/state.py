"""From the state of a session to stored bytes and back: codec, envelope and migrations together."""

from __future__ import annotations

from typing import Any, NamedTuple

from gramkeep.codec import BoundCodec, Codec, CodecError, EnvelopeFound
from gramkeep.envelope import (
    MARK,
    Envelope,
    MigrationFailed,
    Migrations,
    Versions,
    is_envelope,
    is_expired,
)


class Loaded(NamedTuple):
    """What stored bytes stand for.

    ``encoded`` is what ``data`` encodes to, in today's form. ``is_current``: it is that form in
    which they are stored. ``is_expired``: they are there, but count as absent.
    """

    data: Any
    encoded: bytes
    is_current: bool = True
    is_expired: bool = False


class StateCodec:
    """Encodes one type of state, in an envelope where there are versions to be told apart.

    ``encode`` and ``decode``, ``check`` and ``is_same`` are about bytes before they are sealed.
    """

    def __init__(self, codec: Codec, data_type: Any, migrations: Migrations | None) -> None:
        self._versions = Versions(migrations)
        self.newest = self._versions.newest
        self._bare = codec.bind(data_type)
        self._enveloped = codec.bind(Envelope[data_type])
        self._bare_of_any = codec.bind(Any)
        self._enveloped_of_any = codec.bind(Envelope[Any])

    def encode(self, data: Any, key: str) -> bytes:
        """Make bytes of the state. Raises `CodecError`."""
        codec, value = self._form(data)
        return codec.encode(value, key)

    def check(self, data: Any, encoded: bytes, key: str) -> None:
        """Make sure that ``encoded`` will load as ``data``. Raises `CodecError`."""
        codec, value = self._form(data)
        try:
            codec.check(value, encoded, key)
        except CodecError as error:
            raise _of_the_data(error) from error

    def is_same(self, data: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        """Whether ``data``, encoded as ``encoded``, is what ``stored``, in today's form, says."""
        codec, value = self._form(data)
        try:
            return codec.is_same(value, encoded, stored, key)
        except CodecError:  # one is in an envelope, the other isn't
            return False

    def decode(self, stored: bytes, key: str) -> Any:
        """Make the state of bytes in today's form. Raises `CodecError`."""
        if self.newest is None:
            try:
                return self._bare.decode(stored, key)
            except EnvelopeFound:
                pass
        return self._open(stored, key).data

    def seal(self, encoded: bytes, key: str) -> bytes:
        """Make what is stored, compressed or encrypted as the codec has it; or `CodecError`."""
        return self._bare.seal(encoded, key)

    def unseal(self, stored: bytes, key: str) -> bytes:
        """Make the encoded bytes again of what is stored. Raises `CodecError`."""
        return self._bare.unseal(stored, key)

    async def load(self, stored: bytes, key: str) -> Loaded:
        """Make the state of stored bytes in any form, migrating them.

        Raises `CodecError`, `NewerVersion`.
        """
        encoded = self.unseal(stored, key)
        is_current = self._bare.is_sealed_as_now(stored)
        if self.newest is None:
            try:
                return Loaded(self._bare.decode(encoded, key), encoded, is_current)
            except EnvelopeFound:
                pass
        envelope: Envelope[Any] | None = None
        problem: CodecError | None = None
        try:
            envelope = self._open(encoded, key)
        except CodecError as error:
            problem = error
        if envelope is None or envelope.version != self.newest:
            # Of another form: today's type would read it wrongly, or not at all.
            envelope = self._open_any(encoded, key)
        if is_expired(envelope):
            return Loaded(None, encoded, is_expired=True)
        if envelope.version != self.newest:
            try:
                migrated = await self._versions.migrate(envelope.data, envelope.version)
            except MigrationFailed as error:
                raise CodecError(error.reason) from error
            data = self.decode(self.encode(migrated, key), key)
            return Loaded(data, self.encode(data, key), is_current=False)
        if problem is not None:
            raise problem
        return Loaded(envelope.data, encoded, is_current)

    def _form(self, data: Any) -> tuple[BoundCodec, Any]:
        if self.newest is not None:
            return self._enveloped, Envelope(version=self.newest, data=data)
        if is_envelope(data):  # a user's own data of that form, which must not be taken for one
            return self._enveloped, Envelope(data=data)
        return self._bare, data

    def _open_any(self, stored: bytes, key: str) -> Envelope[Any]:
        try:
            return Envelope(data=self._bare_of_any.decode(stored, key))
        except EnvelopeFound:
            envelope: Envelope[Any] = self._enveloped_of_any.decode(stored, key)
            return envelope

    def _open(self, stored: bytes, key: str) -> Envelope[Any]:
        try:
            envelope: Envelope[Any] = self._enveloped.decode(stored, key)
        except CodecError as error:
            raise _of_the_data(error) from error
        return envelope


def _of_the_data(error: CodecError) -> CodecError:
    """Name the place in the data, not in its envelope."""
    for root in (f"$.{MARK}", "$.data"):
        if error.path.startswith(root):
            return CodecError(error.reason, "$" + error.path[len(root) :])
    return error
