"""Signals: texts, batching, spells and crossings; what the Bridge may ask for."""

from typing import Any

import orjson
import pytest

from connector.mesh.signals import Signals, asks_for_sync
from connector.mesh.topics import Topics
from connector.model.documents import SignalDocument
from connector.model.message import Message
from connector.model.times import to_ms

TOPICS = Topics()
NOW_MS = to_ms("2026-11-22T17:26:39.157Z")


def signals(*, enabled: bool = True) -> Signals:
    return Signals(TOPICS, enabled=enabled, batch_interval_ms=5000)


def document(message: Message | None) -> dict[str, Any]:
    assert message is not None
    assert (message.topic, message.qos, message.retain) == ("blackroad/signals/FND/OS", 1, False)
    SignalDocument.model_validate_json(message.payload)
    loaded = orjson.loads(message.payload)
    assert isinstance(loaded, dict)
    return loaded


def test_sync_complete() -> None:
    """Its text and data; section 6."""
    message = signals().sync_complete(
        kind="poll", objects=["Contact", "Lead"], records=3, duration_s=1.23456, api_calls=2, now_ms=NOW_MS
    )
    assert document(message) == {
        "ts": "2026-11-22T17:26:39.157Z",
        "signal": "sync_complete",
        "from": "FND",
        "to": "OS",
        "msg": "sync_complete",
        "text": "\u2714\ufe0f FND → OS : sync_complete",
        "data": {"kind": "poll", "objects": ["Contact", "Lead"], "records": 3, "duration_s": 1.235, "api_calls": 2},
    }


def test_records_updated_at_most_once_per_interval() -> None:
    """The first at once, then what has gathered when the interval is over."""
    sender = signals()
    assert sender.records_updated(NOW_MS) is None
    sender.count_updated("Contact")
    assert sender.updates_due_ms() == 0
    first = document(sender.records_updated(NOW_MS))
    assert first["text"] == "\U0001f4ca FND → OS : records_updated, count=1"
    sender.count_updated("Contact", 2)
    sender.count_updated("Lead")
    assert sender.records_updated(NOW_MS + 4999) is None
    assert sender.updates_due_ms() == NOW_MS + 5000
    second = document(sender.records_updated(NOW_MS + 5000))
    assert second["msg"] == "records_updated, count=3"
    assert second["data"] == {"count": 3, "objects": {"Contact": 2, "Lead": 1}}
    assert sender.updates_due_ms() is None


def test_a_clock_set_back_does_not_silence_the_updates() -> None:
    """At most one interval is waited, whatever the clock says."""
    sender = signals()
    sender.count_updated("Contact")
    document(sender.records_updated(NOW_MS))
    sender.count_updated("Contact")
    assert sender.records_updated(NOW_MS - 3_600_000) is not None


def test_sync_failed_once_per_failing_spell() -> None:
    """Per kind and object, again only after it has worked."""
    sender = signals()
    first = sender.sync_failed(kind="poll", object_name="Contact", error="HTTP 503", now_ms=NOW_MS)
    assert document(first)["text"] == "\u274c FND → OS : sync_failed"
    assert document(first)["data"] == {"kind": "poll", "object": "Contact", "error": "HTTP 503"}
    assert sender.sync_failed(kind="poll", object_name="Contact", error="again", now_ms=NOW_MS) is None
    stream = sender.sync_failed(kind="stream", object_name=None, error="silent", now_ms=NOW_MS)
    assert document(stream)["data"]["object"] is None
    sender.sync_complete(kind="poll", objects=["Contact"], records=0, duration_s=0, api_calls=1, now_ms=NOW_MS)
    assert sender.sync_failed(kind="poll", object_name="Contact", error="new", now_ms=NOW_MS) is not None
    sender.recovered("stream", None)
    assert sender.sync_failed(kind="stream", object_name=None, error="new", now_ms=NOW_MS) is not None


def test_the_warning_of_a_limit_is_named_after_it() -> None:
    """API calls and delivered events; whoever calls knows when one is due."""
    sender = signals()
    sent = sender.limit_warning("api", used=800, maximum=1000, now_ms=NOW_MS)
    assert document(sent)["text"] == "\u26a0\ufe0f FND → OS : api_limit_warning"
    assert document(sent)["data"] == {"used": 800, "max": 1000}
    assert (
        document(sender.limit_warning("events", used=8, maximum=10, now_ms=NOW_MS))["signal"] == "event_limit_warning"
    )


def test_disabled_signals_send_nothing() -> None:
    """`signals.enabled = false`."""
    sender = signals(enabled=False)
    sender.count_updated("Contact")
    assert sender.updates_due_ms() is None
    assert sender.sync_complete(kind="poll", objects=[], records=0, duration_s=0, api_calls=0, now_ms=NOW_MS) is None
    assert sender.sync_failed(kind="poll", object_name=None, error="", now_ms=NOW_MS) is None
    assert sender.limit_warning("api", used=1, maximum=1, now_ms=NOW_MS) is None


@pytest.mark.parametrize(
    "payload",
    [
        "🔄 OS → FND : sync",
        "🔄 OS → FND : sync_request",
        "🔄\ufe0f OS → FND : sync now, please",
        '{"text": "🔄 OS → FND : sync", "signal": "x"}',
        " 🔄 OS→FND: sync\n",
    ],
)
def test_requests_for_a_sync(payload: str) -> None:
    """As a line or as a signal's JSON."""
    assert asks_for_sync(TOPICS, payload.encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"text": 1}',
        b'{"text": ' + b"[" * 3000,
        "🔄 FND → OS : sync".encode(),
        "📊 OS → FND : sync".encode(),
        "🔄 OS → FND : restart".encode(),
        "🔄 OS → FND : sync".encode() + b"x" * 5000,
    ],
)
def test_everything_else_is_ignored(payload: bytes) -> None:
    """Whatever arrives, no error."""
    assert not asks_for_sync(TOPICS, payload)
