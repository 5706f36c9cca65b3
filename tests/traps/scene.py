"""The records and the fields that the traps are about."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from tests.copies import ORIGIN, Copy

Making = Callable[..., AbstractAsyncContextManager[Copy]]

CONTACT_FIELDS = (
    "AccountId", "Birthdate", "Description", "Email", "FirstName", "LastModifiedDate", "LastName", "MailingCity",
    "MailingStreet", "Name", "OwnerId", "Phone", "Salutation",
)  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {
    "Account": ("BillingCity", "BillingStreet", "Description", "Industry", "Name", "OwnerId", "Phone"),
    "Contact": CONTACT_FIELDS,
    "Lead": ("Company", "ConvertedAccountId", "ConvertedDate", "FirstName", "IsConverted", "LastModifiedDate",
             "LastName", "Name", "Status"),
    "Opportunity": ("AccountId", "Amount", "CloseDate", "Name", "OwnerId", "StageName"),
}  # fmt: skip
CONTACTS = {"Contact": CONTACT_FIELDS}
LONG = "\n".join(f"Row {n:02d} " + "x" * 60 for n in range(1, 41))


def seed(org: DevOrg) -> None:
    """Three of each."""
    with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
        for n in range(3):
            account = t.create("Account", {"Name": f"Acme {n}", "BillingCity": "Bergen", "BillingStreet": "1 Quay Rd"})
            name = {"FirstName": "Jane", "LastName": f"Doe {n}"}
            address = {"MailingCity": "Bergen", "MailingStreet": "1 Quay Rd"}
            t.create("Contact", {**name, **address, "AccountId": account, "Birthdate": "1990-01-02", "Phone": "0"})
            t.create("Lead", {"FirstName": "Ola", "LastName": f"Berg {n}", "Company": f"Berg {n}"})
            deal: dict[str, Any] = {"StageName": "Prospecting", "CloseDate": "2026-12-24", "Amount": 10.5 * n}
            t.create("Opportunity", {"Name": f"Deal {n}", "AccountId": account, **deal})


def stand_still(org: DevOrg) -> None:
    """From here on the org's clock shows one and the same second (it never runs backwards)."""
    org.ctx.clock.advance(-3600)


def is_connecting(org: DevOrg) -> bool:
    """Whether a request of a CometD session waits at the org: between two of them there is nothing to cut off."""
    return any(request.path.startswith("/cometd/") for request in org.ctx.requests.values())
