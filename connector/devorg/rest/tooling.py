"""Tooling API: what is selected for Change Data Capture, told and changed as `PlatformEventChannelMember`.

A member is an object in a channel: in the standard one, `ChangeEvents`, or in one of the org's own (`Sales__chn`).
Standard channel and standard objects are told by name; channels of the org's own and custom objects by an id.

Source: Tooling API Developer Guide, "PlatformEventChannelMember"; Change Data Capture Developer Guide, "Get Custom
Channels and Channel Members", "Change Data Capture Allocations". The wording of refusals is a guess.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from connector.devorg.clock import rest_datetime, stamp
from connector.devorg.context import Context, read_json, version_of
from connector.devorg.database import affinity, quoted
from connector.devorg.errors import OrgError
from connector.devorg.events.channels import channel_named, event_api_name
from connector.devorg.ids import IdFactory, is_id, normal_id
from connector.devorg.objects.describes import complete_object
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.objects.schema import Schema
from connector.devorg.rest.query import read
from connector.devorg.soql.compile import compile_query
from connector.devorg.soql.parse import parse
from connector.devorg.soql.render import records

MEMBER = "PlatformEventChannelMember"
STANDARD_CHANNEL = "ChangeEvents"
MOST_SELECTED = 5
"""Objects selected in all channels together, without the add-on licence."""

_MEMBER_PREFIX, _CHANNEL_PREFIX, _ENTITY_PREFIX = "0v8", "0YL", "01I"
_DEVELOPER_NAME = re.compile(r"[A-Za-z](?!\w*__)\w{0,78}[A-Za-z0-9]", re.ASCII)
_REQUIRED = ("eventChannel", "selectedEntity")
_DESCRIBE: Mapping[str, Any] = {
    "name": MEMBER,
    "keyPrefix": _MEMBER_PREFIX,
    "fields": [
        {"name": "DeveloperName", "length": 80},
        {"name": "MasterLabel", "length": 80},
        {"name": "Language", "type": "picklist", "length": 40},
        {"name": "NamespacePrefix", "length": 15},
        {"name": "ManageableState", "type": "picklist", "length": 40},
        {"name": "EventChannel", "length": 255},
        {"name": "SelectedEntity", "length": 255},
        {"name": "FilterExpression", "type": "textarea", "length": 131_072},
    ],
}


def routes(context: Context) -> list[web.RouteDef]:
    """Queries and rows of channel members, with and without the slash that some clients put behind them."""
    selection = Selection(context)
    base = "/services/data/{version}/tooling"
    found = []
    for slash in ("", "/"):
        found += [
            web.get(f"{base}/query{slash}", selection.query),
            web.post(f"{base}/sobjects/{MEMBER}{slash}", selection.create),
        ]
    return [
        *found,
        web.get(f"{base}/sobjects/{MEMBER}/{{id}}", selection.retrieve),
        web.delete(f"{base}/sobjects/{MEMBER}/{{id}}", selection.delete),
    ]


@dataclass(frozen=True, slots=True)
class Member:
    """One object in one channel."""

    channel: str
    entity: str

    @property
    def full_name(self) -> str:
        """`ChangeEvents_AccountChangeEvent`: channel and event, each double underscore made a single one."""
        return f"{self.channel}_{event_api_name(self.entity)}".replace("__", "_")

    @property
    def id(self) -> str:
        """The same at every start."""
        return _id_of(_MEMBER_PREFIX, self.full_name)

    def columns(self, modified: str) -> dict[str, Any]:
        """The row as a query sees it."""
        standard = self.channel == STANDARD_CHANNEL
        custom = self.entity.endswith("__c")
        event = event_api_name(self.entity)
        stamps = dict.fromkeys(("CreatedDate", "LastModifiedDate", "SystemModstamp"), modified)
        users = dict.fromkeys(("CreatedById", "LastModifiedById"), INTEGRATION_USER_ID)
        return {
            "Id": self.id,
            "IsDeleted": 0,
            **stamps,
            **users,
            "DeveloperName": self.full_name,
            "MasterLabel": self.full_name,
            "Language": "en_US",
            "NamespacePrefix": None,
            "ManageableState": "unmanaged",
            "EventChannel": self.channel if standard else _id_of(_CHANNEL_PREFIX, self.channel),
            "SelectedEntity": _id_of(_ENTITY_PREFIX, event) if custom else event,
            "FilterExpression": None,
        }


class Selection:
    """Answers for channel members; what they stand for is kept by the schema and the event bus."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._schema = _ToolingSchema()
        member = self._schema.require(MEMBER)
        self._table = member.table
        columns = ", ".join(f"{quoted(field.name)} {affinity(field.type)}" for field in member.stored)
        # Filled anew for each query: what is selected has one home only.
        context.database.connection.execute(f"CREATE TEMP TABLE {quoted(self._table)} ({columns})")

    async def query(self, request: web.Request) -> web.Response:
        """Answer `tooling/query?q=`."""
        plan = compile_query(parse(request.query.get("q", "")), self._schema, include_deleted=False)
        self._fill()
        rows = read(self._context, *plan.statement())
        found: list[dict[str, Any]] = []
        size = rows[0][0] if plan.selection is None else len(rows)
        if plan.selection is not None:
            # Records of the Tooling API have their URLs below its own folder.
            found = list(records(plan.selection, rows, f"{version_of(request)}/tooling"))
        body = {"size": len(found), "totalSize": size, "done": True, "queryLocator": None}
        return web.json_response({**body, "entityTypeName": MEMBER, "records": found})

    async def create(self, request: web.Request) -> web.Response:
        """Select an object."""
        member = self._ordered(await read_json(request))
        members = list(self._members())
        if member in members:
            message = "The developer name already exists or the entity is selected for the channel already"
            raise OrgError(400, "DUPLICATE_DEVELOPER_NAME", message, ["DeveloperName"])
        if len({known.entity for known in members} | {member.entity}) > MOST_SELECTED:
            raise OrgError(400, "LIMIT_EXCEEDED", f"At most {MOST_SELECTED} entities can be selected", [])
        self._change(member, selected=True)
        body = {"id": member.id, "success": True, "errors": [], "warnings": [], "infos": []}
        location = f"/services/data/v{version_of(request)}/tooling/sobjects/{MEMBER}/{member.id}"
        return web.json_response(body, status=201, headers={"Location": location})

    async def retrieve(self, request: web.Request) -> web.Response:
        """Answer with one row, its `FullName` and `Metadata` as well."""
        member = self._named(request)
        url = f"/services/data/v{version_of(request)}/tooling/sobjects/{MEMBER}/{member.id}"
        row = member.columns(rest_datetime(self._modified()))
        metadata = {"eventChannel": member.channel, "selectedEntity": event_api_name(member.entity)}
        always = self._context.bus.custom_channels.get(member.channel, {}).get(member.entity, [])
        chosen = self._context.bus.channel_filters.get(member.channel, {}).get(member.entity)
        metadata_row = {**metadata, "enrichedFields": [{"name": name} for name in always], "filterExpression": chosen}
        body = {**row, "IsDeleted": False, "FullName": member.full_name, "Metadata": metadata_row}
        return web.json_response({"attributes": {"type": MEMBER, "url": url}, **body})

    async def delete(self, request: web.Request) -> web.Response:
        """Take an object out of its channel."""
        self._change(self._named(request), selected=False)
        return web.Response(status=204)

    def _members(self) -> Iterator[Member]:
        for entity in sorted(self._context.schema.selected):
            yield Member(STANDARD_CHANNEL, entity)
        for channel, entities in self._context.bus.custom_channels.items():
            for entity in entities:
                yield Member(channel, entity)

    def _fill(self) -> None:
        database, modified = self._context.database, self._modified()
        with database.transaction():
            # The name is the schema's and quoted.
            database.connection.execute(f"DELETE FROM {quoted(self._table)}")  # noqa: S608
            for member in self._members():
                database.insert(self._table, member.columns(modified))

    def _modified(self) -> str:
        return stamp(self._context.schema.modified_ms)

    def _named(self, request: web.Request) -> Member:
        record_id = request.match_info["id"]
        asked = normal_id(record_id) if is_id(record_id) else ""
        for member in self._members():
            if member.id == asked:
                return member
        raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")

    def _ordered(self, body: Any) -> Member:
        """The member that a body orders.

        Raises:
            OrgError: 400, it orders none.
        """
        if not isinstance(body, dict):
            raise OrgError(400, "JSON_PARSER_ERROR", "The HTTP entity body is required to be a JSON object")
        metadata = body.get("Metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        for name in body.keys() - {"FullName", "Metadata"}:
            raise OrgError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {MEMBER}")
        asked = {"FullName": body.get("FullName")} | {name: metadata.get(name) for name in _REQUIRED}
        texts = {name: text for name, text in asked.items() if isinstance(text, str) and text}
        missing = [name for name in asked if name not in texts]
        if missing:
            message = f"Required fields are missing: [{', '.join(missing)}]"
            raise OrgError(400, "REQUIRED_FIELD_MISSING", message, missing)
        for name in metadata.keys() - texts.keys():
            if metadata[name]:
                raise OrgError(400, "INVALID_FIELD", f"{name} is not supported by the local org's Tooling API")
        return self._checked(texts["FullName"], texts["eventChannel"], texts["selectedEntity"])

    def _checked(self, full_name: str, channel: str, event: str) -> Member:
        if "__" in full_name:
            message = f"Cannot create a new component with the namespace: {full_name.partition('__')[0]}."
            raise OrgError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, ["FullName"])
        if _DEVELOPER_NAME.fullmatch(full_name) is None:
            raise OrgError(400, "INVALID_FULL_NAME", f"Not a developer name: {full_name}", ["FullName"])
        if channel != STANDARD_CHANNEL and channel not in self._context.bus.custom_channels:
            raise OrgError(400, "FIELD_INTEGRITY_EXCEPTION", "Unable to find the specified channel.", ["EventChannel"])
        named = channel_named(f"/data/{event}", self._context.schema, {})
        if named is None or not named.entities:
            message = f"invalid event in selectedEntity: {event}"
            raise OrgError(400, "FIELD_INTEGRITY_EXCEPTION", message, ["SelectedEntity"])
        return Member(channel, named.entities[0])

    def _change(self, member: Member, *, selected: bool) -> None:
        if member.channel == STANDARD_CHANNEL:
            schema = self._context.schema
            chosen = schema.selected | {member.entity} if selected else schema.selected - {member.entity}
            schema.select(*chosen)
            return
        entities = dict(self._context.bus.custom_channels[member.channel])
        if selected:
            entities[member.entity] = []
        else:
            del entities[member.entity]
        filters = self._context.bus.channel_filters.get(member.channel, {})
        self._context.bus.define_channel(member.channel, list(entities), entities, filters)


class _ToolingSchema(Schema):
    """The objects of the Tooling API, which the REST API does not show."""

    def __init__(self) -> None:
        described = ObjectSchema.of(complete_object(_DESCRIBE))
        self._objects = {described.name.lower(): described}


def _id_of(prefix: str, name: str) -> str:
    """An id that stands for a name, always the same one."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return IdFactory({prefix: number}).make(prefix)
