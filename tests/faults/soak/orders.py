"""Orders to the local org for what shall go wrong; see `connector.devorg.faults.Fault`."""

from collections.abc import Mapping, Sequence
from typing import Any

# What the org answers to a REST call.
REST: Sequence[Mapping[str, Any]] = (
    {"status": 401, "code": "INVALID_SESSION_ID", "message": "Session expired or invalid"},
    {"status": 401, "html": True},
    {"status": 403, "code": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."},
    {"status": 403, "code": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."},
    {"status": 503, "code": "SERVER_UNAVAILABLE", "message": "busy"},
    {"status": 503, "html": True},
    {"status": 502, "html": True},
    {"status": 500, "code": "UNKNOWN_EXCEPTION", "message": "unexpected"},
    {"status": 200, "body": "<html><body>Maintenance</body></html>"},
    {"status": 200, "body": '{"records": [{"attri'},
    {"status": 200, "body": "[]"},
    {"status": 429},
    {"close": True},
    {"delay_s": 0.2},
    {"delay_s": 1.2},
    {"half_open": True},
    {"truncate": True},
    {"drop_response": True},
)
# A write is carried out, and its answer is not heard.
LOST: Sequence[Mapping[str, Any]] = (
    {"drop_response": True},
    {"truncate": True},
    {"drop_response": True, "delay_s": 0.1},
    {"half_open": True},
    {"status": 502, "html": True},
    {"status": 504, "html": True},
)
# Method and path of writes: creates, which have most to lose, alone or as a collection or with other collections; and
# every call of an ingest job.
WRITES: Sequence[tuple[str, str]] = (
    ("POST", r"/composite$|/composite/sobjects$|/v[\d.]+/sobjects/\w+$"),
    ("POST", r"/composite$|/composite/sobjects$|/v[\d.]+/sobjects/\w+$"),
    ("PATCH", "/sobjects"),
    ("DELETE", "/sobjects"),
    ("", "/jobs/ingest"),
)
OAUTH: Sequence[Mapping[str, Any]] = (
    {"status": 503, "html": True},
    {"status": 500, "code": "server_error"},
    {"status": 200, "body": "<html></html>"},
    {"close": True},
    {"drop_response": True},
    {"half_open": True},
    {"delay_s": 0.2},
)
_COMETD: Sequence[Mapping[str, Any]] = (
    {"kind": "cometd:connect", "unknown_client": True},
    {"kind": "cometd:connect", "error": "402::Unknown client", "reconnect": "none"},
    {"kind": "cometd:connect", "unknown_client": True, "disconnect": True, "reconnect": "none"},
    {"kind": "cometd:connect", "disconnect": True},
    {"kind": "cometd:connect", "error": "401::Authentication invalid"},
    {"kind": "cometd:connect", "failure_reason": "503::Server is too busy.  Please try your request again later."},
    {"kind": "cometd:connect", "error": "403::Organization total events daily limit exceeded"},
    {"kind": "cometd:connect", "half_open": True},
    {"kind": "cometd:connect", "close": True},
    {"kind": "cometd:connect", "drop_response": True},
    {"kind": "cometd:handshake", "failure_reason": "401::Authentication invalid"},
    {"kind": "cometd:handshake", "failure_reason": "403::Organization concurrent user limit exceeded"},
    {"kind": "cometd:handshake", "failure_reason": "503::Server is too busy."},
    {"kind": "cometd:handshake", "error": "403::Handshake denied"},
    {"kind": "cometd:handshake", "half_open": True},
    {"kind": "cometd:subscribe", "unknown_client": True},
    {"kind": "cometd:subscribe", "failure_reason": "503::Server is too busy."},
    {"kind": "cometd:subscribe", "error": "403::Organization total events daily limit exceeded"},
    {"kind": "cometd:subscribe", "error": "404::Unknown channel"},
    {"kind": "cometd:subscribe", "close": True},
)
_PUBSUB: Sequence[Mapping[str, Any]] = (
    {"kind": "pubsub:fetch", "close": True},
    {"kind": "pubsub:fetch", "half_open": True},
    {"kind": "pubsub:fetch", "code": "service.auth.error"},
    {"kind": "pubsub:fetch", "code": "service.unavailable"},
    {"kind": "pubsub:fetch", "code": "service.protection.triggered"},
    {"kind": "pubsub:fetch", "code": "subscription.internal.error"},
    {"kind": "pubsub:fetch", "code": "subscription.limit.exceeded"},
    {"kind": "pubsub:fetch", "code": "subscription.fetch.replay.repeated"},
    {"kind": "pubsub:topic", "code": "topic.api.unavailable"},
    {"kind": "pubsub:topic", "code": "topic.not.found"},
    {"kind": "pubsub:topic", "code": "service.auth.error"},
    {"kind": "pubsub:schema", "code": "schema.api.unavailable"},
    {"kind": "pubsub:schema", "half_open": True},
    {"kind": "pubsub:subscribe", "code": "concurrent.client.limit.exceeded"},
    {"kind": "pubsub:subscribe", "close": True},
)
STREAM: Mapping[str, Sequence[Mapping[str, Any]]] = {"cometd": _COMETD, "pubsub": _PUBSUB}
_COMETD_HTTP: Sequence[Mapping[str, Any]] = (
    {"status": 401},
    {"status": 403, "html": True},
    {"status": 404},
    {"status": 500, "html": True},
    {"status": 503, "html": True, "headers": {"Retry-After": "1"}},
    {"status": 200, "body": "<html>a gateway's page</html>"},
    {"status": 200, "body": '[{"channel": "/meta/conn'},
    {"status": 200, "body": "[]"},
    {"truncate": True},
    {"drop_response": True},
    {"close": True},
    {"half_open": True},
)
_PUBSUB_CALLS: Sequence[Mapping[str, Any]] = (
    {"code": "service.auth.error"},
    {"code": "service.unavailable"},
    {"code": "something.that.is.new"},
    {"close": True},
    {"half_open": True},
    {"delay_s": 0.2},
)
STREAM_HTTP: Mapping[str, Sequence[Mapping[str, Any]]] = {"cometd": _COMETD_HTTP, "pubsub": _PUBSUB_CALLS}
_COMETD_DELIVER: Sequence[Mapping[str, Any]] = (
    {"duplicate": True, "count": 5},
    {"duplicate": True, "count": 5},
    {"drop_response": True},
    {"close": True},
    {"half_open": True},
    {"error": "403::Unknown client", "unknown_client": True},
    {"delay_s": 0.3},
)
_PUBSUB_DELIVER: Sequence[Mapping[str, Any]] = (
    {"duplicate": True, "count": 5},
    {"duplicate": True, "count": 5},
    {"drop_response": True},
    {"close": True},
    {"half_open": True},
    {"truncate": True},
    {"delay_s": 0.3},
)
DELIVER: Mapping[str, Sequence[Mapping[str, Any]]] = {"cometd": _COMETD_DELIVER, "pubsub": _PUBSUB_DELIVER}
GARBAGE: Sequence[Mapping[str, Any]] = (
    {"ChangeEventHeader": {"changeType": "EXPLODE"}},
    {"ChangeEventHeader": {"recordIds": []}},
    {"ChangeEventHeader": {"recordIds": ["not an id"]}},
    {"ChangeEventHeader": {"commitTimestamp": "yesterday"}},
    {"ChangeEventHeader": {"commitNumber": None, "commitUser": 7}},
    {"AnnualRevenue": "a lot", "Amount": "a lot"},
    {"Name": [1, 2], "MailingAddress": "Main Street"},
    {"Description": {"diff": "--- \n+++ 00\n@@ -1 +1 @@\n-nothing\n+like it"}},
    {"LastModifiedDate": "soon"},
)
