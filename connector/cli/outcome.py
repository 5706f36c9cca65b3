"""How a command ends: exit codes and error lines."""

from collections.abc import Iterator

from connector.errors import (
    BrokerDown,
    BrokerRefused,
    ConfigError,
    ConnectorError,
    LinkDown,
    LoginRefused,
    OrgUnavailable,
    StoreUnusable,
)

FAILED, WRONG_USAGE, NO_ORG, NO_BROKER = 1, 2, 3, 4


def exit_code(error: ConnectorError) -> int:
    """The exit code that tells a script what kind of failure it was; section 8 of the interface."""
    match error:
        case ConfigError() | StoreUnusable():
            return WRONG_USAGE
        case BrokerDown() | BrokerRefused():
            return NO_BROKER
        case LoginRefused() | LinkDown() | OrgUnavailable():
            return NO_ORG
        case _:
            return FAILED


def lines_of(error: ConnectorError) -> Iterator[str]:
    """One line per problem."""
    if isinstance(error, ConfigError):
        yield from error.problems
    else:
        yield str(error)
