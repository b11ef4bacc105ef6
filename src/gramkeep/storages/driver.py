"""What importing a storage says where its driver isn't installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gramkeep.errors import ConfigurationError


@contextmanager
def driver_of(extra: str) -> Iterator[None]:
    """Hold the import of a driver; where that fails, `ConfigurationError` names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        text = (
            f"this storage needs {error.name}, which is not installed: "
            f'pip install "gramkeep[{extra}]"'
        )
        raise ConfigurationError(text) from error
