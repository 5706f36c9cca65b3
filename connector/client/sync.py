"""`SFSync`: the records of the org, read from the replica and written by commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connector.client.local import LocalSource
from connector.client.models import Account, Contact, Lead, Opportunity, Record
from connector.client.records import Records
from connector.client.source import Source
from connector.errors import ConfigError
from connector.settings import MqttSettings, Secrets, Settings, load_mesh_settings, load_settings


class SFSync:
    """The records of the org.

    Reads come from the replica, at no API call; writes are commands that the daemon sends. To be closed at the end, or
    used with `with`; it may be shared by threads.

    Args:
        settings: The settings, or their file; None: `settings.toml`, as for every command.
        remote: Where the broker of a daemon on another node is, `host` or `host:port`; True: where the settings say.
            Then everything goes over MQTT, and no replica is needed here. Of the settings, section `mqtt` and the
            secrets `MQTT_USERNAME` and `MQTT_PASSWORD` are used.

    Raises:
        ConfigError: The settings cannot work.
    """

    def __init__(self, settings: Settings | Path | str | None = None, *, remote: str | bool | None = None) -> None:
        file = Path(settings) if isinstance(settings, str | Path) else None
        self._source: Source
        if remote:
            mesh = (settings.mqtt, settings.secrets) if isinstance(settings, Settings) else load_mesh_settings(file)
            self._source = _remote_source(*mesh, remote)
        else:
            self._source = LocalSource(settings if isinstance(settings, Settings) else load_settings(file))

    @property
    def contacts(self) -> Records[Contact]:
        """Contact."""
        return Records(self._source, "Contact", Contact)

    @property
    def leads(self) -> Records[Lead]:
        """Lead."""
        return Records(self._source, "Lead", Lead)

    @property
    def accounts(self) -> Records[Account]:
        """Account."""
        return Records(self._source, "Account", Account)

    @property
    def opportunities(self) -> Records[Opportunity]:
        """Opportunity."""
        return Records(self._source, "Opportunity", Opportunity)

    def object(self, name: str) -> Records[Record]:
        """Any synced object, by its API name."""
        return Records(self._source, name, Record)

    def sql(self, query: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> Sequence[dict[str, Any]]:
        """Rows of the replica's tables by SQL, as dictionaries; reads only.

        In the process of an `SFSync` read the file by this, and not by `sqlite3`: two SQLite libraries in one process
        undo each other's file locks.

        Raises:
            ValueError: SQLite does not take the statement.
        """
        return self._source.sql(query, bindings)

    def close(self) -> None:
        """Give back what is open."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _remote_source(mqtt: MqttSettings, secrets: Secrets, remote: str | bool) -> Source:
    from connector.client.remote import RemoteSource  # noqa: PLC0415 - with paho: not for reading a file
    from connector.mesh.visitor import address_of  # noqa: PLC0415 - likewise

    if isinstance(remote, str):
        host, _, port = remote.partition(":")
        if not host or not (port or "1883").isdigit():
            raise ConfigError(f"remote = {remote!r}: expected host or host:port")
        mqtt = mqtt.model_copy(update={"host": host, "port": int(port or mqtt.port)})
    return RemoteSource(address_of(mqtt, secrets), mqtt.root)
