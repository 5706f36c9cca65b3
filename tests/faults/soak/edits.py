"""What people and the org itself do to records: every kind of write, several of them in one transaction."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from connector.devorg.context import UI_ORIGIN, Context
from connector.devorg.database import quoted
from connector.devorg.errors import OrgError
from connector.devorg.objects.rendering import decoded
from connector.devorg.records.transaction import Transaction
from connector.devorg.records.work import Record
from tests.faults.soak.fields import EDITORS, FIELDS, OBJECTS, long_text, values_for, word


@dataclass(frozen=True, slots=True)
class Done:
    """What an edit did, in a line, and what kind of check it takes to find it where no event tells of it.

    Attributes:
        needs: `sync` (a poll) or `verify` (a comparison) of objects; empty: its events tell everything.
        held: Key of the transaction that is held open.
    """

    line: str
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    held: str | None = None


class Editor:
    """Edits in one org.

    Args:
        context: The org.
        unseen: Also does what only a comparison can find: purges, recalculations.
    """

    def __init__(self, context: Context, *, unseen: bool) -> None:
        self._context = context
        self._kinds = {kind: weight for kind, (weight, _) in {**_SEEN, **(_UNSEEN if unseen else {})}.items()}

    def live(self, name: str) -> list[str]:
        """Ids of the live records of an object."""
        return self.ids(name, deleted=False)

    def ids(self, name: str, *, deleted: bool | None = None) -> list[str]:
        """Ids of an object's records: those that are deleted or not, None: of all."""
        table = quoted(self._context.schema.require(name).table)
        which = "" if deleted is None else f' WHERE "IsDeleted" = {int(deleted)}'
        statement = f'SELECT "Id" FROM {table}{which} ORDER BY "Id"'  # noqa: S608 - the schema's own name
        return [row[0] for row in self._context.database.connection.execute(statement)]

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
        lines: list[str] = []
        blind: frozenset[str] = frozenset()
        with self._context.org.transaction(rng.choice(EDITORS), UI_ORIGIN, hold, announce=announce) as transaction:
            for _ in range(rng.randint(1, most)):
                kind = rng.choices(list(self._kinds), list(self._kinds.values()))[0]
                try:
                    if kind in _UNSEEN:
                        line, names = _UNSEEN[kind][1](self, transaction, rng)
                        lines.append(line)
                        blind |= names
                    else:
                        lines.append(_SEEN[kind][1](self, transaction, rng))
                except OrgError as error:
                    lines.append(f"{kind} refused: {error.code}")
                    if kind in _UNSEEN:  # what it had done by then stays in the transaction
                        blind |= frozenset(OBJECTS)
        line = f"{'held ' if hold else ''}{'' if announce else 'silent '}{transaction.key[:8]}: " + "; ".join(lines)
        needs = {"verify": blind, "sync": frozenset() if announce else frozenset(OBJECTS)}
        return Done(line, {verb: names for verb, names in needs.items() if names}, transaction.key if hold else None)


def _create(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS)
    record_id = transaction.create(name, values_for(rng, editor, name, creating=True))
    if rng.random() < 0.2:
        transaction.update(name, record_id, values_for(rng, editor, name, creating=False))
    if rng.random() < 0.05:
        transaction.delete(name, record_id)
    return f"create {record_id}"


def _update(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name, record_id = _any_live(editor, rng)
    values = values_for(rng, editor, name, creating=False)
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
    text = transaction.live(schema, record_id)["Description"] or long_text(rng, editor) or word(rng)
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines[at] = word(rng)
        case 1:
            lines.insert(at, word(rng))
        case _:
            del lines[at]
    transaction.update(name, record_id, {"Description": "\n".join(lines)})
    return f"revise {record_id}"


def _same_for_many(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    """One value for several records: an event with several ids."""
    name = rng.choice(OBJECTS)
    values = values_for(rng, editor, name, creating=False)
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
    record_id = rng.choice(editor.ids(name, deleted=True) or [""])
    transaction.undelete(name, record_id)
    return f"undelete {record_id}"


def _purge(editor: Editor, transaction: Transaction, rng: random.Random) -> tuple[str, frozenset[str]]:
    name = rng.choice(OBJECTS)
    record_id = rng.choice(editor.ids(name) or [""])
    before = {name: len(editor.ids(name)) for name in OBJECTS}
    transaction.purge(name, record_id)
    gone = frozenset(name for name in OBJECTS if len(editor.ids(name)) < before[name])
    return f"purge {record_id}", gone


def _merge(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    name = rng.choice(OBJECTS[:3])
    ids = _some(rng, editor.live(name), 3)
    values = values_for(rng, editor, name, creating=False) if rng.random() < 0.5 else None
    transaction.merge(name, (ids or [""])[0], ids[1:], values)
    return f"merge {' '.join(ids)}"


def _convert(editor: Editor, transaction: Transaction, rng: random.Random) -> str:
    lead = rng.choice(editor.live("Lead") or [""])
    accounts = editor.live("Account")
    account = rng.choice(accounts) if accounts and rng.random() < 0.3 else None
    transaction.convert_lead(lead, account_id=account, create_opportunity=rng.random() < 0.7)
    return f"convert {lead}"


def _recalculate(editor: Editor, transaction: Transaction, rng: random.Random) -> tuple[str, frozenset[str]]:
    name, record_id = _any_live(editor, rng)
    field = {"Account": "AnnualRevenue", "Contact": "Title", "Lead": "Street", "Opportunity": "Description"}.get(
        name, "Amount__c"
    )
    transaction.recalculate(name, record_id, {field: FIELDS[name][field](rng, editor)})
    return f"recalculate {record_id}.{field}", frozenset({name})


def _rename_parent(editor: Editor, transaction: Transaction, rng: random.Random) -> tuple[str, frozenset[str]]:
    """The formula of every child shows the new name; only the parent has an event."""
    account = rng.choice(editor.live("Account") or [""])
    name = word(rng)
    transaction.update("Account", account, {"Name": name})
    children = [row["Id"] for row in editor.rows("Contact") if row["AccountId"] == account and not row["IsDeleted"]]
    for child in children:
        transaction.recalculate("Contact", child, {"Account_Name__c": name})
    return f"rename {account}, parent of {len(children)}", frozenset({"Contact"})


def _any_live(editor: Editor, rng: random.Random) -> tuple[str, str]:
    name = rng.choice(OBJECTS)
    return name, rng.choice(editor.live(name) or [""])


def _some(rng: random.Random, ids: Sequence[str], most: int) -> list[str]:
    return rng.sample(ids, min(len(ids), rng.randint(1, most)))


# Weight and work. What is not seen has no event: it takes a comparison of the objects that are named with the line.
_SEEN: Mapping[str, tuple[int, Callable[[Editor, Transaction, random.Random], str]]] = {
    "create": (14, _create),
    "update": (30, _update),
    "touch": (3, _touch),
    "revise": (8, _revise),
    "same for many": (6, _same_for_many),
    "delete": (7, _delete),
    "delete many": (3, _delete_many),
    "undelete": (8, _undelete),
    "merge": (4, _merge),
    "convert": (4, _convert),
}
_UNSEEN: Mapping[str, tuple[int, Callable[[Editor, Transaction, random.Random], tuple[str, frozenset[str]]]]] = {
    "purge": (2, _purge),
    "recalculate": (2, _recalculate),
    "rename parent": (2, _rename_parent),
}
