"""What each answer of the REST API means: status and errorCode decide together."""

import json
from typing import Any

import pytest

from connector.errors import (
    ConnectorError,
    LinkDown,
    OrgRefused,
    OrgThrottled,
    OrgUnavailable,
    PreconditionFailed,
    RecordGone,
    RowLocked,
)
from connector.model.codes import is_daily_limit
from connector.salesforce.answers import (
    Answer,
    api_usage,
    content,
    failure,
    problems,
    retry_after_s,
    server_ms,
)


def _answer(status: int, value: Any = b"", **headers: str) -> Answer:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def _error(code: str, message: str = "", **members: Any) -> list[dict[str, Any]]:
    return [{"errorCode": code, "message": message, **members}]


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", OrgThrottled),
        (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.", OrgThrottled),
        (403, "INSUFFICIENT_ACCESS", "", OrgRefused),
        (403, "API_DISABLED_FOR_ORG", "", OrgRefused),
        (400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", RowLocked),
        (400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "trigger: UNABLE_TO_LOCK_ROW, unable", RowLocked),
        (400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "trigger: a null pointer", OrgRefused),
        (400, "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "", OrgUnavailable),
        (400, "STORAGE_LIMIT_EXCEEDED", "", OrgThrottled),
        (400, "QUERY_TIMEOUT", "", OrgUnavailable),
        (503, "SERVER_UNAVAILABLE", "", OrgUnavailable),
        (400, "REQUIRED_FIELD_MISSING", "", OrgRefused),
        (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "", OrgRefused),
        (400, "MALFORMED_QUERY", "", OrgRefused),
        (404, "ENTITY_IS_DELETED", "entity is deleted", RecordGone),
        (404, "NOT_FOUND", "The requested resource does not exist", RecordGone),
        (400, "ENTITY_IS_DELETED", "", RecordGone),
        (412, "PRECONDITION_FAILED", "", PreconditionFailed),
        (401, "INVALID_SESSION_ID", "", OrgUnavailable),
        (401, "INVALID_AUTH_HEADER", "", OrgRefused),
    ],
)
def test_classes_of_errors(status: int, code: str, message: str, expected: type[ConnectorError]) -> None:
    """Each code of the reference's table has its reaction."""
    error = failure(_answer(status, _error(code, message)), write=True)
    assert type(error) is expected


@pytest.mark.parametrize(
    ("status", "for_reads", "for_writes"),
    [
        (500, OrgUnavailable, LinkDown),
        (502, OrgUnavailable, LinkDown),
        (504, OrgUnavailable, LinkDown),
        (420, OrgUnavailable, LinkDown),
        (503, OrgUnavailable, OrgUnavailable),
    ],
)
def test_a_gateway_that_gives_up_leaves_a_write_open(
    status: int, for_reads: type[ConnectorError], for_writes: type[ConnectorError]
) -> None:
    """Only 503 says that the org did not take it."""
    page = _answer(status, b"<html>Bad Gateway</html>")
    assert type(failure(page)) is for_reads
    assert type(failure(page, write=True)) is for_writes


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 301])
@pytest.mark.parametrize(
    "body", [b"", b"<html>proxy</html>", b"[]", b"{}", b"[[1]]", b"null", b"\xff", b'[{"errorCode":1}]']
)
def test_bodies_that_are_not_the_orgs_never_crash(status: int, body: bytes) -> None:
    """A proxy's page is a broken link, not a verdict of the org."""
    assert type(failure(_answer(status, body))) is LinkDown


@pytest.mark.parametrize("status", [413, 414, 431, 405])
def test_a_gateways_final_refusals(status: int) -> None:
    """They come without an error array and would come again."""
    error = failure(_answer(status, b"<html></html>"))
    assert isinstance(error, OrgRefused)
    assert error.codes == {f"HTTP_{status}"}


def test_several_records_with_one_external_id() -> None:
    """HTTP 300 has a list of addresses for a body."""
    error = failure(_answer(300, ["/services/data/v58.0/sobjects/Account/001"]), write=True)
    assert isinstance(error, OrgRefused)
    assert error.codes == {"DUPLICATE_EXTERNAL_ID"}


def test_daily_and_concurrent_limits_wait_differently() -> None:
    """The one waits minutes, the other seconds."""
    daily = failure(_answer(403, _error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")))
    concurrent = failure(_answer(403, _error("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded.")))
    assert isinstance(daily, OrgThrottled)
    assert isinstance(concurrent, OrgThrottled)
    assert (daily.retry_after_s or 0) >= 60 > (concurrent.retry_after_s or 0) > 0
    assert is_daily_limit(problems(_answer(403, _error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."))))


@pytest.mark.parametrize("member", ["duplicateResut", "duplicateResult"])
def test_duplicates_name_the_records_found(member: str) -> None:
    """The member is misspelt on many versions."""
    found = {"matchResults": [{"matchRecords": [{"record": {"Id": "0035f00002KmQ7aAAF"}}]}]}
    error = failure(_answer(400, _error("DUPLICATES_DETECTED", "Use one of these records?", **{member: found})))
    assert isinstance(error, OrgRefused)
    assert "0035f00002KmQ7aAAF" in error.errors[0]["message"]


@pytest.mark.parametrize("found", [1, {}, {"matchResults": 3}, {"matchResults": [{}]}, {"matchResults": [None]}])
def test_a_malformed_list_of_duplicates_is_left_out(found: Any) -> None:
    """It is a help for the reader, not needed to decide."""
    [problem] = problems(_answer(400, _error("DUPLICATES_DETECTED", "Use one?", duplicateResut=found)))
    assert problem == {"code": "DUPLICATES_DETECTED", "message": "Use one?", "fields": []}


def test_fields_and_status_codes_of_composite_items() -> None:
    """Items of a composite answer say statusCode where others say errorCode."""
    [problem] = problems(
        _answer(400, [{"statusCode": "STRING_TOO_LONG", "message": "too long", "fields": ["LastName"]}])
    )
    assert problem == {"code": "STRING_TOO_LONG", "message": "too long", "fields": ["LastName"]}


def test_content_is_json_without_nul() -> None:
    """Values reach SQLite without NUL; a backslash before u0000 that is text stays."""
    assert content(Answer(200, {}, b'{"a": "x\\u0000y", "b": ["\\u0000"], "c": "\\\\u0000"}')) == {
        "a": "xy",
        "b": [""],
        "c": "\\u0000",
    }
    assert content(Answer(204, {}, b"")) is None
    with pytest.raises(LinkDown):
        content(Answer(200, {}, b"<html>maintenance</html>"))


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("api-usage=42/15000", (42, 15000)),
        ("api-usage=42/15000; per-app-api-usage=7/5000(appName=sfsync)", (42, 15000)),
        ("per-app-api-usage=7/5000(appName=sfsync), api-usage=42/15000", (42, 15000)),
        ("per-app-api-usage=7/5000(appName=sfsync)", None),
        ("", None),
        ("api-usage=x/y", None),
    ],
)
def test_limit_info(text: str, usage: tuple[int, int] | None) -> None:
    """Read by pattern: separators and order differ."""
    assert api_usage({"Sforce-Limit-Info": text}) == usage


def test_headers_with_times() -> None:
    """The org's clock is needed; a wait is taken as seconds and bounded."""
    assert server_ms({"Date": "Thu, 01 Jan 2026 12:00:05 GMT"}) == 1_767_268_805_000
    for headers in ({}, {"Date": "yesterday"}):
        with pytest.raises(LinkDown):
            server_ms(headers)
    assert retry_after_s({"Retry-After": "7"}) == 7
    assert retry_after_s({"Retry-After": "999999999"}) == 3600
    assert retry_after_s({"Retry-After": "Thu, 01 Jan 2026 12:00:05 GMT"}) is None
