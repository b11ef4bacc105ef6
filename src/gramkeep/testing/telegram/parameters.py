"""Reading a call's parameters, wherever in the HTTP request a client put them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, ClientResponse, MultipartReader, web

from gramkeep.testing.telegram.errors import bad_request
from gramkeep.testing.telegram.objects import JSON, Upload

if TYPE_CHECKING:
    from collections.abc import Iterable


async def read_parameters(request: web.Request) -> JSON:
    """Merge query string and body, whichever of the documented encodings it has.

    https://core.telegram.org/bots/api#making-requests. Unlike `request.post()` this reads the body
    of GET requests too: some clients send getUpdates that way.
    Raises `BotApiError` (400) for a body that is no valid JSON object.
    """
    params: JSON = dict(request.query)
    try:
        params |= await read_body(request.content_type, request)
    except ValueError:
        raise bad_request("can't parse the request's body") from None
    return decode_objects(params)


async def read_body(content_type: str, source: web.Request | ClientResponse) -> JSON:
    """Read the parameters of a request's body, or of a webhook's answer, in any encoding.

    Raises `ValueError` for a body that is not what its content type says, or no JSON object.
    """
    if content_type == "multipart/form-data":
        return await _multipart_body(MultipartReader(source.headers, source.content))
    body = await source.read()
    if content_type != "application/json":
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    params = json.loads(body or b"{}")
    if not isinstance(params, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - it is the body that is wrong
    return {name: value for name, value in params.items() if value is not None}


async def _multipart_body(reader: MultipartReader) -> JSON:
    params: JSON = {}
    async for part in reader:
        if not isinstance(part, BodyPartReader) or part.name is None:
            continue
        if part.filename is None:
            params[part.name] = await part.text()
        else:
            params[part.name] = Upload(
                name=part.filename,
                content_type=part.headers.get("Content-Type", "application/octet-stream"),
                content=bytes(await part.read()),
            )
    return params


# Parameters that are objects or arrays; outside JSON bodies clients send them as JSON text.
_OBJECTS = (
    "allowed_updates",
    "commands",
    "entities",
    "link_preview_options",
    "options",
    "reply_markup",
    "reply_parameters",
    "results",
    "scope",
    "shipping_options",
)


def decode_objects(params: JSON) -> JSON:
    """Parse the parameters that are JSON objects sent as text. Raises `BotApiError` (400)."""
    for name in _OBJECTS:
        value = params.get(name)
        if isinstance(value, str):
            if not value:
                del params[name]
                continue
            try:
                params[name] = json.loads(value)
            except ValueError:
                raise bad_request(f"can't parse {name} JSON object") from None
    return params


def text(params: JSON, name: str) -> str | None:
    """Read a parameter as text; None where absent or empty."""
    value = params.get(name)
    return None if value is None or value == "" else str(value)


def integer(
    params: JSON, name: str, default: int = 0, low: int | None = None, high: int | None = None
) -> int:
    """Read a parameter as a number, moved into low…high; `default` for what is none."""
    try:
        number = int(str(params.get(name, default)))
    except ValueError:
        number = default
    if low is not None:
        number = max(low, number)
    return number if high is None else min(high, number)


def flag(params: JSON, name: str) -> bool:
    """Read a parameter as a truth value."""
    return str(params.get(name, "")).lower() in {"true", "yes", "1"}


def listed(params: JSON, name: str) -> list[Any]:
    """Read a parameter as a list; empty where it is none."""
    value = params.get(name)
    return value if isinstance(value, list) else []


def required(params: JSON, names: Iterable[str]) -> None:
    for name in names:
        if text(params, name) is None:
            raise bad_request(f'parameter "{name}" is required')
