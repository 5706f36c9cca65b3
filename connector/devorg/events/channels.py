"""Channels: what of the event log a subscriber to one of them gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from connector.devorg.objects.schema import Schema

ALL_SELECTED = "/data/ChangeEvents"
_PREFIX = "/data/"
_EVENT_OF_STANDARD = "ChangeEvent"
_EVENT_OF_CUSTOM = "__ChangeEvent"
_CUSTOM_CHANNEL = "__chn"


@dataclass(frozen=True, slots=True)
class Channel:
    """A view of the event log.

    Attributes:
        name: As subscribed to, `/data/ContactChangeEvent`.
        entities: The objects whose events it carries; None is every object selected for Change Data Capture.
        is_custom: A channel of the org's own, which carries its objects whether they are selected or not.
        enriched: Fields that it always delivers, by object.
        filters: Expressions that a record must fulfil, by object.
    """

    name: str
    entities: tuple[str, ...] | None
    is_custom: bool = False
    enriched: Mapping[str, Sequence[str]] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)


def channel_named(
    name: str,
    schema: Schema,
    custom: Mapping[str, Mapping[str, Sequence[str]]],
    filters: Mapping[str, Mapping[str, str]] | None = None,
) -> Channel | None:
    """The channel of that name, which is case-sensitive, or None; there are no wildcards.

    Args:
        name: For instance `/data/ChangeEvents`.
        schema: Knows the objects.
        custom: Enriched fields by object, by the name of a channel of the org's own, for instance `Sales__chn`.
        filters: Expressions by object, by the name of such a channel.

    Source: Change Data Capture Developer Guide, "Subscription Channels".
    """
    if name == ALL_SELECTED:
        return Channel(name, None)
    if not name.startswith(_PREFIX):
        return None
    event = name.removeprefix(_PREFIX)
    if event.endswith(_CUSTOM_CHANNEL):
        if event not in custom:
            return None
        members, chosen = custom[event], (filters or {}).get(event, {})
        return Channel(name, tuple(members), is_custom=True, enriched=members, filters=chosen)
    entity = _entity_of(event)
    found = schema.get(entity)
    return Channel(name, (found.name,)) if found is not None and found.name == entity else None


def event_api_name(entity: str) -> str:
    """API name of an object's change event: `ContactChangeEvent`, `Invoice__ChangeEvent`."""
    if entity.endswith("__c"):
        return f"{entity.removesuffix('__c')}{_EVENT_OF_CUSTOM}"
    return f"{entity}{_EVENT_OF_STANDARD}"


def _entity_of(event: str) -> str:
    """The object of a change event's API name; empty for what is none."""
    if event.endswith(_EVENT_OF_CUSTOM):
        return f"{event.removesuffix(_EVENT_OF_CUSTOM)}__c"
    if event.endswith(_EVENT_OF_STANDARD) and "__" not in event:
        return event.removesuffix(_EVENT_OF_STANDARD)
    return ""
