"""The admin interface's orders to the records: edits as people make them, held transactions, seed, dump, ledger."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from connector.devorg.admin.orders import check_members, read_order, values_refused
from connector.devorg.admin.seed import Seed, sow
from connector.devorg.context import UI_ORIGIN, Context
from connector.devorg.database import quoted
from connector.devorg.errors import OrgError
from connector.devorg.objects.rendering import decoded
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.records.rules import Rules
from connector.devorg.records.transaction import Transaction

MOST_CHANGES = 10_000
MOST_ROWS = 10_000
_DEFAULT_ROWS = 2000
_LARGEST = (1 << 53) - 1

_RECORD = {"op": str, "object": str, "id": str}
_Run = Callable[[Transaction, Mapping[str, Any]], str]


def _create(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, {"op": str, "object": str, "values": dict})
    return transaction.create(change["object"], change["values"])


def _update(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, {**_RECORD, "values": dict})
    transaction.update(change["object"], change["id"], change["values"])
    return str(change["id"])


def _recalculate(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, {**_RECORD, "values": dict})
    transaction.recalculate(change["object"], change["id"], change["values"])
    return str(change["id"])


def _delete(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, _RECORD)
    transaction.delete(change["object"], change["id"])
    return str(change["id"])


def _undelete(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, _RECORD)
    transaction.undelete(change["object"], change["id"])
    return str(change["id"])


def _purge(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, _RECORD)
    transaction.purge(change["object"], change["id"])
    return str(change["id"])


def _merge(transaction: Transaction, change: Mapping[str, Any]) -> str:
    check_members(change, {**_RECORD, "losers": list}, {"values": dict})
    losers = [str(loser) for loser in change["losers"]]
    transaction.merge(change["object"], change["id"], losers, change.get("values"))
    return str(change["id"])


def _convert(transaction: Transaction, change: Mapping[str, Any]) -> str:
    texts = dict.fromkeys(("status", "account_id", "contact_id", "opportunity_name"), str)
    check_members(change, {"op": str, "id": str}, {**texts, "create_opportunity": bool})
    given = {name: value for name, value in change.items() if name not in ("op", "id")}
    transaction.convert_lead(change["id"], **given)
    return str(change["id"])


_OPERATIONS: Mapping[str, _Run] = {
    "create": _create,
    "update": _update,
    "delete": _delete,
    "undelete": _undelete,
    "purge": _purge,
    "merge": _merge,
    "convert": _convert,
    "recalculate": _recalculate,
}


def change_records(context: Context, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the ordered changes in one transaction: all of them or none.

    Raises:
        OrgError: One of them is refused; its message says which.
    """
    changes = order["changes"]
    if len(changes) > MOST_CHANGES:
        raise OrgError(400, "INVALID_ORDER", f"changes: at most {MOST_CHANGES} in one transaction")
    user_id, origin = order.get("user", FIRST_EDITOR_ID), order.get("origin", UI_ORIGIN)
    hold, announce = order.get("hold", False), order.get("announce", True)
    if context.org.get("User", user_id) is None:
        raise OrgError(400, "INVALID_ORDER", "user: no such user")
    with context.org.transaction(user_id, origin, hold, announce=announce) as transaction:
        results = [_change(transaction, number, change) for number, change in enumerate(changes)]
    return {"transaction": transaction.key, "held": hold, "results": results}


def _change(transaction: Transaction, number: int, change: object) -> dict[str, str]:
    operation = change.get("op") if isinstance(change, dict) else None
    if not isinstance(change, dict) or not isinstance(operation, str) or operation not in _OPERATIONS:
        raise OrgError(400, "INVALID_ORDER", f"changes[{number}].op: expected one of {', '.join(_OPERATIONS)}")
    try:
        return {"op": operation, "id": _OPERATIONS[operation](transaction, change)}
    except OrgError as error:
        raise OrgError(error.status, error.code, f"changes[{number}]: {error.message}", error.fields) from error


def routes(context: Context) -> list[web.RouteDef]:
    """Changes, transactions, rules, seed, records and the ledger."""
    return [*_change_routes(context), *_rule_routes(context), *_read_routes(context)]


def _change_routes(context: Context) -> list[web.RouteDef]:
    optional = {"user": str, "origin": str, "hold": bool, "announce": bool}

    async def change(request: web.Request) -> web.Response:
        order = await read_order(request, {"changes": list}, optional)
        return web.json_response(change_records(context, order))

    async def held(_request: web.Request) -> web.Response:
        return web.json_response({"held": context.org.held()})

    async def end(request: web.Request) -> web.Response:
        key, how = request.match_info["key"], request.match_info["how"]
        try:
            (context.org.release if how == "commit" else context.org.abandon)(key)
        except KeyError as error:
            raise OrgError(404, "NOT_FOUND", f"no transaction is held under {key}") from error
        return web.Response(status=204)

    async def seed(request: web.Request) -> web.Response:
        counts = dict.fromkeys(("accounts", "contacts", "leads", "opportunities", "number"), int)
        order = await read_order(request, {}, {**counts, "historic": bool})
        with values_refused():
            seed = Seed(**order)
        return web.json_response(await sow(context, seed))

    return [
        web.post("/changes", change),
        web.get("/transactions", held),
        web.post("/transactions/{key}/{how:commit|rollback}", end),
        web.post("/seed", seed),
    ]


def _rule_routes(context: Context) -> list[web.RouteDef]:
    rules = context.org.rules

    async def order(request: web.Request) -> web.Response:
        order = await read_order(request, {"kind": str, "members": dict})
        with values_refused():
            rules.order(order["kind"], order["members"])
        return web.json_response(_plain(rules), status=201)

    async def show(_request: web.Request) -> web.Response:
        return web.json_response(_plain(rules))

    async def clear(_request: web.Request) -> web.Response:
        rules.clear()
        return web.Response(status=204)

    return [web.get("/rules", show), web.post("/rules", order), web.delete("/rules", clear)]


def _plain(rules: Rules) -> dict[str, Any]:
    return {**dataclasses.asdict(rules), "locked": sorted(rules.locked)}


def _read_routes(context: Context) -> list[web.RouteDef]:
    async def records(request: web.Request) -> web.Response:
        limit = _whole(request, "limit", _DEFAULT_ROWS)
        deleted = bool(_whole(request, "deleted", 0))
        after = request.query.get("after", "")
        return web.json_response(_rows(context, request.match_info["object"], after, limit, deleted=deleted))

    async def ledger(request: web.Request) -> web.Response:
        limit, after = _whole(request, "limit", _DEFAULT_ROWS), _whole(request, "after", 0)
        return web.json_response(_ledger(context, after, limit))

    return [web.get("/records/{object}", records), web.get("/ledger", ledger)]


def _rows(context: Context, name: str, after: str, limit: int, *, deleted: bool) -> dict[str, Any]:
    """Committed records in id order, their values as the org stores them (date-times end in `Z`)."""
    schema = context.schema.require(name)
    condition = "" if deleted else ' AND "IsDeleted" = 0'
    # The table's name is the schema's and quoted; what comes from outside is bound.
    statement = f'SELECT * FROM {quoted(schema.table)} WHERE "Id" > ?{condition} ORDER BY "Id" LIMIT ?'  # noqa: S608
    rows = context.database.connection.execute(statement, (after, limit)).fetchall()
    found = [decoded(schema, row) for row in rows]
    return {"records": found, "next": found[-1]["Id"] if len(found) == limit else None}


def _ledger(context: Context, after: int, limit: int) -> dict[str, Any]:
    statement = "SELECT rowid AS number, * FROM ledger WHERE rowid > ? ORDER BY rowid LIMIT ?"
    rows = context.database.connection.execute(statement, (after, limit)).fetchall()
    return {"entries": [dict(row) for row in rows], "next": rows[-1]["number"] if len(rows) == limit else None}


def _whole(request: web.Request, name: str, otherwise: int) -> int:
    text = request.query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit()) or int(text) > (MOST_ROWS if name == "limit" else _LARGEST):
        raise OrgError(400, "INVALID_ORDER", f"{name}: expected a whole number, limit at most {MOST_ROWS}")
    return int(text)
