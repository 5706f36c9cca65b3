"""What a watcher has seen, message by message, against schemas/asyncapi.yaml and the models.

A consumer may ignore members that it does not know; what this release publishes has none beyond its models.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator
from paho.mqtt.client import topic_matches_sub
from pydantic import TypeAdapter

from connector.schemas.messages import MESSAGES
from tests.e2e.watcher import ROOT, Received
from tests.validated import VALIDATED

_ASYNCAPI = Path(__file__).parents[2] / "schemas" / "asyncapi.yaml"
_ASKED = {"command": "answerToCommand", "query": "answerToQuery", "control": "answerToControl"}


@dataclass
class Findings:
    """What did not fit.

    Attributes:
        wrong: Of what was published, one line each.
        refusable: Requests that fit no schema: the connector must refuse them.
    """

    wrong: list[str] = field(default_factory=list)
    refusable: list[Received] = field(default_factory=list)


def check(messages: Sequence[Received], sent: Iterable[tuple[str, bytes]]) -> None:
    """Every message that came from the connector fits its channel, and no request that does not fit was accepted.

    Args:
        messages: All that a subscriber to `#` has received.
        sent: What the test itself published.
    """
    published_by_test = set(sent)
    messages = [replace(message, topic=_below_one_root(message.topic)) for message in messages]
    addresses = _reply_addresses(messages)
    findings = Findings()
    for message in messages:
        channel = addresses.get(message.topic) or _channel(message.topic)
        if channel in _ASKED:
            _check_request(channel, message, findings)
        elif (message.topic, message.payload) not in published_by_test:
            _check_published(channel, message, findings)
    findings.wrong += _accepted(messages, findings.refusable)
    findings.wrong += _answered(messages, findings.refusable)
    assert not findings.wrong, f"{len(findings.wrong)} messages are not of the contract:\n" + "\n".join(
        findings.wrong[:10]
    )


def _below_one_root(topic: str) -> str:
    """A connector may have another root than the default one: `blackroad/salesforce-aria`."""
    return re.sub(rf"^{ROOT}-\w+/", f"{ROOT}/", topic)


def _reply_addresses(messages: Iterable[Received]) -> dict[str, str]:
    """Topic -> channel of the answers that were asked for there; topics of the contract keep their own."""
    found: dict[str, str] = {}
    for message in messages:
        channel = _channel(message.topic)
        address = message.response_topic or _member(message, "reply_to")
        if channel in _ASKED and address and _channel(address) in (None, "reply"):
            found[address] = "anyAnswer"
    return found


def _member(message: Received, name: str) -> str | None:
    try:
        document = json.loads(message.payload)
    except ValueError:
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else None


def _check_request(channel: str, message: Received, findings: Findings) -> None:
    verb = message.topic.rpartition("/")[2]
    name = channel if channel == "command" else f"{channel}_{verb}"
    # Nothing is taken for an object without members; but of a command.
    payload = message.payload if channel == "command" else message.payload or b"{}"
    if name in MESSAGES and _problem(name, payload) is None:
        VALIDATED[name] += 1
    else:
        findings.refusable.append(message)


def _check_published(channel: str | None, message: Received, findings: Findings) -> None:
    if channel is None:
        findings.wrong.append(f"{message.topic}: no such channel: {message.payload[:200]!r}")
        return
    problems = {}
    for name in _names(channel):
        problem = _problem(name, message.payload) or _properties(name, message)
        if problem is None:
            VALIDATED[name] += 1
            return
        problems[name] = problem
    findings.wrong.append(f"{message.topic}: {problems} {message.payload[:300]!r}")


def _properties(name: str, message: Received) -> str | None:
    """QoS and content type; MQTT 3.1.1 has none of the latter, and a retained message is cleared without."""
    if message.qos != 1:
        return f"QoS {message.qos}"
    expected = {None, MESSAGES[name].content_type, *(["application/json"] if name == "empty" else [])}
    return None if message.content_type in expected else f"content type {message.content_type}"


def _answered(messages: Sequence[Received], refusable: Iterable[Received]) -> list[str]:
    """Good replies to queries and control messages that fit no schema, where what was asked can be told from them."""
    asked = Counter(_asked(message) for message in messages if _channel(message.topic) in ("query", "control"))
    unfit = {_asked(message): message for message in refusable}
    return [
        f"{message.topic}: answered {unfit[key].topic}, which does not fit its schema: {unfit[key].payload[:200]!r}"
        for message in messages
        if (key := (message.topic, _correlation(message))) in unfit and asked[key] == 1 and _says_ok(message)
    ]


def _asked(message: Received) -> tuple[str, str | None]:
    """Where the reply to a request goes, and by what it is known there."""
    verb = message.topic.rpartition("/")[2]
    address = message.response_topic or _member(message, "reply_to") or f"{ROOT}/reply/{verb}"
    return address, _correlation(message)


def _correlation(message: Received) -> str | None:
    data = message.correlation
    return data.decode("utf-8", "replace") if data is not None else _member(message, "correlation")


def _says_ok(message: Received) -> bool:
    try:
        document = json.loads(message.payload)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("ok") is True


def _accepted(messages: Iterable[Received], refusable: Iterable[Received]) -> list[str]:
    """Results of commands that fit no schema, but for rejections and those of an id that came rightly, too."""
    ids = {_member(message, "command_id") for message in refusable} - {None}
    right = {
        _member(message, "command_id")
        for message in messages
        if _channel(message.topic) == "command" and _problem("command", message.payload) is None
    }
    return [
        f"{message.topic}: {message.json['status']}, of a command that does not fit its schema"
        for message in messages
        if _channel(message.topic) == "result"
        and message.json["command_id"] in ids - right
        and message.json["status"] != "rejected"
    ]


def _problem(name: str, payload: bytes) -> str | None:
    """Why a payload is not such a message, or None."""
    message = MESSAGES[name]
    if message.schema is not None:
        value: Any = payload.decode(errors="replace")
    else:
        try:
            value = json.loads(payload)
        except ValueError:
            return "not JSON"
    error = next(_validator(name).iter_errors(value), None)
    if error is not None:
        return f"{'.'.join(map(str, error.absolute_path)) or 'payload'}: {error.message[:200]}"
    if message.schema is None:
        try:
            _adapter(name).validate_json(payload)
        except ValueError as unknown:
            return str(unknown)
    return (_cloud_event_problem(value, payload) or _record_problem(value["data"])) if name == "change" else None


def _cloud_event_problem(document: Mapping[str, Any], payload: bytes) -> str | None:
    """Why CloudEvents' own library reads something else from a change, or None."""
    event = JSONFormat().read(CloudEvent, payload)
    data = event.get_data()
    assert isinstance(data, dict)
    read = (event.get_id(), event.get_source(), event.get_type(), event.get_subject(), event.get_dataschema(), data)
    told = tuple(document[name] for name in ("id", "source", "type", "subject", "dataschema", "data"))
    node, operation, subject = event.get_source().split("/")[1], data["operation"], f"{data['object']}/{data['id']}"
    composed = (f"{node}/{data['version']}", f"blackroad.salesforce.record.{operation}", subject)
    return None if read == told and composed == (read[0], read[2], read[3]) else f"read as {read}"


def _record_problem(data: Mapping[str, Any]) -> str | None:
    """Why the record of a change is not of its object's schema, or None. Which fields are synced, the settings say."""
    validator = _record_validator(data["object"])
    for member in ("before", "after", "record"):
        error = next(validator.iter_errors(data[member] or {}), None) if validator is not None else None
        if error is not None:
            return f"{member}.{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
    return None


@cache
def _record_validator(object_name: str) -> Draft202012Validator | None:
    path = _ASYNCAPI.parent / "objects" / f"{object_name}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_bytes())
    return Draft202012Validator({"properties": schema["properties"]})


@cache
def _document() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load(_ASYNCAPI.read_text(encoding="utf-8"))
    return document


@cache
def _patterns() -> Mapping[str, str]:
    """Topic filter -> channel."""
    found = {}
    for name, channel in _document()["channels"].items():
        if channel["address"] is not None:
            levels = ("+" if level.startswith("{") else level for level in channel["address"].split("/"))
            found["/".join(levels)] = name
    return found


@cache
def _channel(topic: str) -> str | None:
    return next((name for pattern, name in _patterns().items() if topic_matches_sub(pattern, topic)), None)


def _names(channel: str) -> Sequence[str]:
    if channel == "anyAnswer":  # several kinds of requests may name one address
        return [name for answers in _ASKED.values() for name in _document()["channels"][answers]["messages"]]
    return list(_document()["channels"][channel]["messages"])


@cache
def _validator(name: str) -> Draft202012Validator:
    document = _document()
    payload = document["components"]["messages"][name]["payload"]
    return Draft202012Validator({**payload, "components": document["components"]})


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(MESSAGES[name].model)
