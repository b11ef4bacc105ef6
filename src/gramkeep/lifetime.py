"""Lengths of time, as users write them and as the code counts them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, TypeAlias

from gramkeep.errors import ConfigurationError

Lifetime: TypeAlias = timedelta | float
"""A timedelta, or seconds."""

LONGEST: Final = 1e10  # seconds, three centuries: what every storage can still count with


def positive_seconds(option: str, value: Lifetime) -> float:
    """Turn a timedelta or seconds into seconds.

    Raises `ConfigurationError` unless it is above 0 and at most `LONGEST`.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= LONGEST:
        text = (
            f"{option}={value!r} must be a timedelta or a number of seconds, above 0 and at most "
            f"{LONGEST:.0f}"
        )
        raise ConfigurationError(text)
    return float(seconds)
