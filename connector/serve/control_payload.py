"""The JSON of a control message as services publish it, by verb; section 5 of the interface."""

from collections.abc import Mapping

from pydantic import Field

from connector.serve.request import Request


class PlainRequest(Request):
    """`pause`, `resume`, `status`, `schema`: nothing more has to be said. The payload may be empty."""


class SyncRequest(Request):
    """`sync`: catch up now."""

    objects: list[str] | None = Field(None, min_length=1, max_length=1000, description="Without it: every object.")


class VerifyRequest(SyncRequest):
    """`verify`: compare the replica with the org."""

    repair: bool = Field(default=True, description="Put right what differs.")
    allow_deletions: list[str] = Field(
        default_factory=list, max_length=1000, description="Objects of which any number of records may be deleted."
    )


class CommandRequest(Request):
    """`command`: the stored result of a command."""

    command_id: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")


ControlPayload = PlainRequest | SyncRequest | VerifyRequest | CommandRequest
CONTROLS: Mapping[str, type[ControlPayload]] = {
    "sync": SyncRequest,
    "verify": VerifyRequest,
    "pause": PlainRequest,
    "resume": PlainRequest,
    "status": PlainRequest,
    "command": CommandRequest,
    "schema": PlainRequest,
}
