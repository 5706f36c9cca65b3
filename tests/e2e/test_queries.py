"""Queries as services on the mesh ask them, beside a daemon that has other things to do."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from connector.model.documents import ChangeDocument, QueryReplyDocument
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

_numbers = count(1)


def ask(stack: Stack, name: str, verb: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
    inbox = f"services/inbox/{next(_numbers)}"
    stack.watcher.send(f"{ROOT}/query/{name}/{verb}", dict(query or {}), response_topic=inbox)
    return stack.watcher.until(inbox).json


def pages(stack: Stack, name: str, verb: str, query: Mapping[str, Any], going_on: str) -> Iterator[dict[str, Any]]:
    """Every page of a list (`going_on` after) or of the changes (`since`)."""
    asked = dict(query)
    while True:
        reply = ask(stack, name, verb, asked)
        QueryReplyDocument.model_validate(reply)
        yield reply
        if reply["next"] is None:
            return
        asked[going_on] = reply["next"]


def test_a_list_is_the_org(stack: Stack) -> None:
    """Every record, page by page, in wire form; the answer says how fresh it is."""
    replies = list(pages(stack, "Contact", "list", {"limit": 5}, "after"))
    listed = {r["Id"]: r for reply in replies for r in reply["records"]}
    in_org = stack.org.records("Contact")
    assert len(listed) == len(in_org) == sum(len(reply["records"]) for reply in replies)
    for record_id, record in listed.items():
        own = {field: value for field, value in record.items() if not field.startswith("_")}
        assert own == {field: in_org[record_id][field] for field in own}
    assert {reply["stream"] for reply in replies} == {"live"}


def test_an_edit_is_found_as_soon_as_it_is_published(stack: Stack) -> None:
    """By id, by condition and by text; `version` is that of its change."""
    someone = next(iter(stack.org.records("Contact")))
    since = stack.watcher.mark()
    stack.org.update("Contact", someone, LastName="Überall-Neu")
    version = stack.until_change(someone, since=since).json["data"]["version"]
    got = ask(stack, "Contact", "get", {"id": someone})
    assert got["version"] >= version
    assert got["records"][0]["LastName"] == "Überall-Neu"
    assert got["records"][0]["_version"] == version
    until(lambda: ask(stack, "Contact", "search", {"text": "x"})["ok"])  # the index is made after the load
    for query in ({"where": {"LastName": {"like": "überall%"}}}, {"text": "uberall"}):
        assert [r["Id"] for r in ask(stack, "Contact", "search", query)["records"]] == [someone]
    counted = ask(stack, "Contact", "count", {"where": {"LastName": "Überall-Neu"}})
    assert (counted["count"], counted["records"]) == (1, [])


def test_changes_are_those_that_were_published(stack: Stack) -> None:
    """Whoever was away gets the same documents, in the same order."""
    stack.settled()
    missed = [
        c for reply in pages(stack, "_all", "changes", {"since": 0, "limit": 3}, "since") for c in reply["records"]
    ]
    for document in missed:
        ChangeDocument.model_validate(document)
    assert missed == sorted(stack.changes(), key=lambda change: change["version"])
    beyond = ask(stack, "_all", "changes", {"since": 10_000_000})
    assert (beyond["ok"], beyond["error"]["code"]) == (False, "snapshot_required")


def test_a_command_under_way_is_told_with_the_record(stack: Stack) -> None:
    """`pending` until the change has come back; then the record shows it."""
    someone = next(iter(stack.org.records("Lead")))
    stack.watcher.send(f"{ROOT}/command/Lead/update", {"command_id": "q-1", "id": someone, "fields": {"Company": "Q"}})
    stack.watcher.until(f"{ROOT}/result/q-1")
    reply = ask(stack, "Lead", "get", {"id": someone})
    shown = reply["records"][0]["Company"] == "Q"
    assert shown or [p["command_id"] for p in reply["pending"]] == ["q-1"]
    stack.until_change(someone)
    assert ask(stack, "Lead", "get", {"id": someone})["records"][0]["Company"] == "Q"


@pytest.mark.parametrize(
    ("name", "verb", "query", "code"),
    [
        ("Task", "list", {}, "unknown_object"),
        ("Contact", "get", {"id": "nonsense"}, "invalid_request"),
        ("Contact", "search", {"where": {"Nope": 1}}, "invalid_request"),
        ("Contact", "search", {}, "invalid_request"),
        ("Contact", "changes", {"since": "yesterday"}, "invalid_request"),
    ],
)
def test_what_cannot_be_answered_is_told(stack: Stack, name: str, verb: str, query: dict[str, Any], code: str) -> None:
    """On the reply address, by a code."""
    reply = ask(stack, name, verb, query)
    assert (reply["ok"], reply["error"]["code"]) == (False, code)


def test_queries_cost_no_api_call(stack: Stack) -> None:
    """Whatever is asked."""
    before = stack.org.usage()["api"]
    for verb, query in (("list", {}), ("count", {}), ("search", {"text": "a"})):
        assert ask(stack, "Contact", verb, query)["ok"]
    assert stack.org.usage()["api"] == before
