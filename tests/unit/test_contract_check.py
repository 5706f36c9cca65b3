"""The check that every stack of the tests ends with (tests/e2e/contract.py) finds what is not of the contract."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from connector.schemas.messages import examples
from tests.e2e.contract import check
from tests.e2e.watcher import Received

ROOT = "blackroad/salesforce"
EVENT = examples()["change"][1]["payload"]
CHANGE_TOPIC = f"{ROOT}/change/Contact/update/{EVENT['data']['id']}"
RESULT = examples()["result"][1]["payload"]


def received(topic: str, document: Mapping[str, Any] | bytes, **properties: Any) -> Received:
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {"content_type": None, "correlation": None, "response_topic": None, "qos": 1, "retain": False}
    return Received(topic=topic, payload=payload, **{**named, **properties})


def test_every_example_passes_on_its_topic() -> None:
    """A command with its result and reply, a change, a state, a signal, a cleared one."""
    command = examples()["command"][1]["payload"]
    check(
        [
            received(f"{ROOT}/command/Contact/update", command, response_topic="billing/inbox"),
            received(f"{ROOT}/result/crm-2", RESULT, content_type="application/json"),
            received("billing/inbox", RESULT),
            received(CHANGE_TOPIC, EVENT, content_type="application/cloudevents+json"),
            received(f"{ROOT}/health", examples()["health"][0]["payload"]),
            received("blackroad/signals/FND/OS", examples()["signal"][0]["payload"]),
            received(f"{ROOT}/hole/Lead", b""),
        ],
        (),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        received(CHANGE_TOPIC, {**EVENT, "data": {**EVENT["data"], "version": 0}}),
        received(CHANGE_TOPIC, {**EVENT, "colour": "red"}),
        received(CHANGE_TOPIC, {**EVENT, "id": "lucidia/7"}),
        received(CHANGE_TOPIC, {**EVENT, "specversion": "0.3"}),
        received(CHANGE_TOPIC, {**EVENT, "data": {**EVENT["data"], "record": {"Id": "x", "Phone": 5}}}),
        received(CHANGE_TOPIC, EVENT, qos=0),
        received(CHANGE_TOPIC, EVENT, content_type="application/json"),
        received(CHANGE_TOPIC, b"{"),
        received(f"{ROOT}/news", {}),
        received("billing/inbox", RESULT),  # nobody asked for it there
    ],
)
def test_what_is_not_of_the_contract_is_found(wrong: Received) -> None:
    """Payload, members beyond the models, CloudEvents' own rules, properties, topics."""
    with pytest.raises(AssertionError, match="not of the contract"):
        check([wrong], ())


def test_what_a_test_sends_itself_is_not_the_connectors() -> None:
    """Nor is a request that does not fit, unless it is carried out."""
    check([received(f"{ROOT}/news", b"hello")], [(f"{ROOT}/news", b"hello")])
    request = received(f"{ROOT}/command/Contact/update", {"command_id": "crm-2", "colour": "red"})
    rejected = received(f"{ROOT}/result/crm-2", {**RESULT, "status": "rejected"})
    check([request, rejected], ())
    with pytest.raises(AssertionError, match="does not fit its schema"):
        check([request, received(f"{ROOT}/result/crm-2", RESULT)], ())


@pytest.mark.parametrize(
    ("topic", "reply_to"),
    [("query/Lead/list", "billing/inbox"), ("control/sync", "billing/inbox"), ("control/sync", None)],
)
def test_a_good_reply_to_a_request_that_does_not_fit_is_found(topic: str, reply_to: str | None) -> None:
    """By its address and correlation; a refusal is right, and so is the reply to one that fits."""
    asked = {"colour": "red", "correlation": "7"} | ({"reply_to": reply_to} if reply_to else {})
    request = received(f"{ROOT}/{topic}", asked)
    address = reply_to or f"{ROOT}/reply/sync"
    name = "query_reply" if topic.startswith("query") else "reply"
    good, refusal = (
        {**next(e["payload"] for e in examples()[name] if e["payload"]["ok"] is ok), "correlation": "7"}
        for ok in (True, False)
    )
    check([request, received(address, refusal)], ())
    check([request, received(address, {**good, "correlation": "8"})], ())
    check([received(f"{ROOT}/{topic}", {k: v for k, v in asked.items() if k != "colour"}), received(address, good)], ())
    with pytest.raises(AssertionError, match="does not fit its schema"):
        check([request, received(address, good)], ())
