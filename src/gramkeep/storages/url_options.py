"""What a storage URL says beside the place: the options behind its ``?``, and a password."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gramkeep.errors import ConfigurationError


def url_options(url: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Read the options of a URL, each made from its text by what ``known`` has under its name.

    Raises `ConfigurationError` for one that isn't known, or of the wrong form.
    """
    query = urlsplit(url, allow_fragments=False).query
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := given.keys() - known.keys():
        text = (
            f"storage URL {without_password(url)!r}: unknown option {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(known))}"
        )
        raise ConfigurationError(text)
    options = {}
    for name, value in given.items():
        try:
            options[name] = known[name](value)
        except ValueError as error:
            text = f"storage URL {without_password(url)!r}: {name} must be {error}"
            raise ConfigurationError(text) from None
    return options


def seconds(text: str) -> float:
    """Read a number of seconds; whoever uses it says which ones make sense."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number of seconds") from None


def whole_number(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def yes_or_no(text: str) -> bool:
    """Read a switch."""
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def without_password(url: str) -> str:
    """Give the URL as it may stand in logs."""
    url = re.sub(r"(?<=//)([^/?#:]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1***", url)
