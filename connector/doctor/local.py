"""What can be looked at on this machine: settings, secrets, disk, replica, the way to the broker."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from connector.app.org import ORG_CURSOR
from connector.doctor.findings import Finding, listed
from connector.errors import BrokerRefused, ConfigError, ConnectorError, StoreBusy, StoreUnusable, TransientError
from connector.mesh.connection import probe
from connector.mesh.topics import Topics
from connector.settings import PLACEHOLDER_URL, MqttSettings, Secrets, Settings, is_loopback
from connector.store.checks import check_file, check_place
from connector.store.migrate import SCHEMA_VERSION
from connector.store.reader import ReadOnlyReplica

PUBSUB_LIBRARIES = ("grpc", "fastavro")
LITTLE_SPACE_BYTES = 500 * 1024**2
NO_SPACE_BYTES = 50 * 1024**2

# Where systemd looks for what `LoadCredential=` names. Source: systemd.exec(5), "CREDENTIALS".
CREDENTIAL_STORES = tuple(
    Path(folder) / store for folder in ("/etc", "/run", "/usr/lib") for store in ("credstore", "credstore.encrypted")
)
_CREDENTIAL = "salesforce-sync."

_NOT_THE_OWNERS = stat.S_IRWXG | stat.S_IRWXO
_MIB = 1024**2
_NO_HOUR = "9999-12-31T23"


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What is known of the replica's file.

    Attributes:
        current: It is there and of this version, so that API calls can be counted in it.
        org_id: The org whose records it holds; None if there are none yet.
    """

    current: bool
    org_id: str | None


def wrong_setting(problem: str) -> Finding:
    """A line of `ConfigError`."""
    return Finding("settings", "fail", problem, "correct it in the settings file or the environment")


def settings_problems(settings: Settings) -> Iterator[Finding]:
    """What would keep the daemon from starting, though each setting is well-formed."""
    salesforce = settings.salesforce
    if salesforce.instance_url == PLACEHOLDER_URL:
        message = f"salesforce.instance_url = {PLACEHOLDER_URL!r} is still the example"
        mend = (
            "set your org's address, which Setup > My Domain shows; "
            "`salesforce-sync init --instance-url https://yourdomain.my.salesforce.com` writes a settings file"
        )
        yield Finding("settings", "fail", message, mend)
    if salesforce.stream == "pubsub" and (missing := [name for name in PUBSUB_LIBRARIES if find_spec(name) is None]):
        message = f"salesforce.stream = 'pubsub': {', '.join(missing)} missing"
        yield Finding("settings", "fail", message, "pip install 'salesforce-sync[pubsub]', or set \"cometd\"")
    try:
        settings.auth_flow()
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("settings", "fail", problem, "put the secrets into .env; .env.example names them")


def settings_in_short(settings: Settings) -> Finding:
    """The settings are fine."""
    salesforce = settings.salesforce
    stream = "off" if salesforce.stream == "off" else f"{salesforce.stream} on {salesforce.channel}"
    return Finding("settings", "ok", f"objects {listed(settings.synced())}; stream {stream}")


def secret_files(
    directory: Path, settings: Settings | None, *, fix: bool = False, stores: Sequence[Path] = CREDENTIAL_STORES
) -> Iterator[Finding]:
    """Files that hold secrets must be their owner's alone.

    Args:
        directory: Where `.env` is.
        settings: Name the others; None if they cannot be read.
        fix: Close those that are ours.
        stores: Folders from which systemd takes a service's credentials.
    """
    paths = [directory / ".env", *_credentials(stores)]
    if settings is not None:
        paths.append(settings.storage.path.with_name("refresh_token.json"))
        if settings.secrets.sf_private_key_file:
            paths.append(Path(settings.secrets.sf_private_key_file))
    there = [path for path in paths if path.is_file()]
    open_files = [path for path in there if path.stat().st_mode & _NOT_THE_OWNERS]
    for path in open_files:
        mode = stat.S_IMODE(path.stat().st_mode)
        message = f"{path} holds a secret and is open to other users (mode {mode:03o})"
        if fix and _closed(path):
            yield Finding("secrets", "ok", f"{path} was open to other users and is its owner's alone now")
        else:
            yield Finding("secrets", "warn", message, f"chmod 600 {path}")
    if not open_files:
        message = f"{listed(map(str, there))}: open to the owner alone" if there else "no file holds any"
        yield Finding("secrets", "ok", message)


def _credentials(stores: Sequence[Path]) -> Iterator[Path]:
    """The service's credentials, as far as we can see into their folders; those of a folder closed to us are closed."""
    for store in stores:
        if os.access(store, os.X_OK):
            yield from (store / f"{_CREDENTIAL}{name.upper()}" for name in Secrets.model_fields)


def _closed(path: Path) -> bool:
    try:
        path.chmod(0o600)
    except OSError:
        return False
    return True


def disk(path: Path) -> Finding:
    """Is there room for the replica, and may we write there?"""
    folder = _existing(path.resolve().parent)
    try:
        check_place(path)
        free_bytes = shutil.disk_usage(folder).free
    except StoreUnusable as error:
        return Finding("disk", "fail", str(error))
    except OSError as error:
        return Finding("disk", "fail", f"{folder}: {error.strerror}", "check the file system, or set storage.path")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("disk", "fail", f"{folder} is read-only for this user", "check its owner, mode and file system")
    free, mend = f"{free_bytes // _MIB:,} MiB free in {folder}", "make room, or set another storage.path"
    if free_bytes < NO_SPACE_BYTES:
        return Finding("disk", "fail", f"only {free}", mend)
    return (
        Finding("disk", "warn", f"only {free}", mend)
        if free_bytes < LITTLE_SPACE_BYTES
        else Finding("disk", "ok", free)
    )


def replica(path: Path) -> tuple[Finding, ReplicaState]:
    """Does the replica's file open, and of which version is it? Works beside a running daemon; writes nothing."""
    unknown = ReplicaState(current=False, org_id=None)
    try:
        version = check_file(path, thorough=False)
        if version == 0:
            return Finding("replica", "ok", f"{path} is not there yet; the first start makes it"), unknown
        if version < SCHEMA_VERSION:
            message = f"{path} is of schema {version}; the next start makes it {SCHEMA_VERSION}"
            return Finding("replica", "ok", message), unknown
        with ReadOnlyReplica(path) as opened:
            with opened.snapshot() as unit:
                org_id = unit.cursor(ORG_CURSOR)
            figures = opened.figures(_NO_HOUR)
    except StoreBusy as error:
        return Finding("replica", "warn", str(error), "try again; if it lasts, find who keeps the file locked"), unknown
    except ConnectorError as error:
        return Finding("replica", "fail", str(error)), unknown
    records = sum(numbers.records for numbers in figures.objects.values())
    message = f"{path}: {records:,} records of {len(figures.objects)} objects, version {figures.version}"
    return Finding("replica", "ok", f"{message}, schema {SCHEMA_VERSION}"), ReplicaState(current=True, org_id=org_id)


async def broker(settings: Settings) -> list[Finding]:
    """Does the broker take us, give us our rights, and keep others out?"""
    mqtt = settings.mqtt
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        # A name of its own: with the daemon's the broker would end the daemon's connection.
        name = f"{mqtt.client_id or f'salesforce-sync-{settings.node.name}'}-doctor"
        visit = await probe(mqtt, settings.secrets, name, topics=Topics(root=mqtt.root))
    except ConfigError as error:
        return [Finding("settings", "fail", problem, "name a file with CA certificates") for problem in error.problems]
    except BrokerRefused as error:
        mend = "check MQTT_USERNAME, MQTT_PASSWORD, mqtt.protocol and the broker's log"
        return [Finding("broker", "fail", f"{where} refuses us: {error}", mend)]
    except TransientError as error:
        mend = "check mqtt.host, mqtt.port and mqtt.tls, and that the broker runs"
        return [Finding("broker", "fail", f"{where} cannot be reached: {error}", mend)]
    takes_us = f"{where} takes us (MQTT {mqtt.protocol}{', TLS' if mqtt.tls else ''})"
    found = [Finding("broker", "ok", f"{takes_us}: {visit.version or 'it does not tell its version'}")]
    if settings.secrets.mqtt_password.get_secret_value() and _in_clear(mqtt):
        message = f"the password goes to {where} in clear"
        found.append(Finding("broker", "warn", message, "set mqtt.tls = true and the broker's TLS port"))
    if visit.refused:
        mend = "give this user the rights of deploy/mosquitto/acl"
        found.append(Finding("broker", "fail", f"{where} does not let us use {listed(visit.refused)}", mend))
    if settings.secrets.mqtt_username and await _takes_anybody(mqtt, f"{name}-nobody"):
        mend = "set allow_anonymous false at the broker"
        found.append(Finding("broker", "warn", f"{where} lets clients in without a password", mend))
    return found


async def _takes_anybody(mqtt: MqttSettings, client_id: str) -> bool:
    try:
        await probe(mqtt, Secrets(), client_id)
    except (BrokerRefused, TransientError):
        return False
    return True


def _in_clear(mqtt: MqttSettings) -> bool:
    return not mqtt.tls and not is_loopback(mqtt.host)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())
