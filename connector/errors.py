"""The error tree: the base class says how to react.

Library exceptions are translated into these once, at the three doors (`salesforce/`, `mesh/`, `store/`), with
`raise ... from error`. What is unknown is fatal, not transient.
"""

from connector.model.command import OrgProblem


class ConnectorError(Exception):
    """Everything this program raises on purpose."""


class ConfigError(ConnectorError):
    """The settings cannot work: say all that is wrong, exit 2.

    Attributes:
        problems: One line per problem, naming key, value and what was expected.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TransientError(ConnectorError):
    """Wait, then do the same again.

    Attributes:
        retry_after_s: How long the other side asked us to wait, seconds; None where it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LinkDown(TransientError):
    """A connection broke, timed out or answered with something that is not its protocol."""


class BrokerDown(LinkDown):
    """The broker cannot be reached, or the connection to it broke."""


class OrgUnavailable(TransientError):
    """The org answered that it cannot serve now (HTTP 5xx, SERVER_UNAVAILABLE, maintenance)."""


class OrgThrottled(TransientError):
    """The org's API quota, or our own ceiling, is used up for now."""


class LoginRefused(TransientError):
    """The org refused the credentials: a person must mend them, or the org; asking again soon could lock the user out.

    The daemon stays up and tries again after a long wait; other commands exit 3.
    """


class RowLocked(TransientError):
    """UNABLE_TO_LOCK_ROW and its kin: the same write may succeed in a moment."""


class StoreBusy(TransientError):
    """Another process holds the database's write lock."""


class SearchNotReady(TransientError):
    """The full-text index of an object is still being made."""


class ReplayWindowLost(TransientError):
    """The org no longer knows the replay id: subscribe at new events, catch up by query, announce the hole."""


class PoisonError(ConnectorError):
    """This item never works: park it with its reason and go on."""


class UndecodableEvent(PoisonError):
    """A change event that does not have the documented shape."""


class QueryTooSlow(PoisonError):
    """A query of the replica that was ended at its time limit: ask for less."""


class OrgRefused(PoisonError):
    """The org refused one request for good.

    Attributes:
        status: HTTP status.
        errors: The org's own errors, each with `code`, `message` and `fields`.
    """

    def __init__(self, status: int, errors: tuple[OrgProblem, ...]) -> None:
        super().__init__(f"HTTP {status}: " + ", ".join(sorted({e["code"] for e in errors})))
        self.status = status
        self.errors = errors

    @property
    def codes(self) -> frozenset[str]:
        """The error codes the org gave."""
        return frozenset(e["code"] for e in self.errors)


class StreamRefused(OrgRefused):
    """The org refuses the streaming channel; its words name the channel or the permission, and hold no field value."""

    def __str__(self) -> str:
        return "; ".join(error["message"] for error in self.errors)


class PreconditionFailed(OrgRefused):
    """HTTP 412: the record was modified since the state the write was conditional on."""


class RecordGone(OrgRefused):
    """The record is deleted or was never there (ENTITY_IS_DELETED, NOT_FOUND)."""


class CommandRejected(PoisonError):
    """A command that must never reach the org.

    Attributes:
        problems: One line per wrong field.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class FatalError(ConnectorError):
    """Going on would lose data: stop, exit 1."""


class StoreFull(FatalError):
    """The disk, or the database's page limit, is full."""


class StoreUnusable(FatalError):
    """The database is corrupt, locked by another daemon, not ours or of a newer version: exit 2, file untouched."""


class AnotherOrg(StoreUnusable):
    """The login is of another org than the one whose records the database holds."""


class StoreLocked(StoreUnusable):
    """Another daemon works on the database."""


class BrokerRefused(FatalError):
    """The broker refused the connection for good (bad credentials, not authorised). Exit 4."""
