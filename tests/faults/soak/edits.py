"""What people and the org itself do to records: every kind of write, several of them in one transaction."""

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connector.devorg.context import UI_ORIGIN, Context
from connector.devorg.database import quoted
from connector.devorg.errors import OrgError
from connector.devorg.objects.rendering import decoded
from connector.devorg.objects.residents import FIRST_EDITOR_ID, INTEGRATION_USER_ID, SECOND_EDITOR_ID
from connector.devorg.records.transaction import Transaction
from connector.devorg.records.work import Record

OBJECTS = ("Account", "Contact", "Lead", "Opportunity", "Invoice__c")
_EDITORS = (FIRST_EDITOR_ID, SECOND_EDITOR_ID, INTEGRATION_USER_ID)
_LONG_LINES = (12, 60)
_FEW = 4

Value = Callable[[random.Random, "Editor"], Any]


def _text(rng: random.Random, _editor: "Editor") -> str | None:
    pieces = ("O'Brien", "Zoë", 'say "hi"', "back\\slash", "a\nb", "łódź", "100%_", "漢字", "plain", "x" * 30)
    return rng.choice((None, rng.choice(pieces), f"  {rng.choice(pieces)} ", _word(rng), _word(rng)))


def _needed(rng: random.Random, editor: "Editor") -> str:
    return (_text(rng, editor) or "").strip() or _word(rng)


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters, k=rng.randint(1, 12)))


def _long(rng: random.Random, _editor: "Editor") -> str | None:
    """Long enough to be told as a diff the next time."""
    if rng.random() < 0.2:
        return None
    return "\n".join(_word(rng) * 3 for _ in range(rng.randint(*_LONG_LINES)))


def _email(rng: random.Random, _editor: "Editor") -> str | None:
    return rng.choice((None, f"{_word(rng)}@example.com"))


def _number(rng: random.Random, _editor: "Editor") -> float | None:
    return rng.choice((None, 0.0, round(rng.uniform(-1e4, 1e9), 2), float(rng.randint(1, 10**12))))


def _count(rng: random.Random, _editor: "Editor") -> int | None:
    return rng.choice((None, rng.randint(0, 10**6)))


def _percent(rng: random.Random, _editor: "Editor") -> float:
    return float(rng.randint(0, 100))


def _day(rng: random.Random, _editor: "Editor") -> str:
    return f"20{rng.randint(10, 40)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _maybe_day(rng: random.Random, editor: "Editor") -> str | None:
    return rng.choice((None, _day(rng, editor)))


def _flag(rng: random.Random, _editor: "Editor") -> bool:
    return rng.random() < 0.5


def _degrees(rng: random.Random, _editor: "Editor") -> float | None:
    return rng.choice((None, round(rng.uniform(-89, 89), 6)))


def _one_of(*values: Any) -> Value:
    return lambda rng, _editor: rng.choice(values)


def _record_of(name: str) -> Value:
    def value(rng: random.Random, editor: "Editor") -> str | None:
        ids = editor.live(name)
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
        "Description": _long,
        "ParentId": _record_of("Account"),
        "OwnerId": _one_of(*_EDITORS),
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
        "Description": _long,
        "AccountId": _record_of("Account"),
        "ReportsToId": _record_of("Contact"),
        "OwnerId": _one_of(*_EDITORS),
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
        "Description": _long,
        "OwnerId": _one_of(*_EDITORS),
    },
    "Opportunity": {
        "Name": _needed,
        "StageName": _one_of("Prospecting", "Closed Won", "Closed Lost", "Something Else"),
        "CloseDate": _day,
        "Amount": _number,
        "Probability": _percent,
        "Description": _long,
        "AccountId": _record_of("Account"),
        "OwnerId": _one_of(*_EDITORS),
    },
    "Invoice__c": {
        "Name": _needed,
        "Amount__c": _number,
        "Due__c": _maybe_day,
        "Paid__c": _flag,
        "Contact__c": _record_of("Contact"),
    },
}
_REQUIRED = {"Account": 1, "Contact": 1, "Lead": 2, "Opportunity": 3, "Invoice__c": 1}
_LONG_FIELDS = ("Description", "Notes__c")


@dataclass(frozen=True, slots=True)
class Done:
    """What an edit did, in a line, and what kind of check it takes to find it where no event tells of it.

    Attributes:
        needs: `sync` (a poll) or `verify` (a comparison); empty: its events tell everything.
        held: Key of the transaction that is held open.
    """

    line: str
    needs: frozenset[str] = frozenset()
    held: str | None = None


class Editor:
    """Edits in one org.

    Args:
        context: The org.
        unseen: Also does what only a comparison can find: purges, recalculations.
    """

    def __init__(self, context: Context, *, unseen: bool) -> None:
        self._context = context
        self._kinds = {kind: what for kind, what in _KINDS.items() if unseen or "verify" not in what[1]}

    def live(self, name: str) -> list[str]:
        """Ids of the live records of an object."""
        return [row["Id"] for row in self.rows(name) if not row["IsDeleted"]]

    def rows(self, name: str) -> list[Record]:
        """Every record as stored, deleted ones too."""
        schema = self._context.schema.require(name)
        statement = f'SELECT * FROM {quoted(schema.table)} ORDER BY "Id"'  # noqa: S608 - the schema's own name
        return [decoded(schema, row) for row in self._context.database.connection.execute(statement)]

    def edit(self, rng: random.Random, *, most: int = 1, hold: bool = False, announce: bool = True) -> Done:
        """One transaction with some writes; those that the org refuses are left out.

        Args:
            rng: Decides on everything.
            most: Writes at most.
            hold: It stays open.
            announce: Its events are given.
        """
        needs: set[str] = set() if announce else {"sync"}
        lines: list[str] = []
        with self._context.org.transaction(rng.choice(_EDITORS), UI_ORIGIN, hold, announce=announce) as transaction:
            for _ in range(rng.randint(1, most)):
                kind = rng.choices(list(self._kinds), [weight for weight, _, _ in self._kinds.values()])[0]
                _, need, work = self._kinds[kind]
                try:
                    lines.append(work(self, transaction, rng))
                    needs |= need
                except OrgError as error:
                    lines.append(f"{kind} refused: {error.code}")
        line = f"{'held ' if hold else ''}{'' if announce else 'silent '}{transaction.key[:8]}: " + "; ".join(lines)
        return Done(line, frozenset(needs), transaction.key if hold else None)

    def values(self, rng: random.Random, name: str, *, creating: bool) -> dict[str, Any]:
        """Values for some fields of a record."""
        fields = FIELDS[name]
        names = list(fields)
        chosen = names[: _REQUIRED[name]] if creating else []
        chosen += rng.sample(names[_REQUIRED[name] if creating else 0 :], rng.randint(0 if creating else 1, _FEW))
        return {field: fields[field](rng, self) for field in chosen}


def _create(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS)
    record_id = transaction.create(name, editor.values(rng, name, creating=True))
    if rng.random() < 0.2:
        transaction.update(name, record_id, editor.values(rng, name, creating=False))
    if rng.random() < 0.05:
        transaction.delete(name, record_id)
    return f"create {record_id}"


def _update(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name, record_id = _any_live(editor, rng)
    values = editor.values(rng, name, creating=False)
    transaction.update(name, record_id, values)
    return f"update {record_id} {','.join(values)}"


def _touch(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    """Save without a change: only the stamps move."""
    name, record_id = _any_live(editor, rng)
    transaction.update(name, record_id, {})
    return f"touch {record_id}"


def _revise(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    """Change a line of a long text, so that the event holds a diff."""
    name = rng.choice(OBJECTS[:4])
    record_id = rng.choice(editor.live(name) or [""])
    schema = transaction.object_for(name, "update")
    text = transaction.live(schema, record_id)["Description"] or _long(rng, editor) or _word(rng)
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines[at] = _word(rng)
        case 1:
            lines.insert(at, _word(rng))
        case _:
            del lines[at]
    transaction.update(name, record_id, {"Description": "\n".join(lines)})
    return f"revise {record_id}"


def _same_for_many(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    """One value for several records: an event with several ids."""
    name = rng.choice(OBJECTS)
    values = editor.values(rng, name, creating=False)
    ids = _some(rng, editor.live(name), 12)
    for record_id in ids:
        transaction.update(name, record_id, values)
    return f"update {len(ids)} of {name} {','.join(values)}"


def _delete(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name, record_id = _any_live(editor, rng)
    transaction.delete(name, record_id)
    return f"delete {record_id}"


def _delete_many(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS)
    ids = _some(rng, editor.live(name), 3)
    for record_id in ids:
        transaction.delete(name, record_id)
    return f"delete {' '.join(ids)}"


def _undelete(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS)
    record_id = rng.choice([row["Id"] for row in editor.rows(name) if row["IsDeleted"]] or [""])
    transaction.undelete(name, record_id)
    return f"undelete {record_id}"


def _purge(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS)
    record_id = rng.choice([row["Id"] for row in editor.rows(name)] or [""])
    transaction.purge(name, record_id)
    return f"purge {record_id}"


def _merge(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS[:3])
    ids = _some(rng, editor.live(name), 3)
    values = editor.values(rng, name, creating=False) if rng.random() < 0.5 else None
    transaction.merge(name, (ids or [""])[0], ids[1:], values)
    return f"merge {' '.join(ids)}"


def _convert(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    lead = rng.choice(editor.live("Lead") or [""])
    accounts = editor.live("Account")
    account = rng.choice(accounts) if accounts and rng.random() < 0.3 else None
    transaction.convert_lead(lead, account_id=account, create_opportunity=rng.random() < 0.7)
    return f"convert {lead}"


def _recalculate(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name, record_id = _any_live(editor, rng)
    field = {"Account": "AnnualRevenue", "Contact": "Title", "Lead": "Street", "Opportunity": "Description"}.get(
        name, "Amount__c"
    )
    transaction.recalculate(name, record_id, {field: FIELDS[name][field](rng, editor)})
    return f"recalculate {record_id}.{field}"


def _any_live(editor: Editor, rng: random.Random) -> tuple[str, str]:
    name = rng.choice(OBJECTS)
    return name, rng.choice(editor.live(name) or [""])


def _some(rng: random.Random, ids: Sequence[str], most: int) -> list[str]:
    return rng.sample(ids, min(len(ids), rng.randint(1, most)))


_NOTHING: frozenset[str] = frozenset()
_VERIFY = frozenset({"verify"})
# Weight, what it takes to find it, and the work.
_KINDS: Mapping[str, tuple[int, frozenset[str], Callable[[Editor, Transaction, random.Random], str]]] = {
    "create": (14, _NOTHING, _create),
    "update": (30, _NOTHING, _update),
    "touch": (3, _NOTHING, _touch),
    "revise": (8, _NOTHING, _revise),
    "same for many": (6, _NOTHING, _same_for_many),
    "delete": (7, _NOTHING, _delete),
    "delete many": (3, _NOTHING, _delete_many),
    "undelete": (8, _NOTHING, _undelete),
    "purge": (2, _VERIFY, _purge),
    "merge": (4, _NOTHING, _merge),
    "convert": (4, _NOTHING, _convert),
    "recalculate": (2, _VERIFY, _recalculate),
}
