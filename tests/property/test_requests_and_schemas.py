"""What the daemon takes as a request is what its schema says, and the other way round, for documents of any form."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from connector.errors import CommandRejected
from connector.outbound.payload import parse_payload, validate_payload
from connector.schemas import schemas
from connector.schemas.messages import MESSAGES, examples
from connector.serve.control import validated as control_of
from connector.serve.query.payload import QUERIES
from connector.serve.query.payload import validated as query_of
from connector.serve.request import Refused, parsed

MOST_BYTES = 256 * 1024
REQUESTS = sorted(name for name, message in MESSAGES.items() if message.asks)
# What only words tell, in the schema's descriptions: how a condition is made, and how a time is written.
IN_WORDS = ("where", "expires_at", "base.last_modified")
VALUES = st.one_of(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from([2**63 - 1, 2**63, 1e300]),
    st.sampled_from(["", "x", "merge", "reject", "x" * 81, "x" * 129, "x" * 256, "x" * 1001, "x" * 1025, "a b", "Ü"]),
    st.sampled_from(["2026-11-22T18:00:00Z", "2026-11-22T18:00:00+01:00", "2026-11-22", "crm-1", "Name"]),
    st.lists(st.sampled_from(["x", "x" * 81, 1, None]), max_size=2),
    st.sampled_from([{}, {"x": 1}, {"field": "X__c", "value": "1"}, {"version": 1}, {"version": -1}]),
    st.sampled_from([{"last_modified": "2026-11-22T18:00:00Z"}, {"version": 1, "last_modified": "x"}, ["x"] * 1001]),
)


@cache
def validator(name: str) -> Draft202012Validator:
    """Of one kind of request: the part of the document that is its own."""
    document = schemas()[str(MESSAGES[name].document)]
    model = MESSAGES[name].model.__name__
    whole = document if document["title"] != "query" and "anyOf" not in document else document["$defs"][model]
    return Draft202012Validator({**whole, "$defs": document.get("$defs", {})})


@cache
def known(name: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Examples of it, and its members."""
    shown = [example["payload"] for example in examples().get(name, []) if isinstance(example["payload"], dict)]
    schema = validator(name).schema
    assert isinstance(schema, dict)
    return [{}, *shown], [*schema["properties"], "colour"]


@st.composite
def documents(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """An example, or nothing, with some members gone and others of any value."""
    shown, members = known(name)
    document = dict(draw(st.sampled_from(shown)))
    for member in draw(st.lists(st.sampled_from(members), max_size=3, unique=True)):
        document[member] = draw(VALUES)
    for member in draw(st.lists(st.sampled_from(sorted(document) or ["x"]), max_size=1)):
        document.pop(member, None)
    return document


def problem(name: str, payload: bytes) -> str | None:
    """Why the daemon refuses it, or None."""
    kind, _, verb = name.partition("_")
    try:
        if kind == "command":
            validate_payload(parse_payload(payload, MOST_BYTES))
        else:
            take: Callable[..., object] = query_of if kind == "query" else control_of
            take(verb, *parsed(payload, MOST_BYTES))
    except CommandRejected as error:
        return "; ".join(error.problems)
    except Refused as error:
        return str(error)
    return None


@given(st.sampled_from(REQUESTS).flatmap(lambda name: st.tuples(st.just(name), documents(name))))
def test_a_request_is_taken_if_and_only_if_it_fits(case: tuple[str, dict[str, Any]]) -> None:
    """But for what the schema tells in words, which it takes and the daemon may refuse."""
    name, document = case
    refused = problem(name, json.dumps(document).encode())
    wrong = [error.message for error in validator(name).iter_errors(document)]
    if refused is None:
        assert wrong == [], f"{name} is taken, and does not fit: {document}"
    elif not wrong:
        assert all(one.startswith(IN_WORDS) for one in refused.split("; ")), f"{name} fits, and is refused: {refused}"


def test_every_kind_of_request_is_looked_at() -> None:
    """Each verb, and commands; every example of one is taken, and fits."""
    assert {f"query_{verb}" for verb in QUERIES} | {"command", "control_sync"} <= set(REQUESTS)
    for name in REQUESTS:
        for document in known(name)[0][1:]:
            assert problem(name, json.dumps(document).encode()) is None
            assert validator(name).is_valid(document)
