"""A committed transaction as change events, in the JSON of the Streaming API."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from connector.devorg.commits import Commit, RowChange
from connector.devorg.events.diff import text_diff
from connector.devorg.events.layout import Slot, slots_of
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.schema import Schema

OVERFLOW_ID = "000000000000000AAA"
MOST_DIGITS = 18
_MODIFICATION = ("LastModifiedDate", "LastModifiedById")
_QUIET = frozenset({*_MODIFICATION, "SystemModstamp"})


@dataclass(kw_only=True)
class EventOptions:
    """What the documents leave open about change events, and their limits. Read anew for every commit.

    What concerns the wording of the Streaming API alone is read anew for every delivery.

    Attributes:
        changed_fields: The header carries `changedFields` (CometD).
        event_uuid: `data.event` carries `EventUuid` and `EventApiName`.
        nested_nulls: A nulled component is `{"MailingAddress": {"City": null}}`; else the compound itself is null
            where all that changed of it was nulled (CometD).
        partial_names: An update's `Name` holds the changed components only.
        text_dates: A date field is `YYYY-MM-DD`, else milliseconds since the epoch.
        text_diffs: Long texts are sent as diffs where that is shorter.
        formula_fields: Custom formula fields are included.
        unreadable_fields: `Contact.Phone`: fields that subscribers may not read; events leave them out.
        conversion_modified_date: The update of a converted lead carries `LastModifiedDate`.
        cleared_lookup_events: A lookup cleared by the deletion of its target gives an event.
        reparented_events: A child that a merge gives to the winner has an event.
        whole_second_commits: `commitTimestamp` is cut to whole seconds, as in all documented samples.
        internal_parts: Addresses in the schemas of the Pub/Sub API have the member `Xyz`.
        overflow_changes: From this many changes of one transaction on, the rest is an overflow event per entity.
        max_event_bytes: A longer payload becomes a gap event.
        max_merged_records: Most `recordIds` of one event.
        retention_s: Events older than this by the org's clock can not be replayed.
    """

    changed_fields: bool = True
    event_uuid: bool = False
    nested_nulls: bool = True
    partial_names: bool = True
    text_dates: bool = True
    text_diffs: bool = True
    formula_fields: bool = True
    unreadable_fields: tuple[str, ...] = ()
    conversion_modified_date: bool = True
    cleared_lookup_events: bool = True
    reparented_events: bool = True
    whole_second_commits: bool = True
    internal_parts: bool = False
    overflow_changes: int = 100_000
    max_event_bytes: int = 1_048_576
    max_merged_records: int = 10_000
    retention_s: float = 72 * 3600


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An event before it has its place in the transaction."""

    entity: str
    kind: str
    second: object
    record_ids: list[str]
    body: dict[str, Any] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """What it counts towards the overflow limit: one, or one per changed field of an update."""
        return max(1, sum(name not in _MODIFICATION for name in self.changed))


def render(commit: Commit, schema: Schema, options: EventOptions) -> list[dict[str, Any]]:
    """The payloads of a transaction's events, in order; objects that are not selected have theirs as well.

    `sequenceNumber` counts over all of them, so that leaving some out leaves holes, as it does in Salesforce.

    Source: Change Data Capture Developer Guide, "Change Event Message Structure", "Merged Change Events",
    "Gap Events", "Overflow Events".
    """
    slots = {name: _slots(schema, name, options) for name in {change.object for change in commit.changes}}
    deleted = {change.id for change in commit.changes if change.kind == "DELETE"}
    drafts: list[_Draft] = []
    for change in commit.changes:
        draft = (
            None
            if _follows_silently(change, slots[change.object], deleted, options)
            else _draft(change, slots[change.object], options)
        )
        if draft is not None:
            drafts.append(draft)
    within, beyond = _split(drafts, options.overflow_changes)
    merged = _merge(within, options.max_merged_records)
    events = [_capped(draft, options.max_event_bytes) for draft in merged] + _overflow(beyond)
    return [_payload(event, commit, number, options) for number, event in enumerate(events, start=1)]


def enrichment(
    schema: ObjectSchema, record: Mapping[str, Any], fields: Sequence[str], options: EventOptions
) -> dict[str, Any]:
    """The named fields of a record as an event's body holds them; a compound's name stands for all its parts."""
    body: dict[str, Any] = {}
    for slot in slots_of(schema):
        value = _wire(slot, record.get(slot.name), options)
        if value is not None and (slot.name in fields or slot.parent in fields):
            _place(body, slot, value)
    return body


def event_header(
    *,
    entity: str,
    record_ids: Sequence[str],
    change_type: str,
    transaction_key: str,
    commit_ms: int,
    commit_number: int,
    user_id: str,
    origin: str = "",
    sequence_number: int = 1,
    changed_fields: Sequence[str] = (),
) -> dict[str, Any]:
    """A `ChangeEventHeader` with its members in Salesforce's order.

    Source: Change Data Capture Developer Guide, "ChangeEventHeader Fields".
    """
    return {
        "entityName": entity,
        "recordIds": list(record_ids),
        "changeType": change_type,
        "changeOrigin": origin,
        "transactionKey": transaction_key,
        "sequenceNumber": sequence_number,
        "commitTimestamp": commit_ms,
        "commitNumber": commit_number,
        "commitUser": user_id,
        "changedFields": list(changed_fields),
    }


def _slots(schema: Schema, name: str, options: EventOptions) -> tuple[Slot, ...]:
    hidden = {field for field in options.unreadable_fields if field.startswith(f"{name}.")}
    return tuple(
        slot
        for slot in slots_of(schema.require(name))
        if f"{name}.{slot.name}" not in hidden and (options.formula_fields or not slot.is_formula)
    )


def _draft(change: RowChange, slots: Sequence[Slot], options: EventOptions) -> _Draft | None:
    """The event of one record's change, or None where it has none."""
    draft = _Draft(
        entity=change.object, kind=change.kind, second=change.after.get("SystemModstamp"), record_ids=[change.id]
    )
    if change.kind == "DELETE":
        return draft
    if change.kind == "UPDATE":
        if not _update(draft, change, slots, options):
            return None
    else:
        for slot in slots:
            value = _wire(slot, change.after.get(slot.name), options)
            if value is not None and value != "":
                _place(draft.body, slot, value)
    if any(_too_many_digits(slot, change.after.get(slot.name)) for slot in slots):
        return _gap(draft)
    return draft


def _update(draft: _Draft, change: RowChange, slots: Sequence[Slot], options: EventOptions) -> bool:
    """Fill in an update's changed fields; False where it is none that Salesforce would tell of."""
    before, after = change.before or {}, change.after
    changed = {slot.name for slot in slots if before.get(slot.name) != after.get(slot.name)}
    if _is_silent(before, after, slots):
        return False
    changed.add("LastModifiedDate")
    converted = "IsConverted" in changed and bool(after.get("IsConverted"))
    if converted and not options.conversion_modified_date:
        changed.discard("LastModifiedDate")
    whole = {slot.parent for slot in slots if slot.name in changed and slot.is_whole}
    told = [slot for slot in slots if slot.name in changed or slot.parent in whole]
    draft.changed = [slot.path for slot in sorted(told, key=lambda slot: slot.parent is not None)]
    if not options.partial_names and any(slot.parent == "Name" for slot in told):
        told = [slot for slot in slots if slot in told or slot.parent == "Name"]
    for slot in told:
        value = _wire(slot, after.get(slot.name), options)
        _place(draft.body, slot, _shorter(before.get(slot.name), value, slot, options))
    return True


def _is_silent(before: Mapping[str, Any], after: Mapping[str, Any], slots: Sequence[Slot]) -> bool:
    """Whether nothing changed but what the platform recalculates by itself or keeps out of events."""
    if before.get("LastModifiedDate") != after.get("LastModifiedDate"):
        return False
    differing = {name for name in after if before.get(name) != after[name]} - _QUIET
    stored = {slot.name for slot in slots if not slot.is_calculated}
    return bool(differing) and not differing & stored


def _follows_silently(
    change: RowChange, slots: Sequence[Slot], deleted: AbstractSet[str], options: EventOptions
) -> bool:
    """Whether an update did no more than follow the deletion of records it refers to, and has no event for it."""
    if change.kind != "UPDATE" or change.before is None or not deleted:
        return False
    differing = {name for name in change.after if change.before.get(name) != change.after[name]} - _QUIET
    references = {slot.name for slot in slots if slot.type == "reference"}
    if not differing or differing - references or not {change.before[name] for name in differing} <= deleted:
        return False
    if all(change.after[name] is None for name in differing):
        return not options.cleared_lookup_events
    return not options.reparented_events


def _wire(slot: Slot, value: Any, options: EventOptions) -> Any:
    if value is None:
        return None
    if slot.type == "boolean":
        return bool(value)
    if slot.type == "date" and not options.text_dates:
        return _epoch_ms(value)
    return value


def _epoch_ms(date_text: str) -> int:
    moment = datetime.fromisoformat(date_text).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000


def _shorter(old: Any, new: Any, slot: Slot, options: EventOptions) -> Any:
    """A changed value, or the diff that makes it from the old one."""
    if not options.text_diffs or slot.parent is not None or not isinstance(old, str) or not isinstance(new, str):
        return new
    diff = text_diff(old, new)
    return new if diff is None else {"diff": diff}


def _place(body: dict[str, Any], slot: Slot, value: Any) -> None:
    if slot.parent is None:
        body[slot.name] = value
    else:
        body.setdefault(slot.parent, {})[slot.label] = value


def _too_many_digits(slot: Slot, value: Any) -> bool:
    return slot.is_calculated and isinstance(value, int | float) and abs(value) >= 10**MOST_DIGITS


def _gap(draft: _Draft) -> _Draft:
    return _Draft(entity=draft.entity, kind=f"GAP_{draft.kind}", second=draft.second, record_ids=draft.record_ids)


def _split(drafts: list[_Draft], most: int) -> tuple[list[_Draft], list[_Draft]]:
    """Those up to the overflow limit, and the rest."""
    count = 0
    for index, draft in enumerate(drafts):
        count += draft.weight
        if count > most:
            return drafts[:index], drafts[index:]
    return drafts, []


def _overflow(drafts: list[_Draft]) -> list[_Draft]:
    entities = dict.fromkeys(draft.entity for draft in drafts)
    return [_Draft(entity=entity, kind="GAP_OVERFLOW", second=None, record_ids=[OVERFLOW_ID]) for entity in entities]


def _merge(drafts: list[_Draft], most: int) -> list[_Draft]:
    """One event for equal changes of an entity within one second, where the first of them stood.

    A record's own events keep their order: its deletion does not join one that stands before its creation.
    """
    open_events: dict[tuple[str, str, object, bytes], int] = {}
    told: dict[str, int] = {}  # record -> place of its newest event
    merged: list[_Draft] = []
    for draft in drafts:
        key = (draft.entity, draft.kind, draft.second, orjson.dumps([draft.body, draft.changed]))
        place = open_events.get(key, -1)
        earliest = max((told.get(record_id, 0) for record_id in draft.record_ids), default=0)
        if place < earliest or len(merged[place].record_ids) >= most:
            place = open_events[key] = len(merged)
            merged.append(draft)
        else:
            merged[place].record_ids += draft.record_ids
        told.update(dict.fromkeys(draft.record_ids, place))
    return merged


def _capped(draft: _Draft, most_bytes: int) -> _Draft:
    """The event, or the gap event that stands for one that is too large."""
    size = len(orjson.dumps(draft.body)) + len(orjson.dumps(draft.record_ids))
    return _gap(draft) if draft.body and size > most_bytes else draft


def _payload(draft: _Draft, commit: Commit, number: int, options: EventOptions) -> dict[str, Any]:
    commit_ms = commit.commit_ms // 1000 * 1000 if options.whole_second_commits else commit.commit_ms
    header = event_header(
        entity=draft.entity,
        record_ids=draft.record_ids,
        change_type=draft.kind,
        transaction_key=commit.transaction_key,
        commit_ms=commit_ms,
        commit_number=commit.commit_number,
        user_id=commit.user_id,
        origin=commit.origin,
        sequence_number=number,
        changed_fields=draft.changed,
    )
    return {"ChangeEventHeader": header, **draft.body}
