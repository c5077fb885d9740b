"""Small helpers of the pages: replies, and the values that a request must have."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from pipeline.errors import UsageError


def page(text: str) -> web.Response:
    """A page."""
    return web.Response(text=text, content_type="text/html")


def see(address: str) -> web.Response:
    """Redirect to an address relative to this one, after something was written."""
    return web.Response(status=303, headers={"Location": address})


def given(values: "MultiMapping[Any] | Mapping[str, Any]", name: str) -> str:
    """A value that a request must have, as text.

    Raises:
        UsageError: it has none.
    """
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"expected a value of {name}")
    return value


async def sent_json(request: web.Request) -> dict[str, Any]:
    """The object that a request sends.

    Raises:
        UsageError: it sends something else.
    """
    try:
        values = json.loads(await request.text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"expected a JSON object: {error}") from error
    if not isinstance(values, dict):
        raise UsageError("expected a JSON object")
    return values
