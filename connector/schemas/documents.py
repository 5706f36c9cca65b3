"""JSON Schemas of the messages on the mesh, made of the models that check them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from connector.model.documents import (
    ChangeDocument,
    ChangeEventDocument,
    HealthDocument,
    HoleDocument,
    MirrorDocument,
    QueryRefusalDocument,
    QueryReplyDocument,
    RecordDocument,
    RefusalDocument,
    RejectedDocument,
    ReplyDocument,
    ResultDocument,
    SignalDocument,
    StatusDocument,
)
from connector.outbound.payload import CommandPayload
from connector.serve.control_payload import ControlPayload
from connector.serve.query.payload import QueryPayload

DIALECT = "https://json-schema.org/draft/2020-12/schema"
URN = "urn:blackroad:salesforce"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Described:
    """One document that is published or accepted.

    Attributes:
        direction: Who has to cope with a change of it: who reads what is published, or who writes what is accepted.
        where: The topics that it stands on.
    """

    direction: Literal["published", "accepted"]
    where: str
    model: Any


# `change` is what the `dataschema` of a change event names.
DOCUMENTS: Mapping[str, Described] = {
    "change_event": Described("published", "on {root}/change/{Object}/{operation}/{Id}", ChangeEventDocument),
    "change": Described("published", "`data` of a change event", ChangeDocument),
    "record": Described("published", "on {root}/record/{Object}/{Id}, retained", RecordDocument),
    "command": Described("accepted", "on {root}/command/{Object}/{operation}", CommandPayload),
    "result": Described("published", "on {root}/result/{command_id} and the command's reply address", ResultDocument),
    "query": Described(
        "accepted", "on {root}/query/{Object}/{verb}: get, list, search, count, changes, describe", QueryPayload
    ),
    "query_reply": Described("published", "on the query's reply address", QueryReplyDocument | QueryRefusalDocument),
    "control": Described(
        "accepted",
        "on {root}/control/{verb}: sync, verify, pause, resume, status, command, schema; an empty payload will do",
        ControlPayload,
    ),
    "reply": Described(
        "published", "on the reply address, else on {root}/reply/{verb}", ReplyDocument | RefusalDocument
    ),
    "status": Described("published", "on {root}/status, retained", StatusDocument),
    "mirror": Described("published", "on {root}/mirror/{node}, retained", MirrorDocument),
    "health": Described(
        "published", "on {root}/health, retained; also `data` of the reply to `status`", HealthDocument
    ),
    "hole": Described("published", "on {root}/hole/{Object}, retained while open", HoleDocument),
    "rejected": Described("published", "on {root}/rejected", RejectedDocument),
    "signal": Described("published", "on blackroad/signals/{FROM}/{TO}", SignalDocument),
}


class Plain(GenerateJsonSchema):
    """Without titles that only repeat the members' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        """Never."""
        return False


def schemas() -> dict[str, dict[str, Any]]:
    """Name -> JSON Schema 2020-12 of the message; each stands alone."""
    return {name: _schema(name, described) for name, described in DOCUMENTS.items()}


def _schema(name: str, described: Described) -> dict[str, Any]:
    made = TypeAdapter(described.model).json_schema(schema_generator=Plain)
    head = {"$schema": DIALECT, "$id": f"{URN}:{name}:{VERSION}", "title": name, "$comment": described.where}
    return head | made | {"title": name}
