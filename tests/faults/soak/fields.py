"""The objects of the soak, the fields that people edit, and values for them: awkward texts, nulls, references."""

import random
import string
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from connector.devorg.objects.residents import FIRST_EDITOR_ID, INTEGRATION_USER_ID, SECOND_EDITOR_ID

# A formula over the parent: changed with the parent, and with no event.
FORMULAS: Mapping[str, Mapping[str, Any]] = {
    "Contact": {"name": "Account_Name__c", "type": "string", "calculated": True, "calculatedFormula": "Account.Name"}
}
OBJECTS = ("Account", "Contact", "Lead", "Opportunity", "Invoice__c")
EDITORS = (FIRST_EDITOR_ID, SECOND_EDITOR_ID, INTEGRATION_USER_ID)
_LONG_LINES = (30, 90)
_FEW = 4


class Records(Protocol):
    """What references may point at."""

    def live(self, name: str) -> list[str]:
        """Ids of the live records of an object."""
        ...


Value = Callable[[random.Random, Records], Any]


def _text(rng: random.Random, _records: Records) -> str | None:
    pieces = ("O'Brien", "Zoë", 'say "hi"', "back\\slash", "a\nb", "łódź", "100%_", "漢字", "plain", "x" * 30)
    return rng.choice((None, rng.choice(pieces), f"  {rng.choice(pieces)} ", word(rng), word(rng)))


def _needed(rng: random.Random, records: Records) -> str:
    return (_text(rng, records) or "").strip() or word(rng)


def word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters, k=rng.randint(1, 12)))


def long_text(rng: random.Random, _records: Records) -> str | None:
    """Long enough to be told as a diff the next time."""
    if rng.random() < 0.2:
        return None
    return "\n".join(word(rng) * 3 for _ in range(rng.randint(*_LONG_LINES)))


def _email(rng: random.Random, _records: Records) -> str | None:
    return rng.choice((None, f"{word(rng)}@example.com"))


def _number(rng: random.Random, _records: Records) -> float | None:
    return rng.choice((None, 0.0, round(rng.uniform(-1e4, 1e9), 2), float(rng.randint(1, 10**12))))


def _count(rng: random.Random, _records: Records) -> int | None:
    return rng.choice((None, rng.randint(0, 10**6)))


def _percent(rng: random.Random, _records: Records) -> float:
    return float(rng.randint(0, 100))


def _day(rng: random.Random, _records: Records) -> str:
    return f"20{rng.randint(10, 40)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _maybe_day(rng: random.Random, records: Records) -> str | None:
    return rng.choice((None, _day(rng, records)))


def _flag(rng: random.Random, _records: Records) -> bool:
    return rng.random() < 0.5


def _degrees(rng: random.Random, _records: Records) -> float | None:
    return rng.choice((None, round(rng.uniform(-89, 89), 6)))


def _one_of(*values: Any) -> Value:
    return lambda rng, _records: rng.choice(values)


def _record_of(name: str) -> Value:
    def value(rng: random.Random, records: Records) -> str | None:
        ids = records.live(name)
        return rng.choice((None, *rng.sample(ids, min(len(ids), 3))))

    return value


# The fields that people edit; the first ones are those that a new record must have.
FIELDS: Mapping[str, Mapping[str, Value]] = {
    "Account": {
        "Name": _needed,
        "Industry": _one_of(None, "Energy", "Banking"),
        "AnnualRevenue": _number,
        "NumberOfEmployees": _count,
        "BillingStreet": _text,
        "BillingCity": _text,
        "BillingLatitude": _degrees,
        "Phone": _text,
        "Description": long_text,
        "ParentId": _record_of("Account"),
        "OwnerId": _one_of(*EDITORS),
    },
    "Contact": {
        "LastName": _needed,
        "FirstName": _text,
        "Salutation": _one_of(None, "Ms.", "Dr."),
        "Email": _email,
        "Phone": _text,
        "Title": _text,
        "MailingStreet": _text,
        "MailingCity": _text,
        "MailingCountry": _text,
        "MailingLatitude": _degrees,
        "OtherCity": _text,
        "Birthdate": _maybe_day,
        "Description": long_text,
        "AccountId": _record_of("Account"),
        "ReportsToId": _record_of("Contact"),
        "OwnerId": _one_of(*EDITORS),
    },
    "Lead": {
        "LastName": _needed,
        "Company": _needed,
        "FirstName": _text,
        "Status": _one_of("Open - Not Contacted", "Working - Contacted"),
        "Email": _email,
        "Street": _text,
        "City": _text,
        "AnnualRevenue": _number,
        "Description": long_text,
        "OwnerId": _one_of(*EDITORS),
    },
    "Opportunity": {
        "Name": _needed,
        "StageName": _one_of("Prospecting", "Closed Won", "Closed Lost", "Something Else"),
        "CloseDate": _day,
        "Amount": _number,
        "Probability": _percent,
        "Description": long_text,
        "AccountId": _record_of("Account"),
        "OwnerId": _one_of(*EDITORS),
    },
    "Invoice__c": {
        "Name": _needed,
        "Amount__c": _number,
        "Due__c": _maybe_day,
        "Paid__c": _flag,
        "Contact__c": _record_of("Contact"),
    },
}
# A text that people write into, and commands too.
TEXTS = {"Account": "Phone", "Contact": "Title", "Lead": "City", "Opportunity": "Name", "Invoice__c": "Name"}
REQUIRED = {"Account": 1, "Contact": 1, "Lead": 2, "Opportunity": 3, "Invoice__c": 1}


def values_for(rng: random.Random, records: Records, name: str, *, creating: bool) -> dict[str, Any]:
    """Values for some fields of a record."""
    fields = FIELDS[name]
    names = list(fields)
    chosen = names[: REQUIRED[name]] if creating else []
    chosen += rng.sample(names[REQUIRED[name] if creating else 0 :], rng.randint(0 if creating else 1, _FEW))
    return {field: fields[field](rng, records) for field in chosen}
