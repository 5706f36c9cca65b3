"""The forms of the five flows and the JWT bearer assertion."""

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from connector.errors import ConfigError
from connector.salesforce import flows
from connector.settings import Secrets

SECRETS = Secrets(
    sf_client_id="3MVG9",
    sf_client_secret=SecretStr("client-secret"),
    sf_username="user@org.example",
    sf_password=SecretStr("pass"),
    sf_security_token=SecretStr("TOKEN"),
)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_assertion_names_app_user_and_a_near_expiry(key: rsa.RSAPrivateKey) -> None:
    """RS256, and `exp` a number of seconds less than three minutes ahead."""
    signed = flows.assertion(SECRETS, _pem(key), audience="https://login.salesforce.com", now_s=1_800_000_000.7)
    claims = jwt.decode(
        signed,
        key.public_key(),
        algorithms=["RS256"],
        audience="https://login.salesforce.com",
        options={"verify_exp": False},
    )
    assert claims["iss"] == "3MVG9"
    assert claims["sub"] == "user@org.example"
    assert isinstance(claims["exp"], int)
    assert 0 < claims["exp"] - 1_800_000_000 < 180


@pytest.mark.parametrize("pem", ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_a_mistake_of_the_settings(pem: str) -> None:
    """The operator is told which setting, not a traceback of the cryptography."""
    with pytest.raises(ConfigError, match="SF_PRIVATE_KEY_FILE"):
        flows.assertion(SECRETS, pem, audience="https://login.salesforce.com", now_s=0)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """The path helps, its content never shows."""
    with pytest.raises(ConfigError, match="absent"):
        flows.read_key(tmp_path / "absent.pem")


@pytest.mark.parametrize(
    ("host", "audience"),
    [
        ("https://login.salesforce.com", "https://login.salesforce.com"),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        ("https://acme.my.salesforce.com", "https://login.salesforce.com"),
        ("https://acme-dev-ed.develop.my.salesforce.com", "https://login.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce.com", "https://test.salesforce.com"),
        ("https://acme--uat.cs12.my.salesforce.com", "https://test.salesforce.com"),
        ("https://acme-1.scratch.my.salesforce.com", "https://test.salesforce.com"),
        ("http://127.0.0.1:8620", "http://127.0.0.1:8620"),
        ("https://site.example", "https://site.example"),
    ],
)
def test_audience_follows_from_the_host(host: str, audience: str) -> None:
    """A My Domain belongs to login or test; other hosts name themselves."""
    assert flows.audience(host) == audience
    assert flows.other_audience(host) != audience


def test_forms_hold_what_each_flow_needs() -> None:
    """Field names are Salesforce's; the security token follows the password."""
    assert flows.form("client_credentials", SECRETS) == {
        "grant_type": "client_credentials",
        "client_id": "3MVG9",
        "client_secret": "client-secret",
    }
    assert flows.form("password", SECRETS)["password"] == "passTOKEN"
    assert flows.form("refresh_token", SECRETS, refresh_token="5Aep")["refresh_token"] == "5Aep"
    assert "client_secret" not in flows.form("refresh_token", Secrets(sf_client_id="x"), refresh_token="5Aep")
    assert flows.form("jwt", SECRETS, assertion="a.b.c") == {"grant_type": flows.JWT_BEARER, "assertion": "a.b.c"}
