"""Control messages and their replies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from connector.errors import LinkDown, PoisonError
from connector.mesh.topics import Topics
from connector.model.documents import RefusalDocument, ReplyDocument
from connector.model.message import Delivery, Message
from connector.serve.control import MAX_WAITING, Actions, Control
from tests.waiting import until

TOPICS = Topics()


def delivery(payload: bytes | Mapping[str, Any] = b"", **more: Any) -> Delivery:
    made = Delivery(
        topic="blackroad/salesforce/control/x",
        payload=payload if isinstance(payload, bytes) else orjson.dumps(payload),
        retained=False,
        duplicate=False,
        packet_id=1,
        token=None,
        response_topic=None,
        correlation=None,
    )
    return replace(made, **more)


class Bench:
    """Control with actions that are recorded."""

    def __init__(self) -> None:
        self.did: list[object] = []
        self.sent: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.control = Control(
            TOPICS,
            Actions(
                objects=lambda: {"Contact", "Lead"},
                sync=self._sync,
                pause=self._pause,
                resume=self._resume,
                status=self._status,
                command=self._command,
            ),
            send=self._send,
            max_payload_bytes=1000,
        )

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def _sync(self, objects: Sequence[str] | None) -> Mapping[str, Any]:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.did.append(("sync", objects))
        return {"records": 3}

    async def _pause(self) -> None:
        self.did.append("pause")

    async def _resume(self) -> None:
        self.did.append("resume")
        if self.error is not None:
            raise self.error

    async def _status(self) -> Mapping[str, Any]:
        return {"state": "ok"}

    async def _command(self, command_id: str) -> Mapping[str, Any] | None:
        return {"command_id": command_id, "status": "succeeded"} if command_id == "c-1" else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.control.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def replies(self) -> list[dict[str, Any]]:
        documents = [orjson.loads(m.payload) for m in self.sent]
        for document in documents:
            (ReplyDocument if document["ok"] else RefusalDocument).model_validate(document)
        return documents


async def test_status_answers_the_reply_topic_without_an_address() -> None:
    """An empty payload is a request without members."""
    bench = Bench()
    await bench.control.handle("status", delivery())
    assert bench.sent[0].topic == "blackroad/salesforce/reply/status"
    assert bench.replies() == [
        {"ok": True, "verb": "status", "state": "done", "data": {"state": "ok"}, "correlation": None}
    ]


async def test_reply_address_and_correlation_out_of_the_payload() -> None:
    """For MQTT 3.1.1 clients."""
    bench = Bench()
    await bench.control.handle("pause", delivery({"reply_to": "billing/inbox", "correlation": "abc"}))
    assert (bench.did, bench.sent[0].topic) == (["pause"], "billing/inbox")
    assert bench.replies()[0]["correlation"] == "abc"


async def test_reply_address_and_correlation_out_of_the_properties() -> None:
    """MQTT 5 wins over the payload; Correlation Data goes back as it came."""
    bench = Bench()
    message = delivery({"reply_to": "x"}, response_topic="billing/inbox", correlation=b"ab\xff")
    await bench.control.handle("resume", message)
    assert (bench.sent[0].topic, bench.sent[0].correlation) == ("billing/inbox", b"ab\xff")
    assert bench.replies()[0]["correlation"] == "ab\ufffd"


@pytest.mark.parametrize("address", ["blackroad/salesforce/status", "blackroad/signals/FND/OS", "$SYS/x", "a/#", ""])
async def test_forbidden_reply_addresses_are_refused_before_anything_is_done(address: str) -> None:
    """The router reports the message as rejected."""
    bench = Bench()
    with pytest.raises(PoisonError, match="reply address"):
        await bench.control.handle("pause", delivery({"reply_to": address}))
    assert (bench.did, bench.sent) == ([], [])


@pytest.mark.parametrize(
    ("verb", "payload", "code", "named"),
    [
        ("status", b"{", "invalid_request", "JSON"),
        ("status", b"[]", "invalid_request", "object"),
        ("status", b"[" * 900, "invalid_request", "JSON"),
        ("status", b'"' + b"x" * 1000 + b'"', "invalid_request", "1000"),
        ("status", b'{"objekte": 1, "correlation": 2}', "invalid_request", "objekte"),
        ("sync", b'{"objects": "Contact"}', "invalid_request", "objects"),
        ("sync", b'{"objects": []}', "invalid_request", "objects"),
        ("sync", b'{"objects": ["Contact", "Dog__c"]}', "unknown_object", "Dog__c"),
        ("command", b"{}", "invalid_request", "command_id"),
        ("command", b'{"command_id": "a/b"}', "invalid_request", "command_id"),
        ("command", b'{"command_id": "c-2"}', "unknown_command", "c-2"),
        ("verify", b"", "not_available", "verify"),
        ("schema", b"", "not_available", "schema"),
        ("dance", b"", "unknown_verb", "sync"),
    ],
)
async def test_refusals_name_what_is_wrong(verb: str, payload: bytes, code: str, named: str) -> None:
    """`ok: false` with a code, and nothing else happens."""
    bench = Bench()
    await bench.control.handle(verb, delivery(payload))
    (reply,) = bench.replies()
    assert (reply["ok"], reply["error"]["code"]) == (False, code)
    assert named in reply["error"]["message"]
    assert bench.did == []


async def test_every_wrong_field_is_named() -> None:
    """Not just the first one."""
    bench = Bench()
    await bench.control.handle("sync", delivery({"objects": [1], "x": 1, "y": 2}))
    message = bench.replies()[0]["error"]["message"]
    assert all(name in message for name in ("objects", "x:", "y:"))


async def test_stored_result_of_a_command() -> None:
    """As it was sent."""
    bench = Bench()
    await bench.control.handle("command", delivery({"command_id": "c-1"}))
    assert bench.replies()[0]["data"] == {"command_id": "c-1", "status": "succeeded"}


async def test_sync_answers_started_then_done() -> None:
    """`done` comes when the round has ended, to the same address."""
    bench = Bench()
    bench.gate.clear()
    async with bench.running():
        await bench.control.handle("sync", delivery({"objects": ["Lead"], "reply_to": "a", "correlation": "c"}))
        await bench.control.handle("status", delivery())
        assert [r.get("state") for r in bench.replies()] == ["started", "done"]
        bench.gate.set()
        await until(lambda: len(bench.sent) == 3)
    assert bench.did == [("sync", ["Lead"])]
    assert (bench.sent[2].topic, bench.replies()[2]["data"]) == ("a", {"records": 3})
    assert bench.replies()[2]["correlation"] == "c"


@pytest.mark.parametrize(("error", "code"), [(LinkDown("no org"), "unavailable"), (PoisonError("no"), "failed")])
async def test_a_failed_sync_says_so(error: Exception, code: str) -> None:
    """And the next one is served."""
    bench = Bench()
    bench.error = error
    async with bench.running():
        await bench.control.handle("sync", delivery())
        await until(lambda: len(bench.sent) == 2)
        bench.error = None
        await bench.control.handle("sync", delivery())
        await until(lambda: len(bench.sent) == 4)
    assert [r.get("state") or r["error"]["code"] for r in bench.replies()] == ["started", code, "started", "done"]


async def test_a_failed_short_action_says_so() -> None:
    """`resume` that cannot."""
    bench = Bench()
    bench.error = PoisonError("the channel is refused")
    await bench.control.handle("resume", delivery())
    assert bench.replies()[0]["error"] == {"code": "failed", "message": "the channel is refused"}


async def test_waiting_work_is_bounded() -> None:
    """Beyond the bound: busy; a signal is dropped."""
    bench = Bench()
    for _ in range(MAX_WAITING):
        await bench.control.sync_signalled()
    await bench.control.sync_signalled()
    await bench.control.handle("sync", delivery())
    assert bench.replies()[0]["error"]["code"] == "busy"


async def test_a_signalled_sync_is_done_without_a_reply() -> None:
    """There is nobody to reply to."""
    bench = Bench()
    async with bench.running():
        await bench.control.sync_signalled()
        await until(lambda: bool(bench.did))
    assert (bench.did, bench.sent) == ([("sync", None)], [])
