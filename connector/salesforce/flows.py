"""The forms that the five login flows send to the token endpoint, and the JWT bearer assertion.

Source: Salesforce Help, "OAuth 2.0 JWT Bearer Flow for Server-to-Server Integration" and the page of each other flow.
"""

from pathlib import Path
from urllib.parse import urlsplit

import jwt

from connector.errors import ConfigError
from connector.settings import Secrets

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# The org takes an expiry of up to three minutes ahead; the middle leaves a clock 90 seconds on both sides.
ASSERTION_LIFE_S = 90

_PRODUCTION = "https://login.salesforce.com"
_SANDBOX = "https://test.salesforce.com"
_MY_DOMAIN = ".my.salesforce.com"
_TEST_MY_DOMAINS = (".sandbox.my.salesforce.com", ".scratch.my.salesforce.com")


def form(flow: str, secrets: Secrets, *, refresh_token: str = "", assertion: str = "") -> dict[str, str]:
    """Form fields of a token request.

    Args:
        flow: jwt, client_credentials, refresh_token or password.
        secrets: Credentials; those of the flow are there.
        refresh_token: The newest one.
        assertion: Signed, for jwt.
    """
    if flow == "jwt":
        return {"grant_type": JWT_BEARER, "assertion": assertion}
    client = {"client_id": secrets.sf_client_id}
    if secret := secrets.sf_client_secret.get_secret_value():
        client["client_secret"] = secret
    if flow == "client_credentials":
        return {"grant_type": "client_credentials", **client}
    if flow == "refresh_token":
        return {"grant_type": "refresh_token", **client, "refresh_token": refresh_token}
    password = secrets.sf_password.get_secret_value() + secrets.sf_security_token.get_secret_value()
    return {"grant_type": "password", **client, "username": secrets.sf_username, "password": password}


def audience(host_url: str) -> str:
    """`aud` for a token endpoint's host.

    login and test.salesforce.com name themselves. A My Domain belongs to one of the two: sandboxes and scratch orgs to
    test, all else to login. Any other host, the local org among them, names itself.
    """
    host = (urlsplit(host_url).hostname or "").lower()
    if host in ("login.salesforce.com", "test.salesforce.com"):
        return f"https://{host}"
    if not host.endswith(_MY_DOMAIN):
        return host_url
    # Before enhanced domains a sandbox was told by the two hyphens alone.
    return _SANDBOX if host.endswith(_TEST_MY_DOMAINS) or "--" in host.partition(".")[0] else _PRODUCTION


def other_audience(host_url: str) -> str:
    """What to try once where `audience` is refused: the host's own address, which orgs take in practice."""
    first = audience(host_url)
    if first != host_url:
        return host_url
    return _SANDBOX if first == _PRODUCTION else _PRODUCTION


def read_key(path: Path) -> str:
    """The private key in PEM form.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"SF_PRIVATE_KEY_FILE = {path}: {type(error).__name__}; expected a PEM file") from error


def assertion(secrets: Secrets, key: str, *, audience: str, now_s: float) -> str:
    """The signed JWT bearer assertion.

    Args:
        secrets: Client id and user name.
        key: RSA private key in PEM form.
        audience: `aud`.
        now_s: The org's time, seconds since the Unix epoch.

    Raises:
        ConfigError: The key cannot be used.
    """
    claims = {
        "iss": secrets.sf_client_id,
        "sub": secrets.sf_username,
        "aud": audience,
        "exp": int(now_s) + ASSERTION_LIFE_S,
    }
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        expected = "expected an RSA private key in PEM form, without a passphrase"
        raise ConfigError(f"SF_PRIVATE_KEY_FILE: {type(error).__name__}; {expected}") from None
