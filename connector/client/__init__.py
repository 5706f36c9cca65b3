"""The replica from Python: what `from connector import SFSync` gives."""

from connector.client.models import Account, Contact, Lead, Opportunity, Record
from connector.client.pending import CommandResult, Pending
from connector.client.sync import SFSync

__all__ = ["Account", "CommandResult", "Contact", "Lead", "Opportunity", "Pending", "Record", "SFSync"]
