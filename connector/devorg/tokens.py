"""Credentials of the local org, and the tokens that it has issued."""

import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from connector.devorg.clock import OrgClock
from connector.devorg.database import OrgDatabase
from connector.devorg.settings import OrgSettings

KEY_BITS = 2048
ORG_ID_META = "org_id"
TOKEN_BYTES = 48

TokenKind = Literal["access", "refresh"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS oauth_token (
    token TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('access', 'refresh')),
    user_id TEXT NOT NULL,
    parent TEXT NOT NULL,           -- the refresh token an access token was got with; may be empty
    alive INTEGER NOT NULL CHECK (alive IN (0, 1))
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What logs in to the local org. They are the same for every org and written in its documentation."""

    username: str = "integration@local.example"
    password: str = "devorg-password"  # noqa: S105 - of an org that only this machine reaches
    security_token: str = "DevOrgSecurityToken"  # noqa: S105 - likewise
    client_id: str = "3MVG9DevOrgClientId"
    client_secret: str = "DevOrgClientSecret"  # noqa: S105 - likewise
    refresh_token: str = "5AepDevOrgRefreshToken"  # noqa: S105 - likewise


class KeyPair:
    """The RSA key pair of the JWT bearer flow, made in `directory` when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "private_key.pem"

    def private_key_file(self) -> Path:
        """The private key in PEM form, readable by its owner alone."""
        if not self._file.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            # mkstemp gives mode 600; the rename keeps a crash from leaving half a key.
            descriptor, name = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
            Path(name).replace(self._file)
        return self._file

    def public_key(self) -> rsa.RSAPublicKey:
        """What the org checks a signature with."""
        key = serialization.load_pem_private_key(self.private_key_file().read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"{self._file} holds no RSA key")
        return key.public_key()


@dataclass(slots=True, kw_only=True)
class _Token:
    kind: TokenKind
    user_id: str
    parent: str
    used_ms: int
    alive: bool = True


@dataclass(kw_only=True)
class Tokens:
    """The org's access and refresh tokens. They survive a restart of the org.

    An access token dies after `settings.token_lifetime_s` without use; a refresh token lives until it is revoked,
    rotated away or expired on order.

    Attributes:
        org_id: 18-character id of the org; an access token begins with the first 15.
        default_user_id: The user of the two tokens that every org has from the start.
    """

    database: OrgDatabase
    clock: OrgClock
    settings: OrgSettings
    org_id: str
    default_user_id: str
    credentials: Credentials
    _tokens: dict[str, _Token] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database.connection.execute(_SCHEMA)
        self._load()

    def _load(self) -> None:
        connection = self.database.connection
        defaults = (
            (self.default_access_token, "access", self.default_user_id, self.credentials.refresh_token),
            (self.credentials.refresh_token, "refresh", self.default_user_id, ""),
        )
        connection.executemany("INSERT OR IGNORE INTO oauth_token VALUES (?, ?, ?, ?, 1)", defaults)
        now_ms = self.clock.now_ms()
        for token, kind, user_id, parent, alive in connection.execute("SELECT * FROM oauth_token").fetchall():
            self._tokens[token] = _Token(kind=kind, user_id=user_id, parent=parent, used_ms=now_ms, alive=bool(alive))

    @property
    def default_access_token(self) -> str:
        """An access token that is there from the start."""
        return f"{self.org_id[:15]}!DevOrgAccessToken"

    def issue(self, user_id: str, *, parent: str = "") -> str:
        """A new access token of the user."""
        self._forget_dead()
        return self._add("access", f"{self.org_id[:15]}!AQ{secrets.token_urlsafe(TOKEN_BYTES)}", user_id, parent)

    def check(self, token: str) -> str | None:
        """The user of a live access token, whose life this extends; None where it is dead or unknown."""
        known = self._tokens.get(token)
        if known is None or known.kind != "access" or not self._alive(known):
            return None
        known.used_ms = self.clock.now_ms()
        return known.user_id

    def keep(self, token: str) -> None:
        """Extend the life of an access token however long it was not used, unless it was revoked.

        Source: Streaming API Developer Guide; while a CometD client is connected its session does not expire.
        """
        known = self._tokens.get(token)
        if known is not None and known.kind == "access" and known.alive:
            known.used_ms = self.clock.now_ms()

    def refresh(self, token: str) -> tuple[str, str, str] | None:
        """User, new access token and, where they rotate, new refresh token (else empty); None for a dead one."""
        known = self._tokens.get(token)
        if known is None or known.kind != "refresh" or not known.alive:
            return None
        if not self.settings.rotate_refresh_tokens:
            return known.user_id, self.issue(known.user_id, parent=token), ""
        self._kill([token])
        rotated = self._add("refresh", f"5Aep{secrets.token_urlsafe(TOKEN_BYTES)}", known.user_id, "")
        return known.user_id, self.issue(known.user_id, parent=rotated), rotated

    def revoke(self, token: str) -> bool:
        """Kill a token, and with a refresh token its access tokens; False where it is dead or unknown."""
        known = self._tokens.get(token)
        if known is None or not self._alive(known):
            return False
        children = [text for text, other in self._tokens.items() if other.parent == token]
        self._kill([token, *(children if known.kind == "refresh" else [])])
        return True

    def expire(self, kind: TokenKind) -> int:
        """Kill every token of the kind, and tell how many were alive."""
        alive = [text for text, known in self._tokens.items() if known.kind == kind and self._alive(known)]
        self._kill(alive)
        return len(alive)

    def become(self, org_id: str) -> None:
        """Be another org from here on, as a sandbox is after its refresh: every token is dead."""
        self.expire("access")
        self.expire("refresh")
        self.org_id = org_id
        self.database.set_meta(ORG_ID_META, org_id)
        self._load()

    def _alive(self, token: _Token) -> bool:
        idle_ms = self.clock.now_ms() - token.used_ms
        return token.alive and (token.kind == "refresh" or idle_ms < self.settings.token_lifetime_s * 1000)

    def _add(self, kind: TokenKind, text: str, user_id: str, parent: str) -> str:
        self.database.connection.execute(
            "INSERT INTO oauth_token VALUES (?, ?, ?, ?, 1)", (text, kind, user_id, parent)
        )
        self._tokens[text] = _Token(kind=kind, user_id=user_id, parent=parent, used_ms=self.clock.now_ms())
        return text

    def _kill(self, texts: list[str]) -> None:
        for text in texts:
            self._tokens[text].alive = False
        self.database.connection.executemany(
            "UPDATE oauth_token SET alive = 0 WHERE token = ?", [(text,) for text in texts]
        )

    def _forget_dead(self) -> None:
        """Drop what can never live again, but for the two tokens that would otherwise come back at a start."""
        keep = (self.default_access_token, self.credentials.refresh_token)
        dead = [text for text, known in self._tokens.items() if not self._alive(known) and text not in keep]
        for text in dead:
            del self._tokens[text]
        self.database.connection.executemany("DELETE FROM oauth_token WHERE token = ?", [(text,) for text in dead])
