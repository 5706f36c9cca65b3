"""The composite resource: up to 25 calls in one, later ones using the answers of earlier ones.

Source: REST API Developer Guide, "Composite", "Using References in Composite Requests".
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from connector.devorg.errors import OrgError
from connector.devorg.records.transaction import Transaction
from connector.devorg.rest.calls import Call, Reply, method_of, split_url
from connector.devorg.rest.collections import Collections
from connector.devorg.rest.rows import Rows

MAX_CALLS = 25
MAX_LARGE_CALLS = 5
_REFERENCE = re.compile(r"@\{([^}]*)\}")
_STEP = re.compile(r"\[(\d+)\]|([A-Za-z0-9_]+)")
_REFERENCE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_HALTED = "The transaction was rolled back since another operation in the same transaction failed."

Elsewhere = Callable[[str, URL], Coroutine[Any, Any, web.StreamResponse]]
"""Answers a GET of a resource that is neither a row nor a collection, by its route."""


class Composite:
    """Answers `/composite`, at once and without an `await`: with `allOrNone` all of it is one transaction."""

    def __init__(self, rows: Rows, collections: Collections) -> None:
        self._rows = rows
        self._collections = collections

    def answer(self, call: Call, elsewhere: Elsewhere) -> Reply:
        """Answer one call; the status is 200 whatever became of the calls in it.

        Raises:
            OrgError: The call as a whole is malformed.
        """
        body = call.object_body()
        parts = _parts(body)
        if body.get("allOrNone") is not True:
            outcome = _Run(self._dispatch, elsewhere, call).all(parts, stop=False)
            return Reply(200, {"compositeResponse": outcome.items})
        try:
            with call.begin() as transaction:
                joined = _joining(call, transaction)
                outcome = _Run(self._dispatch, elsewhere, joined).all(parts, stop=True)
                _undo_if_failed(outcome)
        except _RolledBackError:
            outcome.halt(parts)
        return Reply(200, {"compositeResponse": outcome.items})

    def _dispatch(self, call: Call, url: URL, elsewhere: Elsewhere) -> Reply:
        if call.path[:1] == ("sobjects",) and call.path[2:3] not in (("updated",), ("deleted",)):
            return self._rows.answer(call)
        if call.path[:2] == ("composite", "sobjects"):
            return self._collections.answer(call)
        if call.method != "GET" or call.path[:1] == ("composite",):
            raise OrgError(400, "INVALID_HTTP_REQUEST", f"{call.method} {url.path} is not allowed in a composite")
        return _at_once(elsewhere(call.method, url))


class _RolledBackError(Exception):
    pass


class _Run:
    """One pass over the calls of a composite request, in order.

    Attributes:
        items: What is said of each call.
        failed: Place of the first that failed.
    """

    def __init__(self, dispatch: Callable[[Call, URL, Elsewhere], Reply], elsewhere: Elsewhere, outer: Call) -> None:
        self._dispatch = dispatch
        self._elsewhere = elsewhere
        self._outer = outer
        self._answers: dict[str, Any] = {}
        self.items: list[dict[str, Any]] = []
        self.failed: int | None = None

    def all(self, parts: list[dict[str, Any]], *, stop: bool) -> "_Run":
        """Run the calls, all of them or up to the first that fails."""
        for place, part in enumerate(parts):
            reply = self._one(part)
            self.items.append(_item(part, reply))
            if reply.status >= web.HTTPBadRequest.status_code:
                self.failed = place if self.failed is None else self.failed
                if stop:
                    break
            else:
                self._answers[part["referenceId"]] = _plain(reply.body)
        return self

    def halt(self, parts: list[dict[str, Any]]) -> None:
        """Say of every call but the one that failed that it was undone or never done."""
        halted = Reply(400, OrgError(400, "PROCESSING_HALTED", _HALTED).body())
        self.items = [
            self.items[place] if place == self.failed else _item(part, halted) for place, part in enumerate(parts)
        ]

    def _one(self, part: dict[str, Any]) -> Reply:
        try:
            url = _url(str(_resolved(part["url"], self._answers)))
            version, path = split_url(url)
            call = Call(
                method=method_of(str(part["method"]).upper(), url.query),
                path=path,
                query=url.query,
                headers=_headers(part),
                body=_resolved(part.get("body"), self._answers),
                version=version,
                begin=self._outer.begin,
            )
            return self._dispatch(call, url, self._elsewhere)
        except OrgError as error:
            return Reply(error.status, error.body())
        except web.HTTPException as error:  # the router knows no such resource or method
            refusal = OrgError(error.status, "NOT_FOUND", "The requested resource does not exist")
            return Reply(refusal.status, refusal.body())


def _undo_if_failed(outcome: _Run) -> None:
    if outcome.failed is not None:
        raise _RolledBackError


def _url(text: str) -> URL:
    try:
        return URL(text, encoded=False)
    except ValueError:
        raise OrgError(400, "INVALID_INPUT", f"not a URL: {text}") from None


def _parts(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of a request, well formed.

    Raises:
        OrgError: There are none or too many, or one lacks a member.
    """
    parts = body.get("compositeRequest")
    if not isinstance(parts, list) or not parts:
        raise OrgError(400, "JSON_PARSER_ERROR", "The compositeRequest property is required to be a list")
    if len(parts) > MAX_CALLS:
        raise OrgError(400, "LIMIT_EXCEEDED", f"The number of subrequests exceeds the limit of {MAX_CALLS}")
    names: set[str] = set()
    for part in parts:
        _check_part(part, names)
    large = [part for part in parts if re.search(r"/(?:query|queryAll|composite/sobjects)\b", part["url"])]
    if len(large) > MAX_LARGE_CALLS:
        message = f"At most {MAX_LARGE_CALLS} subrequests may be queries or sObject collections"
        raise OrgError(400, "LIMIT_EXCEEDED", message)
    return parts


def _check_part(part: Any, names: set[str]) -> None:
    if not isinstance(part, dict) or not all(
        isinstance(part.get(name), str) for name in ("method", "url", "referenceId")
    ):
        raise OrgError(400, "JSON_PARSER_ERROR", "Each subrequest needs a method, a url and a referenceId")
    name = part["referenceId"]
    if _REFERENCE_ID.fullmatch(name) is None or name in names:
        raise OrgError(400, "INVALID_INPUT", f"referenceId is malformed or used twice: {name}")
    names.add(name)


def _headers(part: Mapping[str, Any]) -> CIMultiDict[str]:
    given = part.get("httpHeaders")
    return CIMultiDict({str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {})


def _joining(call: Call, transaction: Transaction) -> Call:
    """Return the call with a `begin` that joins an open transaction."""

    def begin() -> AbstractContextManager[Transaction]:
        return nullcontext(transaction)

    return Call(
        method=call.method,
        path=call.path,
        query=call.query,
        headers=call.headers,
        body=call.body,
        version=call.version,
        begin=begin,
    )


def _resolved(value: Any, answers: Mapping[str, Any]) -> Any:
    """Return a value with its references, `@{name.id}` or `@{name.records[0].Id}`, put in.

    Raises:
        OrgError: 400 PROCESSING_HALTED: there is nothing at a reference.
    """
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        if whole is not None:
            return _look_up(whole.group(1), answers)
        return _REFERENCE.sub(lambda found: str(_look_up(found.group(1), answers)), value)
    if isinstance(value, dict):
        return {key: _resolved(given, answers) for key, given in value.items()}
    return [_resolved(given, answers) for given in value] if isinstance(value, list) else value


def _look_up(path: str, answers: Mapping[str, Any]) -> Any:
    name, _, rest = path.partition(".")
    if "[" in name:
        name, rest = path[: path.index("[")], path[path.index("[") :]
    found: Any = answers.get(name)
    for index, key in _STEP.findall(rest):
        if index:
            found = found[int(index)] if isinstance(found, list) and int(index) < len(found) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        message = f"Invalid reference specified. No value for {path} found in {name}"
        raise OrgError(400, "PROCESSING_HALTED", message)
    return found


def _item(part: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    return {
        "body": reply.body,
        "httpHeaders": dict(reply.headers),
        "httpStatusCode": reply.status,
        "referenceId": part["referenceId"],
    }


def _plain(body: Any) -> Any:
    return orjson.loads(orjson.dumps(body))


def _at_once(answer: Coroutine[Any, Any, web.StreamResponse]) -> Reply:
    """Run a handler to its end, so that no other request comes between; where it would let one pass, it goes on.

    Raises:
        RuntimeError: It waits for something.
    """
    waits_for = None
    while waits_for is None:
        try:
            waits_for = answer.send(None)
        except StopIteration as done:
            response: web.StreamResponse = done.value
            break
    else:
        answer.close()
        raise RuntimeError("a resource of a composite request waits for something")
    body = response.body if isinstance(response, web.Response) else None
    return Reply(response.status, orjson.loads(body) if isinstance(body, bytes) and body else None)
