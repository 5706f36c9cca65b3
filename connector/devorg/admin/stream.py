"""The admin interface's orders to the schema and to the event stream."""

from typing import Any

from aiohttp import hdrs, web

from connector.devorg.admin.orders import Types, check_members, read_order, values_refused
from connector.devorg.context import Context
from connector.devorg.events.changes import OVERFLOW_ID
from connector.devorg.objects.describes import complete_field

FIELD_MEMBERS: Types = {
    name: object if value is None else type(value) for name, value in complete_field({"name": "x"}).items()
}
"""Members of a field's describe; those that may be null take anything."""


def routes(context: Context) -> list[web.RouteDef]:
    """Objects, fields and their selection; events, replay ids and channels."""
    return [*_schema_routes(context), *_stream_routes(context)]


def _schema_routes(context: Context) -> list[web.RouteDef]:
    schema, clock = context.schema, context.clock

    async def change_field(request: web.Request) -> web.Response:
        order = await read_order(request, {"object": str, "field": dict})
        name, field = order["object"], dict(order["field"])
        check_members(field, {"name": str}, FIELD_MEMBERS)
        own = field.pop("name")
        with values_refused():
            match request.method:
                case hdrs.METH_POST:
                    schema.add_field(name, {"name": own, **field}, clock.now_ms())
                case hdrs.METH_PATCH:
                    schema.change_field(name, own, clock.now_ms(), **field)
                case _:
                    schema.remove_field(name, own, clock.now_ms())
        return web.json_response(schema.describe(name))

    async def add_object(request: web.Request) -> web.Response:
        describe = await read_order(request, {"name": str, "keyPrefix": str}, {"label": str, "fields": list})
        for field in describe.get("fields", []):
            check_members(field if isinstance(field, dict) else {}, {"name": str}, FIELD_MEMBERS)
        with values_refused():
            schema.add_object(describe, clock.now_ms())
        return web.json_response(schema.describe(describe["name"]), status=201)

    async def selected(_request: web.Request) -> web.Response:
        return web.json_response({"selected": sorted(schema.selected)})

    async def select(request: web.Request) -> web.Response:
        order = await read_order(request, {"selected": list})
        schema.select(*map(str, order["selected"]))
        return web.json_response({"selected": sorted(schema.selected)})

    return [
        web.post("/fields", change_field),
        web.patch("/fields", change_field),
        web.delete("/fields", change_field),
        web.post("/objects", add_object),
        web.get("/selected", selected),
        web.put("/selected", select),
    ]


def _stream_routes(context: Context) -> list[web.RouteDef]:
    bus = context.bus

    async def emit(request: web.Request) -> web.Response:
        order = await read_order(request, {}, {"payload": object, "object": str, "kind": str, "ids": list})
        with values_refused():
            return web.json_response({"replay_id": _emit(context, order)}, status=201)

    async def expire(_request: web.Request) -> web.Response:
        bus.expire_all()
        return web.json_response({"latest": bus.latest_id()})

    async def reset(_request: web.Request) -> web.Response:
        bus.reset()
        return web.json_response({"latest": bus.latest_id()})

    async def channel(request: web.Request) -> web.Response:
        order = await read_order(request, {"objects": list}, {"enriched": dict, "filters": dict})
        objects, always = [str(name) for name in order["objects"]], order.get("enriched", {})
        filters = {str(name): str(text) for name, text in order.get("filters", {}).items()}
        with values_refused():
            if not all(isinstance(fields, list) for fields in always.values()):
                raise ValueError("enriched: expected lists of field names by object")
            bus.define_channel(request.match_info["name"], objects, always, filters)
        return web.json_response(bus.custom_channels)

    return [
        web.post("/events", emit),
        web.post("/replay/expire", expire),
        web.post("/replay/reset", reset),
        web.put("/channels/{name}", channel),
    ]


def _emit(context: Context, order: dict[str, Any]) -> int:
    """Put an event on the bus that no transaction of the org gave: as it stands, or by kind and ids.

    Raises:
        ValueError: The order does not say which event.
    """
    if "object" not in order:
        raise ValueError("object: missing")
    name = context.schema.require(order["object"]).name
    if "payload" in order:
        return context.bus.emit(order["payload"], entity=name)
    if "kind" not in order:
        raise ValueError("expected kind (for instance GAP_UPDATE) or payload")
    ids = [str(record_id) for record_id in order.get("ids", [OVERFLOW_ID])]
    return context.bus.emit_without_body(name, order["kind"], ids)
