"""What every request from the mesh has in common: its JSON, where its reply goes and what that carries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from connector.errors import PoisonError
from connector.model.documents import whole
from connector.model.message import Delivery

_MAX_PROBLEMS = 20


class ReplyRules(Protocol):
    """Where replies may go."""

    def reply_problem(self, address: str) -> str | None:
        """Why a reply address must not be used, or None."""
        ...


class Request(BaseModel):
    """What every request may hold."""

    # Built when the first one comes; so the daemon is at work a little sooner.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    reply_to: str | None = Field(None, description="Where the reply goes; the MQTT 5 Response Topic wins over it.")
    correlation: str | None = Field(None, max_length=1024, description="Given back in the reply.")

    _whole = field_validator("limit", "since", mode="before", check_fields=False)(whole)


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a reply goes and what it carries.

    Attributes:
        correlation: As text in the reply's JSON.
        correlation_data: MQTT 5 Correlation Data, given back as it came.
    """

    verb: str
    topic: str
    correlation: str | None = None
    correlation_data: bytes | None = None


class Refused(Exception):
    """The request cannot be served; the reply says so.

    Attributes:
        code: For programs; the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def asker_of(verb: str, delivery: Delivery, fields: Mapping[str, Any], rules: ReplyRules, default: str | None) -> Asker:
    """Who asked; section 1 of the interface.

    Args:
        verb: Of the topic.
        delivery: The message.
        fields: The members of its payload, not validated.
        rules: Of reply addresses.
        default: For whoever named no reply address.

    Raises:
        PoisonError: The reply address must not be used, or there is none: report the message as rejected.
    """
    named, told = fields.get("reply_to"), fields.get("correlation")
    address = delivery.response_topic or (named if isinstance(named, str) else None)
    if address is not None:
        problem = rules.reply_problem(address)
        if problem is not None:
            raise PoisonError(problem)
    correlation = told if isinstance(told, str) else None
    if delivery.correlation is not None:
        correlation = delivery.correlation.decode("utf-8", "replace")
    topic = address or default
    if topic is None:
        raise PoisonError("the message names no reply address")
    return Asker(verb, topic, correlation, delivery.correlation)


def parsed(payload: bytes, max_bytes: int) -> tuple[Mapping[str, Any], str | None]:
    """The members of a payload (none if it is empty), or what is wrong with it."""
    if not payload:
        return {}, None
    if len(payload) > max_bytes:
        return {}, f"the payload has more than {max_bytes} bytes"
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}, "the payload is not JSON"
    if not isinstance(document, dict):
        return {}, "the payload is not a JSON object"
    return document, None


def invalid(error: ValidationError) -> Refused:
    """The refusal that names every wrong member."""
    problems = (
        f"{'.'.join(map(str, item['loc']))[:100]}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False)[:_MAX_PROBLEMS]
    )
    return Refused("invalid_request", "; ".join(problems))
