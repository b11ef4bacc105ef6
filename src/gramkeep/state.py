"""From the state of a session to stored bytes and back: codec, envelope and migrations together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, Final, TypeAlias

import msgspec

from gramkeep.codec import BoundCodec, Codec, CodecError, EnvelopeFound
from gramkeep.envelope import (
    MARK,
    Envelope,
    MigrationFailed,
    Migrations,
    NewerVersion,
    Versions,
    is_envelope,
    is_expired,
)
from gramkeep.errors import NewerSessionVersion, SessionDecodeError, SessionEncodeError

# Where the data is in an envelope, the field's name as values or as bytes have it.
_IN_PATH: Final = re.compile(rf"^\$\.(?:{MARK}|data)(?![^.\[])")
_IN_REASON: Final = re.compile(rf"in `\$\.{MARK}(?=[`.\[])")

Initial: TypeAlias = Callable[[Any], Any]  # of the update's origin; may be async


class Loaded(msgspec.Struct):
    """The data of a session, and ``baselines``: what it encodes to while it is unchanged.

    ``is_new``: nothing was stored for it. ``is_migrated``: it was, in an older form.
    """

    data: Any
    baselines: tuple[bytes, ...]
    is_new: bool = False
    is_migrated: bool = False


class Contents:
    """What the sessions of one kind in one storage hold: made, loaded, and compared."""

    def __init__(self, codec: StateCodec, initial: Initial | None, storage_name: str) -> None:
        self._codec = codec
        self._initial = initial
        self._storage_name = storage_name

    async def initial(self, origin: Any, key: str) -> Loaded:
        """Make the data of a new session. Raises `SessionEncodeError`."""
        if self._initial is None:
            return Loaded(None, (), is_new=True)
        made = self._initial(origin)
        if inspect.isawaitable(made):
            made = await made
        # Written and read once, so that a value which initial hands out twice isn't shared, and
        # one that can't be saved is refused before the handler runs.
        try:
            encoded = self._codec.encode(made, key)
            self._codec.check(made, encoded, key)
            data = self._codec.decode(encoded, key)
            return Loaded(data, (self._codec.encode(data, key),), is_new=True)
        except CodecError as error:
            raise self._encode_error(key, error) from error

    def load(self, value: bytes, key: str) -> Loaded | Envelope[Any]:
        """Make the data of stored bytes; of those that need more, the envelope for `migrate`.

        Raises `SessionDecodeError`.
        """
        try:
            return self._codec.load(value, key)
        except CodecError as error:
            raise self._decode_error(key, error) from error

    async def migrate(self, envelope: Envelope[Any], key: str) -> Loaded | None:
        """Bring what is of an older version to the newest; ``None`` for what has expired.

        Raises `SessionDecodeError`, `NewerSessionVersion`.
        """
        try:
            return await self._codec.migrate(envelope, key)
        except NewerVersion as newer:
            raise NewerSessionVersion(
                key=key, storage=self._storage_name, version=newer.version, newest=newer.newest
            ) from None
        except CodecError as error:
            raise self._decode_error(key, error) from error

    def encode_changed(self, data: Any, baselines: tuple[bytes, ...], key: str) -> bytes | None:
        """Make bytes of data; ``None`` where they say what one of the ``baselines`` does.

        Raises `SessionEncodeError`.
        """
        codec = self._codec
        try:
            encoded = codec.encode(data, key)
            if encoded in baselines:
                return None
            if codec.is_canonical or not baselines:
                return encoded
            return None if codec.is_same(data, encoded, baselines[0], key) else encoded
        except CodecError as error:
            raise self._encode_error(key, error) from error

    def seal(self, data: Any, encoded: bytes, key: str) -> bytes:
        """Make what is stored of ``data``, encoded as ``encoded``, once it will load as the same.

        Raises `SessionEncodeError`.
        """
        try:
            self._codec.check(data, encoded, key)
            return self._codec.seal(encoded, key)
        except CodecError as error:
            raise self._encode_error(key, error) from error

    def is_sealed_as_now(self, stored: bytes) -> bool:
        """Whether it is sealed as `seal` would do it today."""
        return self._codec.is_sealed_as_now(stored)

    def _decode_error(self, key: str, error: CodecError) -> SessionDecodeError:
        return SessionDecodeError(
            key=key, storage=self._storage_name, path=error.path, reason=error.reason
        )

    def _encode_error(self, key: str, error: CodecError) -> SessionEncodeError:
        return SessionEncodeError(
            key=key, storage=self._storage_name, path=error.path, reason=error.reason
        )


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
        self.is_canonical = self._bare.is_canonical
        self.seal = self._bare.seal
        self.unseal = self._bare.unseal
        self.is_sealed_as_now = self._bare.is_sealed_as_now
        if self.newest is None and _is_class_of_objects(data_type):
            # None of them is kept in an envelope: not even a detour is made.
            self.encode = self._bare.encode  # type: ignore[method-assign]
            self.check = self._bare.check  # type: ignore[method-assign]

    def encode(self, value: Any, key: str) -> bytes:
        """Make bytes of the state. Raises `CodecError`."""
        codec, value = self._form(value)
        try:
            return codec.encode(value, key)
        except CodecError as error:
            if codec is self._bare:
                raise
            raise _of_the_data(error) from error

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        """Make sure that ``encoded`` will load as ``value``. Raises `CodecError`."""
        codec, value = self._form(value)
        try:
            codec.check(value, encoded, key)
        except CodecError as error:
            if codec is self._bare:
                raise
            raise _of_the_data(error) from error

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        """Whether ``value``, encoded as ``encoded``, is what ``stored``, in today's form, says."""
        codec, value = self._form(value)
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

    def load(self, stored: bytes, key: str) -> Loaded | Envelope[Any]:
        """Make the state of stored bytes; of those that need more, the envelope for `migrate`.

        Raises `CodecError`.
        """
        encoded = self.unseal(stored, key)
        if self.newest is None:
            try:
                data = self._bare.decode(encoded, key)
            except EnvelopeFound:
                pass
            else:
                return Loaded(data, self._baselines(data, encoded, key))
        envelope: Envelope[Any] | None = None
        problem: CodecError | None = None
        try:
            envelope = self._open(encoded, key)
        except CodecError as error:
            problem = error
        if envelope is None or envelope.version != self.newest:
            # Of another form: today's type would read it wrongly, or not at all.
            envelope = self._open_any(encoded, key)
        if envelope.version != self.newest or is_expired(envelope):
            return envelope
        if problem is not None:
            raise problem
        # An expiry that stands beside the data is no change of it.
        with suppress(CodecError):  # it will be raised when it is saved
            encoded = self.encode(envelope.data, key)
        return Loaded(envelope.data, (encoded,))

    async def migrate(self, envelope: Envelope[Any], key: str) -> Loaded | None:
        """Bring what is of an older version to the newest; ``None`` for what has expired.

        Raises `CodecError`, `NewerVersion`.
        """
        if is_expired(envelope):
            return None
        try:
            migrated = await self._versions.migrate(envelope.data, envelope.version)
        except MigrationFailed as error:
            raise CodecError(error.reason) from error
        data = self.decode(self.encode(migrated, key), key)
        return Loaded(data, (self.encode(data, key),), is_migrated=True)

    def _baselines(self, data: Any, encoded: bytes, key: str) -> tuple[bytes, ...]:
        """Give what ``data``, decoded of ``encoded``, encodes to while nobody changes it.

        Another writer's bytes may differ in their spacing or the order of fields. To encode the
        data at once, while it is what it was, is the cheapest way to be told that, unless it is
        known of these bytes.
        """
        if not self._bare.is_canonical or self._bare.is_canonical_form(encoded):
            return (encoded,)
        try:
            return encoded, self._bare.encode(data, key)
        except CodecError:  # to be raised when it is saved
            return (encoded,)

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


def _is_class_of_objects(data_type: Any) -> bool:
    return isinstance(data_type, type) and (
        is_dataclass(data_type) or issubclass(data_type, msgspec.Struct)
    )


def _of_the_data(error: CodecError) -> CodecError:
    """Name the place in the data, not in its envelope."""
    return CodecError(_IN_REASON.sub("in `$", error.reason), _IN_PATH.sub("$", error.path))
