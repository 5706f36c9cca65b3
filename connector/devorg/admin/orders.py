"""What an order to the admin interface looks like: a JSON object whose members have known names and types."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from connector.devorg.context import read_json
from connector.devorg.errors import OrgError

Types = Mapping[str, type | tuple[type, ...]]


async def read_order(request: web.Request, required: Types, optional: Types | None = None) -> dict[str, Any]:
    """The order in the request's body; no body is an order without members.

    Raises:
        OrgError: 400 INVALID_ORDER, or JSON_PARSER_ERROR.
    """
    body = await read_json(request) if request.can_read_body else {}
    if not isinstance(body, dict):
        raise OrgError(400, "INVALID_ORDER", "expected a JSON object")
    check_members(body, required, optional)
    return body


def check_members(order: Mapping[str, Any], required: Types, optional: Types | None = None) -> None:
    """Check the names and types of an order's members.

    Raises:
        OrgError: 400 INVALID_ORDER, naming every member that is missing, unknown or of another type.
    """
    types = {**required, **(optional or {})}
    wrong = [f"{name}: missing" for name in required if name not in order]
    wrong += [f"{name}: unknown" for name in order if name not in types]
    wrong += [
        f"{name}: expected {_name_of(types[name])}"
        for name, value in order.items()
        if name in types and not _fits(value, types[name])
    ]
    if wrong:
        raise OrgError(400, "INVALID_ORDER", "; ".join(wrong))


def _fits(value: object, types: type | tuple[type, ...]) -> bool:
    # A boolean is an int to Python, but no number in JSON.
    return isinstance(value, types) and (types is bool or not isinstance(value, bool) or types is object)


def _name_of(types: type | tuple[type, ...]) -> str:
    return " or ".join(one.__name__ for one in (types if isinstance(types, tuple) else (types,)))


async def read_object(request: web.Request) -> dict[str, Any]:
    """A JSON object with members that are judged elsewhere.

    Raises:
        OrgError: It is none (400 INVALID_ORDER).
    """
    body = await read_json(request)
    if not isinstance(body, dict):
        raise OrgError(400, "INVALID_ORDER", "expected a JSON object")
    return body


@contextmanager
def values_refused() -> Generator[None]:
    """Answer 400 INVALID_ORDER where a part of the org refuses a value, or can not read it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise OrgError(400, "INVALID_ORDER", str(error)) from error
