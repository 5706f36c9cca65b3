"""The model of `settings.toml`, and how environment, `.env` and systemd credentials are laid over it.

Order of precedence: environment, `.env` in the working directory, `settings.toml`, the defaults below. Secrets come
from the environment, `.env` or systemd credentials, never from `settings.toml`.
"""

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from connector.errors import ConfigError

ENV_PREFIX = "SALESFORCE_SYNC_"
SETTINGS_ENV = "SALESFORCE_SYNC_SETTINGS"
PLACEHOLDER_URL = "https://yourinstance.my.salesforce.com"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_DURATION_S = 10 * 366 * 86400.0


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('expected a duration such as "500ms", "30s", "15m", "1h" or "30d"')
    seconds = float(match[1]) * _UNIT[match[2]]
    if not 0 < seconds <= _MAX_DURATION_S:
        raise ValueError("expected a duration above zero and of at most ten years")
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Operations = Literal["create", "update", "upsert", "delete"]
ApiName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")]
TopicText = Annotated[str, Field(pattern=r"^[^+#$/\x00][^+#\x00]*[^+#/\x00]$", max_length=200)]


def _listen(value: str) -> str:
    if value:
        host_and_port(value)
    return value


def _listen_here(value: str) -> str:
    if not is_loopback(host_and_port(value)[0]):
        raise ValueError(
            "the page asks nobody who they are, so it listens on loopback only; from elsewhere use an SSH tunnel or a "
            "proxy that asks"
        )
    return value


def host_and_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`, taken apart.

    Raises:
        ValueError: It is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _MAX_PORT:
        raise ValueError('expected "host:port", an IPv6 address in brackets')
    return match["v6"] or match["host"], int(match["port"])


Listen = Annotated[str, AfterValidator(_listen)]
ListenHere = Annotated[str, AfterValidator(_listen_here)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(_Section):
    """Who this node is in the mesh."""

    name: str = Field("lucidia", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Name of the node in the mesh.")
    org_code: str = Field("FND", pattern=r"^[A-Z0-9]{2,8}$", description="Our code in BlackRoad signals.")


class SalesforceSettings(_Section):
    """The org and how to log in."""

    instance_url: str = Field(
        PLACEHOLDER_URL, description="The org's address; also the token endpoint's host, unless login_url is set."
    )
    login_url: str = Field("", description="Token endpoint's host where it is not instance_url.")
    api_version: str = Field("58.0", pattern=r"^\d{2,3}\.0$", description="REST, Bulk and CometD version.")
    auth: Literal["auto", "jwt", "client_credentials", "refresh_token", "password", "access_token"] = Field(
        "auto", description="Login flow; auto: by the secrets that are there."
    )
    timeout: Duration = Field(timedelta(seconds=30), description="Of one request.")
    stream: Literal["cometd", "pubsub", "off"] = Field("cometd", description="Transport of change events.")
    replay_fallback: Literal["new", "all"] = Field(
        "new", description="Behind a lost position: new events only, or all kept ones, which the org counts again."
    )
    pubsub_url: str = Field("https://api.pubsub.salesforce.com:7443", description="Where the Pub/Sub API is.")
    channel: str = Field("/data/ChangeEvents", pattern=r"^/data/[A-Za-z0-9_]+$", description="Channel subscribed.")

    @field_validator("instance_url", "login_url", "pubsub_url")
    @classmethod
    def _url(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "login_url":
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.rstrip("/") or parts.query:
            raise ValueError("expected an address such as https://yourdomain.my.salesforce.com, without a path")
        if parts.username or parts.password:
            raise ValueError("expected an address without credentials in it")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("plain http:// is taken for loopback addresses only; use https://")
        return value.rstrip("/")


class SyncSettings(_Section):
    """What is kept in step, and how often."""

    interval_minutes: int = Field(15, ge=1, le=1440, description="Poll interval of objects that set none, minutes.")
    batch_size: int = Field(200, ge=1, le=2000, description="Change events applied in one transaction at most.")
    publish_backfill: bool = Field(default=False, description="Publish the records of a first load as changes.")
    objects: tuple[ApiName, ...] = Field((), description="Empty: the four defaults and every [objects.X].")
    lookback: Duration = Field(timedelta(minutes=5), description="Every poll reads this far back again.")
    bulk_threshold: int = Field(20000, ge=1, description="Records, above which a first load takes the Bulk API.")
    verify_interval: Duration = Field(timedelta(hours=24), description="Compare the replica with the org this often.")
    backoff_max: Duration = Field(timedelta(seconds=60), description="Longest wait between two tries.")


class ObjectSettings(_Section):
    """One synced object."""

    fields: tuple[ApiName, ...] | Literal["all"] = Field("all", description='API names, or "all" that we may read.')
    poll_interval: Duration | None = Field(None, description="Unset: sync.interval_minutes.")
    writable: bool = Field(default=True, description="Commands may write this object.")
    writable_fields: tuple[ApiName, ...] = Field((), description="Empty: every synced field the org lets us write.")
    operations: tuple[Operations, ...] = Field(
        ("create", "update", "upsert", "delete"), description="What commands may do."
    )
    external_id: str = Field("", pattern=r"^$|^[A-Za-z][A-Za-z0-9_]{0,79}$", description="External id field, if any.")
    owner: Mapping[ApiName, Literal["org", "mesh", "shared"]] = Field(
        default_factory=dict, description="Who wins a field when both sides changed it."
    )
    on_conflict: Literal["", "reject", "merge", "overwrite"] = Field(
        "", description="For commands that do not say; empty: commands.on_conflict."
    )


class StorageSettings(_Section):
    """The replica's file."""

    path: Path = Field(Path("data/salesforce.db"), description="The SQLite file.")
    keep_deleted: Duration = Field(timedelta(days=30), description="Deleted records stay this long.")
    keep_changes: Duration = Field(timedelta(days=30), description="The change log reaches this far back.")
    backups: str = Field("", description="Folder of the backups; empty: backups beside the file.")
    keep_backups: Duration = Field(timedelta(days=14), description="Backups stay this long; the newest one always.")

    def backup_folder(self) -> Path:
        """Where the backups are."""
        return Path(self.backups) if self.backups else self.path.with_name("backups")


class MqttSettings(_Section):
    """The broker."""

    host: str = Field("127.0.0.1", min_length=1, description="The broker's name or address.")
    port: int = Field(1883, ge=1, le=65535, description="Its port; 8883 is the usual one with TLS.")
    tls: bool = Field(default=False, description="Encrypt, and check the broker's certificate.")
    ca_file: str = Field("", description="CA certificates; empty: the system's.")
    keepalive: Duration = Field(timedelta(seconds=30), description="A link silent for longer counts as broken.")
    client_id: str = Field("", max_length=128, description="Empty: salesforce-sync-{node}, of a mirror -mirror-{node}.")
    protocol: Literal["5", "3.1.1"] = Field("5", description="3.1.1 has no message properties.")
    max_payload: ByteSize = Field(ByteSize(256 * 1024), ge=1024, description="Largest message taken from the mesh.")
    root: TopicText = Field("blackroad/salesforce", description="The beginning of every topic but the signals'.")
    retain_records: bool = Field(default=False, description="Keep every record as a retained message.")


class SignalSettings(_Section):
    """BlackRoad signals."""

    enabled: bool = Field(default=True, description="Send signals.")
    target: str = Field("OS", pattern=r"^[A-Z0-9]{2,8}$", description="Whom they go to, and come from.")
    batch_interval: Duration = Field(timedelta(seconds=5), description="At most one records_updated per interval.")


class CommandSettings(_Section):
    """Writes from the mesh."""

    on_conflict: Literal["reject", "merge", "overwrite"] = Field(
        "merge", description="For commands that do not say: what to do with a field that changed on both sides."
    )
    per_minute: int = Field(0, ge=0, description="Per object; 0: no limit.")
    deletes_per_hour: int = Field(0, ge=0, description="Per object; 0: no limit.")
    settle_for: Duration = Field(
        timedelta(minutes=10), description="A lost create without external id is looked for so long."
    )
    bulk_threshold: int = Field(
        5000, ge=0, description="Waiting commands of one kind from which on they go as a Bulk job; 0: never."
    )


class QuerySettings(_Section):
    """Queries from the mesh."""

    max_page: int = Field(500, ge=1, le=5000, description="Records of one reply at most.")
    timeout: Duration = Field(timedelta(seconds=2), description="A query that takes longer is ended.")


class HealthSettings(_Section):
    """The health document."""

    interval: Duration = Field(timedelta(seconds=30), description="Published this often, and on a change of state.")


class MetricsSettings(_Section):
    """Prometheus metrics."""

    listen: Listen = Field("", description='"127.0.0.1:9464" to serve them; empty: nobody listens.')

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, or None."""
        return host_and_port(self.listen) if self.listen else None


class WebSettings(_Section):
    """The status page."""

    enabled: bool = Field(default=False, description="Serve it from the daemon.")
    listen: ListenHere = Field("127.0.0.1:8099", description="A loopback address.")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return host_and_port(self.listen)


class LimitSettings(_Section):
    """The API budget."""

    daily_api_calls: int = Field(15000, ge=1, description="A ceiling of our own; the org's lower one wins.")
    warn_at: float = Field(0.8, gt=0, le=1, description="Part of a daily limit at which a signal warns.")
    reserve_for_commands: float = Field(0.1, ge=0, lt=1, description="Part of it that loads and polls leave alone.")


class LogSettings(_Section):
    """Logging."""

    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is less is left out.")


class Secrets(BaseModel):
    """Credentials; from the environment, `.env` or systemd credentials."""

    model_config = ConfigDict(frozen=True)

    sf_username: str = ""
    sf_password: SecretStr = SecretStr("")
    sf_security_token: SecretStr = SecretStr("")
    sf_client_id: str = ""
    sf_client_secret: SecretStr = SecretStr("")
    sf_private_key_file: str = ""
    sf_refresh_token: SecretStr = SecretStr("")
    sf_access_token: SecretStr = SecretStr("")
    mqtt_username: str = ""
    mqtt_password: SecretStr = SecretStr("")


DEFAULT_OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "Contact": {"fields": ("FirstName", "LastName", "Name", "Email", "Phone", "AccountId", "OwnerId")},
    "Lead": {"fields": ("Name", "FirstName", "LastName", "Email", "Company", "Status", "OwnerId")},
    "Account": {"fields": ("Name", "Industry", "AnnualRevenue", "OwnerId"), "poll_interval": "1h"},
    "Opportunity": {"fields": ("Name", "Amount", "StageName", "CloseDate", "AccountId", "OwnerId")},
}

# What each login flow needs, in the order `auto` tries them.
AUTH_SECRETS: Mapping[str, tuple[str, ...]] = {
    "jwt": ("sf_client_id", "sf_username", "sf_private_key_file"),
    "refresh_token": ("sf_client_id", "sf_refresh_token"),
    "password": ("sf_client_id", "sf_client_secret", "sf_username", "sf_password"),
    "client_credentials": ("sf_client_id", "sf_client_secret"),
    "access_token": ("sf_access_token",),
}


class Settings(_Section):
    """Everything the operator can set; section 9 of the interface."""

    node: NodeSettings = NodeSettings()
    salesforce: SalesforceSettings = SalesforceSettings()
    sync: SyncSettings = SyncSettings()
    objects: dict[ApiName, ObjectSettings] = Field(default_factory=dict)
    storage: StorageSettings = StorageSettings()
    mqtt: MqttSettings = MqttSettings()
    signals: SignalSettings = SignalSettings()
    commands: CommandSettings = CommandSettings()
    query: QuerySettings = QuerySettings()
    health: HealthSettings = HealthSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    secrets: Secrets = Field(default_factory=Secrets, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _default_objects(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("objects", {}), dict):
            return data
        named = data.get("objects", {})
        merged: dict[str, Any] = {name: dict(default) for name, default in DEFAULT_OBJECTS.items()}
        for name, own in named.items():
            merged[name] = {**merged.get(name, {}), **own} if isinstance(own, dict) else own
        return {**data, "objects": merged}

    @model_validator(mode="after")
    def _selected_objects_exist(self) -> Self:
        tables = [name.lower() for name in self.synced()]
        if len(set(tables)) != len(tables):
            raise ValueError("two of the objects differ only by case")
        return self

    def synced(self) -> dict[str, ObjectSettings]:
        """The objects to keep in step: `sync.objects` if given, else the defaults and every `[objects.X]`."""
        if not self.sync.objects:
            return dict(self.objects)
        return {name: self.objects.get(name, ObjectSettings.model_validate({})) for name in self.sync.objects}

    def poll_interval(self, name: str) -> timedelta:
        """How often an object is polled while the stream is healthy."""
        own = self.synced()[name].poll_interval
        return own if own is not None else timedelta(minutes=self.sync.interval_minutes)

    def auth_flow(self) -> str:
        """The login flow to use.

        Raises:
            ConfigError: Secrets are missing, each named.
        """
        if self.salesforce.auth != "auto":
            missing = self._missing(self.salesforce.auth)
            if missing:
                raise ConfigError(*(f"{name.upper()}: missing; {self.salesforce.auth} needs it" for name in missing))
            return self.salesforce.auth
        for flow in AUTH_SECRETS:
            if not self._missing(flow):
                return flow
        raise ConfigError(
            "salesforce.auth: no login flow has all its secrets; set one of "
            + ", ".join(f"{flow} ({', '.join(s.upper() for s in needs)})" for flow, needs in AUTH_SECRETS.items())
        )

    def _missing(self, flow: str) -> list[str]:
        return [name for name in AUTH_SECRETS[flow] if not _revealed(getattr(self.secrets, name))]


def is_loopback(host: str) -> bool:
    """True for `localhost` and the loopback addresses."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Settings:
    """Read settings file, `.env`, environment and systemd credentials.

    Args:
        path: The settings file; None: `SALESFORCE_SYNC_SETTINGS`, else `settings.toml` in `directory`, if there.
        environ: The environment; None: this process's.
        directory: The working directory; None: this process's.

    Raises:
        ConfigError: With one line per mistake, naming key, value and what was expected.
    """
    data = _gathered(path, environ, directory)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(*_problems(error)) from None


def load_mesh_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> tuple[MqttSettings, Secrets]:
    """The broker and the credentials alone, for a program that has neither org nor replica; see `load_settings`.

    Raises:
        ConfigError: With one line per mistake in section `mqtt`.
    """
    data = _gathered(path, environ, directory)
    try:
        return MqttSettings.model_validate(data.get("mqtt", {})), Secrets.model_validate(data["secrets"])
    except ValidationError as error:
        raise ConfigError(*(f"mqtt.{problem}" for problem in _problems(error))) from None


def _gathered(path: Path | None, environ: Mapping[str, str] | None, directory: Path | None) -> dict[str, Any]:
    """The settings file with everything else laid over it, not validated."""
    here = directory or Path.cwd()
    env = {**_dotenv(here / ".env"), **(os.environ if environ is None else environ)}
    file = path or (Path(env[SETTINGS_ENV]) if env.get(SETTINGS_ENV) else None)
    data = _toml(file, required=True) if file else _toml(here / "settings.toml", required=False)
    if "secrets" in data:
        raise ConfigError("secrets: unknown section; secrets come from the environment, .env or systemd credentials")
    _overlay(data, env)
    data["secrets"] = dict(_secrets(env))
    return data


def _toml(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such settings file; `salesforce-sync init` makes one") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _dotenv(path: Path) -> dict[str, str]:
    try:
        return {k: v for k, v in dotenv_values(path).items() if v is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _overlay(data: dict[str, Any], env: Mapping[str, str]) -> None:
    """Lay `SALESFORCE_SYNC_SECTION__KEY` over the file's values; unknown names stay and are refused by the model."""
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name == SETTINGS_ENV:
            continue
        section, _, rest = name.removeprefix(ENV_PREFIX).partition("__")
        target = data.setdefault(section.lower(), {})
        if section.lower() == "objects":
            # Custom objects hold "__" themselves: the key is what follows the last one.
            object_name, _, rest = rest.rpartition("__")
            target = target.setdefault(_spelled(object_name, target), {})
        if isinstance(target, dict):
            target[rest.lower()] = _parsed(env[name])


def _spelled(name: str, named: Mapping[str, Any]) -> str:
    known = [*named, *DEFAULT_OBJECTS]
    return next((k for k in known if k.lower() == name.lower()), name)


def _parsed(text: str) -> object:
    """Lists and tables are given as JSON; everything else is text for the model to convert."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _secrets(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    credentials = Path(env["CREDENTIALS_DIRECTORY"]) if env.get("CREDENTIALS_DIRECTORY") else None
    for key in Secrets.model_fields:
        name = key.upper()
        file = credentials / name if credentials else None
        if file is not None and file.is_file():
            # A key file is handed on by its path; every other credential is its content.
            yield key, str(file) if key.endswith("_file") else file.read_text(encoding="utf-8").strip()
        elif env.get(name):
            yield key, env[name]


def _revealed(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _problems(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        match item["type"]:
            case "extra_forbidden":
                yield f"{where}: unknown key"
            case "missing":
                yield f"{where}: missing"
            case _ if isinstance(item["input"], dict) or "@" in str(item["input"]):  # may hold a password
                yield f"{where}: {message}"
            case _:
                yield f"{where} = {item['input']!r}: {message}"
