"""What becomes of a write."""

from collections.abc import Mapping, Sequence
from typing import Any

from connector.client.models import Record, mark_made
from connector.client.source import Source

FINAL = frozenset({"succeeded", "failed", "conflict", "rejected", "expired", "unknown"})


class CommandResult(dict[str, Any]):
    """A command's result as section 3 of the interface has it: `result["status"]`, or `result.status`."""

    @property
    def status(self) -> str:
        """accepted, then one of succeeded, failed, conflict, rejected, expired, unknown."""
        return str(self["status"])

    @property
    def succeeded(self) -> bool:
        """True if the org took it."""
        return self.status == "succeeded"

    @property
    def id(self) -> str | None:
        """The record's id, as soon as the org has told it."""
        found: str | None = self["id"]
        return found

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """The org's errors, each with `code`, `message` and `fields`."""
        errors: Sequence[Mapping[str, Any]] = self["errors"]
        return errors

    @property
    def conflict(self) -> Mapping[str, Any] | None:
        """Field -> base, local and remote value, where somebody else had changed it."""
        found: Mapping[str, Any] | None = self["conflict"]
        return found


class Pending:
    """A command that is on disk.

    Attributes:
        command_id: Under which anybody can ask for its result.
    """

    def __init__(self, source: Source, command_id: str, record: Record | None = None) -> None:
        """`record` gets its id once the org has made it."""
        self.command_id = command_id
        self._source = source
        self._record = record

    @property
    def result(self) -> CommandResult:
        """As it stands now."""
        return self._told(self._source.result(self.command_id))

    def wait(self, timeout: float | None = None) -> CommandResult:
        """The final result; without a running daemon there is none before `push` or the daemon's next start.

        Args:
            timeout: Seconds; None: however long it takes.

        Raises:
            TimeoutError: There is none yet; the command stays queued.
        """
        result = self._source.wait(self.command_id, timeout)
        if result is None:
            raise TimeoutError(f"command {self.command_id} has no result within {timeout} s: does the daemon run?")
        return self._told(result)

    def _told(self, result: Mapping[str, Any]) -> CommandResult:
        told = CommandResult(result)
        if self._record is not None and told.succeeded and told.id is not None:
            mark_made(self._record, told.id)
        return told

    def __repr__(self) -> str:
        return f"<command {self.command_id}: {self.result.status}>"
