"""A SQLite replica of Salesforce records, kept current and published over MQTT."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.client import Account, CommandResult, Contact, Lead, Opportunity, Pending, Record, SFSync

__all__ = ["Account", "CommandResult", "Contact", "Lead", "Opportunity", "Pending", "Record", "SFSync"]


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: every part of the package is imported through here."""
    if name not in __all__:
        raise AttributeError(f"module 'connector' has no attribute {name!r}")
    from connector import client  # noqa: PLC0415 - see above

    return getattr(client, name)
