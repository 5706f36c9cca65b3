"""The replica from Python: what `from connector import SFSync` gives."""

from connector.client.models import Account, Contact, Lead, Opportunity, Record
from connector.client.sync import SFSync

__all__ = ["Account", "Contact", "Lead", "Opportunity", "Record", "SFSync"]
