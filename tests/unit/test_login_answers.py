"""What each answer of the token endpoint means."""

import json
from typing import Any

import pytest

from connector.errors import (
    ConnectorError,
    LinkDown,
    LoginRefused,
    OrgThrottled,
    OrgUnavailable,
)
from connector.salesforce.answers import Answer
from connector.salesforce.login_answers import SignatureRefused, grant, org_of

GOOD = {
    "access_token": "00D5f000000Qr8s!AQ0AQSecret",
    "instance_url": "https://acme.my.salesforce.com/",
    "id": "https://login.salesforce.com/id/00D5f000000Qr8sEAC/0055f000007NnAbAAK",
    "token_type": "Bearer",
}


def _answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def test_a_token_tells_org_and_user_and_hides_its_secret() -> None:
    """The ids come from the identity URL; `repr` shows no secret."""
    granted = grant(_answer({**GOOD, "refresh_token": "5AepSecret"}))
    assert granted.token.org_id == "00D5f000000Qr8sEAC"
    assert granted.token.user_id == "0055f000007NnAbAAK"
    assert granted.token.instance_url == "https://acme.my.salesforce.com"
    assert granted.refresh_token == "5AepSecret"
    assert "Secret" not in repr(granted)


def test_without_an_identity_url_the_token_tells_the_org() -> None:
    """An opaque token begins with the 15-character id."""
    granted = grant(_answer({k: v for k, v in GOOD.items() if k != "id"}))
    assert (granted.token.org_id, granted.token.user_id) == ("00D5f000000Qr8sEAC", None)
    assert org_of("eyJhbGciOi.a.b") is None


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": None},
        {"access_token": "bad\ntoken"},
        {"instance_url": "http://acme.my.salesforce.com"},
        {"instance_url": None},
        {"id": "https://login.salesforce.com/id/00D5f000000Qr8sEAC"},
        {"id": None, "access_token": "eyJ.a.b"},
    ],
)
def test_an_unusable_token_answer_is_a_broken_link(change: dict[str, Any]) -> None:
    """A body of another shape never crashes, and plain http is not followed to another machine."""
    with pytest.raises(LinkDown):
        grant(_answer({**GOOD, **change}))


@pytest.mark.parametrize("body", [b"", b"<html>maintenance</html>", b"[]", b"null", b'"x"', b"\xff\xfe"])
def test_a_success_that_is_no_token_is_a_broken_link(body: bytes) -> None:
    """HTML with status 200 happens in maintenance."""
    with pytest.raises(LinkDown):
        grant(_answer(body))


@pytest.mark.parametrize(
    ("error", "description", "expected"),
    [
        ("invalid_grant", "authentication failure", LoginRefused),
        ("invalid_grant", "user hasn't approved this consumer", LoginRefused),
        ("invalid_grant", "expired access/refresh token", LoginRefused),
        ("invalid_grant", "no client credentials user enabled", LoginRefused),
        ("invalid_grant", "request not supported on this domain", LoginRefused),
        ("invalid_client_id", "client identifier invalid", LoginRefused),
        ("invalid_client", "invalid client credentials", LoginRefused),
        ("unsupported_grant_type", "grant type not supported", LoginRefused),
        ("inactive_user", "user is inactive", LoginRefused),
        ("inactive_org", None, LoginRefused),
        ("something_new", "unheard of", LoginRefused),
        ("invalid_grant", "Audience validation failed", SignatureRefused),
        ("invalid_grant", "invalid assertion", SignatureRefused),
        ("invalid_grant", "expired authorization code", SignatureRefused),
        ("rate_limit_exceeded", "login rate exceeded", OrgThrottled),
        ("invalid_grant", "login rate exceeded", OrgThrottled),
        ("unknown_error", "retry your request", OrgUnavailable),
    ],
)
def test_errors_of_the_token_endpoint(error: str, description: str | None, expected: type[ConnectorError]) -> None:
    """Terminal ones stop, the rate waits, clock and audience may be signed again."""
    body = {"error": error} | ({"error_description": description} if description else {})
    with pytest.raises(expected) as caught:
        grant(_answer(body, 400))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b"", OrgUnavailable),
        (503, b"<html></html>", OrgUnavailable),
        (502, {"error": "invalid_grant"}, OrgUnavailable),
        (302, b"", OrgUnavailable),
        (403, b"<html>proxy</html>", OrgUnavailable),
        (403, {"error": "invalid_grant"}, LoginRefused),
        (404, b"<html>nothing here</html>", LoginRefused),
        (401, {"error": "invalid_client"}, LoginRefused),
        (403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}], OrgThrottled),
        (400, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}], OrgThrottled),
        (400, {"error": "REQUEST_LIMIT_EXCEEDED", "error_description": "TotalRequests Limit exceeded."}, OrgThrottled),
    ],
)
def test_statuses_of_the_token_endpoint(status: int, body: Any, expected: type[ConnectorError]) -> None:
    """A spent quota is never a bad login, and a gateway's page is none either."""
    with pytest.raises(expected):
        grant(_answer(body, status))


def test_the_operator_is_told_what_to_do() -> None:
    """The refusal carries the next step, and no line breaks of the other side."""
    with pytest.raises(LoginRefused, match="My Domain") as caught:
        grant(_answer({"error": "invalid_grant", "error_description": "request not supported on this domain\nx"}, 400))
    assert "\n" not in str(caught.value)
