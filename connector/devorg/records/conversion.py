"""Lead conversion: one transaction that makes an account, a contact, maybe an opportunity, and closes the lead.

Source: Change Data Capture Developer Guide, "Change Event Considerations for Lead Conversion"; SOAP API Developer
Guide, "convertLead()".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.records.saving import create
from connector.devorg.records.work import Work

CONVERTED_STATUS = "Closed - Converted"
_TO_ACCOUNT = {
    "Company": "Name",
    "Phone": "Phone",
    "Fax": "Fax",
    "Website": "Website",
    "Industry": "Industry",
    "Rating": "Rating",
    "AnnualRevenue": "AnnualRevenue",
    "NumberOfEmployees": "NumberOfEmployees",
    "LeadSource": "AccountSource",
    "OwnerId": "OwnerId",
    "Street": "BillingStreet",
    "City": "BillingCity",
    "State": "BillingState",
    "PostalCode": "BillingPostalCode",
    "Country": "BillingCountry",
}
_TO_CONTACT = {
    "FirstName": "FirstName",
    "LastName": "LastName",
    "Salutation": "Salutation",
    "Title": "Title",
    "Email": "Email",
    "Phone": "Phone",
    "MobilePhone": "MobilePhone",
    "Fax": "Fax",
    "LeadSource": "LeadSource",
    "Description": "Description",
    "OwnerId": "OwnerId",
    "Street": "MailingStreet",
    "City": "MailingCity",
    "State": "MailingState",
    "PostalCode": "MailingPostalCode",
    "Country": "MailingCountry",
}
_TO_OPPORTUNITY = {"LeadSource": "LeadSource", "OwnerId": "OwnerId"}
_FIRST_STAGE = "Prospecting"
_QUARTER_MONTHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a conversion is asked for; see `Transaction.convert_lead`."""

    status: str
    account_id: str | None
    contact_id: str | None
    opportunity_name: str | None
    create_opportunity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Ids of what a lead became."""

    account_id: str
    contact_id: str
    opportunity_id: str | None


def convert(work: Work, lead_id: str, order: Order) -> Converted:
    """Convert a lead; its own update comes last, as in the org's events.

    Raises:
        OrgError: The lead is missing, deleted, locked or converted already, or what it is to become is refused.
    """
    schema = work.object_for("Lead", "update")
    lead = work.live(schema, lead_id)
    if lead["IsConverted"]:
        raise OrgError(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", [])
    account_id = _target(work, "Account", order.account_id, _mapped(lead, _TO_ACCOUNT))
    contact = {**_mapped(lead, _TO_CONTACT), "AccountId": account_id}
    contact_id = _target(work, "Contact", order.contact_id, contact)
    opportunity_id = None
    if order.create_opportunity:
        opportunity_id = _open_opportunity(work, lead, account_id, order)
    today = work.stamps()["SystemModstamp"][:10]
    closed = {
        "Status": order.status,
        "IsConverted": True,
        "ConvertedDate": today,
        "ConvertedAccountId": account_id,
        "ConvertedContactId": contact_id,
        "ConvertedOpportunityId": opportunity_id,
    }
    work.write(schema, lead, {**lead, **work.stamps(), **closed})
    return Converted(account_id=account_id, contact_id=contact_id, opportunity_id=opportunity_id)


def _target(work: Work, name: str, existing: str | None, values: Mapping[str, Any]) -> str:
    if existing is None:
        return create(work, name, values)
    return str(work.live(work.object_for(name, "update"), existing)["Id"])


def _open_opportunity(work: Work, lead: Mapping[str, Any], account_id: str, order: Order) -> str:
    values = {
        **_mapped(lead, _TO_OPPORTUNITY),
        "Name": (order.opportunity_name or f"{lead['Company']}-")[:120],
        "AccountId": account_id,
        "StageName": _FIRST_STAGE,
        "CloseDate": _quarter_end(date.fromisoformat(work.stamps()["SystemModstamp"][:10])).isoformat(),
    }
    return create(work, "Opportunity", values)


def _mapped(lead: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {target: lead[source] for source, target in names.items() if lead.get(source) is not None}


def _quarter_end(day: date) -> date:
    """Return the last day of the quarter, the close date Salesforce gives to a converted lead's opportunity."""
    month = (day.month - 1) // _QUARTER_MONTHS * _QUARTER_MONTHS + _QUARTER_MONTHS
    next_month = date(day.year + month // 12, month % 12 + 1, 1)
    return next_month - timedelta(days=1)
