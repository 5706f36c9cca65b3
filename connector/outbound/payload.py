"""The JSON of a command as services publish it; section 3 of the interface."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from connector.errors import CommandRejected
from connector.model.documents import told, whole
from connector.model.times import to_ms

COMMAND_ID = r"^[A-Za-z0-9._:-]{1,128}$"
CommandId = Annotated[str, Field(pattern=COMMAND_ID)]


class ExternalId(BaseModel):
    """The external id that an upsert goes by."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    field: str = Field(min_length=1, max_length=80)
    value: str = Field(min_length=1, max_length=255)


class Base(BaseModel):
    """The state that the sender had seen: either `version` or `last_modified`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,
        json_schema_extra={"oneOf": [told("version"), told("last_modified")]},
    )

    version: int | None = Field(None, ge=0, description="Of a change, or of a record in a reply.")
    last_modified: str | None = Field(None, description="The record's LastModifiedDate: ISO 8601 with an offset or Z.")

    _whole = field_validator("version", mode="before")(whole)

    @field_validator("last_modified")
    @classmethod
    def _date_time(cls, value: str | None) -> str | None:
        if value is not None:
            to_ms(value)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.version is None) == (self.last_modified is None):
            raise ValueError("expected either version or last_modified")
        return self


class CommandPayload(BaseModel):
    """A request to write one record to the org.

    `id` goes with update and delete, `external_id` with upsert, `fields` with create, update and upsert. `record_of`
    stands for an `id` that is not known yet: it names the create or upsert that makes the record. With `dry_run`
    nothing is stored or sent: the result says what would be. Commands on one record run in the order they came.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    command_id: CommandId | None = Field(
        None,
        description="The idempotency key: sent again it is never executed again, its stored result comes instead. "
        "One is made where there is none.",
    )
    id: str | None = Field(None, description="15 or 18 characters.")
    record_of: CommandId | None = Field(None, description="In place of `id`: a command_id.")
    fields: dict[str, Any] | None = Field(
        None, description="API name -> value, in the form that changes have; null empties a field."
    )
    external_id: ExternalId | None = None
    base: Base | None = Field(None, description="Without it the replica's state at acceptance.")
    on_conflict: Literal["reject", "merge", "overwrite"] | None = Field(
        None,
        description="Where the record was changed since `base`: reject, overwrite, or merge: only a field that both "
        "changed is a conflict. Without it as the settings say, usually merge.",
    )
    expires_at: str | None = Field(None, description="Given up on after it: ISO 8601 with an offset or Z.")
    sender: str | None = Field(None, max_length=128, description="Who sends it, for people and the history.")
    reply_to: str | None = Field(
        None, max_length=1024, description="Where the result goes, too; the MQTT 5 Response Topic wins over it."
    )
    correlation: str | None = Field(None, max_length=1024, description="Given back in the result.")
    dry_run: bool | None = Field(None, description="See above.")

    @field_validator("expires_at")
    @classmethod
    def _date_time(cls, value: str | None) -> str | None:
        if value is not None:
            to_ms(value)
        return value


def parse_payload(payload: bytes, max_bytes: int) -> Mapping[str, Any]:
    """The JSON object of a message.

    Raises:
        CommandRejected: Too large, not JSON or not an object.
    """
    if len(payload) > max_bytes:
        raise CommandRejected(f"payload: {len(payload)} bytes; at most {max_bytes} are taken")
    try:
        data = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise CommandRejected("payload: not JSON") from None
    if not isinstance(data, dict):
        raise CommandRejected("payload: expected a JSON object")
    return data


def validate_payload(data: Mapping[str, Any]) -> CommandPayload:
    """The command that `data` is.

    Raises:
        CommandRejected: With one line per wrong member; values are not repeated.
    """
    try:
        return CommandPayload.model_validate(data)
    except ValidationError as error:
        raise CommandRejected(
            *(
                f"{'.'.join(map(str, item['loc'])) or 'payload'}: "
                + ("unknown member" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, "))
                for item in error.errors(include_url=False, include_input=False)
            )
        ) from None
