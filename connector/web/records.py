"""Records, their history and commands, as JSON: bounded pages, each within a time limit."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from connector.errors import QueryTooSlow, StoreUnusable, TransientError
from connector.model.command import CommandStatus
from connector.model.ids import to_record_id
from connector.model.times import to_iso
from connector.overview.board import command_line
from connector.overview.past import past_of
from connector.ports import Onlooker, Overlook
from connector.serve.query.answer import Freshness, Question, answer
from connector.serve.query.payload import validated
from connector.serve.request import Refused

PAGE_RECORDS = 50
PAST_CHANGES = 100
PAGE_COMMANDS = 100
MAX_ASKING = 8

_STATUS = {"busy": 503, "timed_out": 503, "unavailable": 503, "unknown_object": 404, "not_found": 404}


class RecordPages:
    """What the page asks for besides the feed."""

    def __init__(self, replica: Onlooker, *, timeout_s: float, now_ms: Callable[[], int]) -> None:
        self._replica = replica
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._asking = 0

    def add_routes(self, app: web.Application) -> None:
        """`/api/records…` and `/api/commands`."""
        app.router.add_get("/api/records/{object}", self.records)
        app.router.add_get("/api/records/{object}/{id}", self.record)
        app.router.add_get("/api/commands", self.commands)

    async def records(self, request: web.Request) -> web.Response:
        """A page of an object's records, or of those that have the words of `text`."""
        text, after = request.query.get("text", "").strip(), request.query.get("after")
        fields = {"limit": PAGE_RECORDS, **({"after": after} if after else {}), **({"text": text} if text else {})}
        verb = "search" if text else "list"
        return await self._answered(lambda replica: self._page(replica, request.match_info["object"], verb, fields))

    async def record(self, request: web.Request) -> web.Response:
        """One record with its past and what is under way on it."""
        name, record_id = request.match_info["object"], request.match_info["id"]
        return await self._answered(lambda replica: self._record(replica, name, record_id))

    async def commands(self, request: web.Request) -> web.Response:
        """The newest commands, of one status or of all."""
        named = request.query.get("status")
        return await self._answered(lambda replica: _commands(replica, named))

    def _page(self, replica: Overlook, name: str, verb: str, fields: Mapping[str, Any]) -> bytes:
        asked = Question(
            object=name,
            verb=verb,
            payload=validated(verb, fields, None),
            correlation=None,
            max_page=PAGE_RECORDS,
            # How fresh it is, the overview tells beside it.
            freshness=Freshness(stream="", verified_ms=None),
            change_data=lambda _change: {},
        )
        return answer(replica, asked, self._now_ms())

    def _record(self, replica: Overlook, name: str, record_id: str) -> bytes:
        got = orjson.loads(self._page(replica, name, "get", {"id": record_id}))
        past = past_of(replica.history(name, to_record_id(record_id), PAST_CHANGES))
        if not got["records"] and not past["changes"]:
            raise Refused("not_found", f"no {name} {record_id} is known")
        return orjson.dumps(
            {
                "object": name,
                "id": to_record_id(record_id),
                "record": next(iter(got["records"]), None),
                "pending": got["pending"],
                "as_of": to_iso(self._now_ms()),
                **past,
            }
        )

    async def _answered(self, work: Callable[[Overlook], bytes]) -> web.Response:
        if self._asking >= MAX_ASKING:
            return _refusal("busy", "too much is asked for at once; ask again")
        self._asking += 1
        try:
            return web.Response(
                body=await self._replica.read(work, timeout_s=self._timeout_s), content_type="application/json"
            )
        except Refused as refused:
            return _refusal(refused.code, str(refused))
        except ValueError as error:
            return _refusal("invalid_request", str(error))
        except QueryTooSlow as error:
            return _refusal("timed_out", str(error))
        except (TransientError, StoreUnusable) as error:
            return _refusal("unavailable", str(error))
        finally:
            self._asking -= 1


def _commands(replica: Overlook, named: str | None) -> bytes:
    status = None if not named else CommandStatus(named)
    return orjson.dumps({"commands": [command_line(c) for c in replica.commands(status, PAGE_COMMANDS)]})


def _refusal(code: str, message: str) -> web.Response:
    body = orjson.dumps({"error": {"code": code, "message": message}})
    return web.Response(status=_STATUS.get(code, 400), body=body, content_type="application/json")
