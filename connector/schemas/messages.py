"""Every kind of message on the mesh, by the name that the AsyncAPI document gives it, with examples of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from connector.mesh.envelope import CLOUD_EVENT
from connector.schemas.documents import DOCUMENTS
from connector.serve.control_payload import CONTROLS
from connector.serve.query.payload import QUERIES

_JSON = "application/json"
_CLOUD_EVENTS_OVER_MQTT = (
    "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/mqtt-protocol-binding.md"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageType:
    """One kind of message.

    Attributes:
        document: The document (of `DOCUMENTS`) that its payload is, or is one of; None: it is not JSON.
        model: What its payload is checked by.
        schema: In place of a model, of what is not JSON.
        asks: It may name an address for an answer.
        source: Address of the document that defines its form, where that is not ours alone.
    """

    title: str
    document: str | None
    model: Any = None
    schema: Mapping[str, Any] | None = None
    content_type: str = _JSON
    asks: bool = False
    source: str | None = None


def _of(document: str, title: str, *, content_type: str = _JSON, asks: bool = False, source: str | None = None) -> Any:
    model = DOCUMENTS[document].model
    return MessageType(title=title, document=document, model=model, content_type=content_type, asks=asks, source=source)


MESSAGES: Mapping[str, MessageType] = {
    "change": _of(
        "change_event",
        "A change of a record, as a CloudEvent in structured mode",
        content_type=CLOUD_EVENT,
        source=_CLOUD_EVENTS_OVER_MQTT,
    ),
    "record": _of("record", "A record as it stands now"),
    "command": _of("command", "A request to write one record to the org", asks=True),
    "result": _of("result", "What became of a command"),
    **{
        f"query_{verb}": MessageType(title=f"A query: {verb}", document="query", model=model, asks=True)
        for verb, model in QUERIES.items()
    },
    "query_reply": _of("query_reply", "The reply to a query"),
    **{
        f"control_{verb}": MessageType(title=f"A control message: {verb}", document="control", model=model, asks=True)
        for verb, model in CONTROLS.items()
    },
    "reply": _of("reply", "The reply to a control message"),
    "status": _of("status", "Birth, last message and last will"),
    "health": _of("health", "How things stand"),
    "hole": _of("hole", "An interval in which the replica may differ from the org"),
    "mirror": _of("mirror", "How a mirror is"),
    "rejected": _of("rejected", "A message that could not be accepted and named no usable reply address"),
    "signal": _of("signal", "A BlackRoad signal"),
    "signal_in": MessageType(
        title="A BlackRoad signal, as a line of text or as the JSON object of a signal",
        document=None,
        schema={
            "type": "string",
            "description": "`🔄 OS → FND : sync…`, with the settings' codes, asks for a catch-up; others are logged.",
            "maxLength": 4096,
        },
        content_type="text/plain",
    ),
    "empty": MessageType(
        title="An empty payload: what was retained is gone, or a try whether the broker takes a message",
        document=None,
        schema={"type": "string", "maxLength": 0},
        content_type="text/plain",
    ),
}


@cache
def examples() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Name of a message -> examples of it, each with `name` and `payload`."""
    found: Mapping[str, Sequence[Mapping[str, Any]]] = json.loads(
        files("connector.schemas").joinpath("examples.json").read_bytes()
    )
    return found
