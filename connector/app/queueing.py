"""Commands put into the table by another process than the daemon: checked, stored and answered as those of the mesh."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from connector.app.clock import wall_clock_ms
from connector.app.mirrored import refuse_mirrors
from connector.app.rules import outbound_rules
from connector.errors import CommandRejected
from connector.inbound.catalog import stored_spec
from connector.mesh.envelope import Envelope
from connector.mesh.topics import Topics
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus
from connector.model.objects import ObjectSpec
from connector.outbound import manage
from connector.outbound.admit import Admission, Asker
from connector.outbound.payload import validate_payload
from connector.ports import Unit
from connector.settings import Settings
from connector.store import Session

_LOOK_S = 0.05

T = TypeVar("T")


class StoredCatalog:
    """The objects as the replica remembers them: what can be known without the org."""

    def __init__(self, specs: Mapping[str, ObjectSpec]) -> None:
        self._specs = specs

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced or was never described."""
        return self._specs.get(name)

    def prefixes(self) -> Mapping[str, str]:
        """Key prefix -> object name."""
        return {spec.key_prefix: name for name, spec in self._specs.items() if spec.key_prefix}


class CommandQueue:
    """The command table beside a daemon that may be running; it sends what is queued here at once.

    Use with `with`; entering raises what `Session.open` does.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = Session(Path(settings.storage.path), guest=True)
        self._answers = Envelope(Topics(root=settings.mqtt.root), node=settings.node.name)
        self._catalog = StoredCatalog({})

    def __enter__(self) -> Self:
        self._session.open()
        try:
            self._run(refuse_mirrors)
            self._catalog = self._run(self._described)
        except BaseException:
            self._session.close()
            raise
        self._admission = Admission(self._catalog, outbound_rules(self._settings))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None; its name in any spelling."""
        names = {known.lower(): known for known in self._settings.synced()}
        return self._catalog.spec(names.get(name.lower(), name))

    def add(self, object_name: str, operation: Operation, data: Mapping[str, Any]) -> Command:
        """Store a command, `data` being what a service would publish; the stored one.

        Raises:
            CommandRejected: With one line per problem; nothing is stored.
        """
        payload = validate_payload(data)
        request = self._admission.request(object_name, operation, payload, Asker(), wall_clock_ms())

        def store(unit: Unit) -> Command:
            command, _ = self._admission.accept(unit, request)
            self._answer(unit, command)
            return command

        return self._run(store)

    def rehearse(
        self, object_name: str, operation: Operation, data: Mapping[str, Any]
    ) -> tuple[CommandStatus, Mapping[str, Any]]:
        """What would become of a command, and what would be sent; nothing is stored.

        Raises:
            CommandRejected: It would not be accepted.
        """
        payload = validate_payload(data)
        request = self._admission.request(object_name, operation, payload, Asker(), wall_clock_ms())
        status, told, _ = self._run(lambda unit: self._admission.rehearse(unit, request))
        return status, told

    def command(self, command_id: str) -> Command | None:
        """The command as it stands, or None."""
        return self._run(lambda unit: unit.command(command_id))

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest first."""
        return self._run(lambda unit: unit.commands(status, limit))

    def open_count(self) -> int:
        """Commands without an end."""
        return self._run(lambda unit: unit.queue_depths()["commands"])

    def wait(self, command_id: str, timeout_s: float) -> Command:
        """The command once it has its end, or as it stands when the time is over.

        Raises:
            CommandRejected: There is no such command.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.command(command_id)
            if found is None:
                raise CommandRejected(f"{command_id}: no such command")
            if found.status.final or time.monotonic() >= deadline:
                return found
            time.sleep(_LOOK_S)

    def retry(self, command_id: str) -> Command:
        """Open a command again; see `manage.retry`."""
        return self._run(partial(self._retry, command_id))

    def cancel(self, command_id: str) -> Command:
        """End a command that waits; see `manage.cancel`."""

        def end(unit: Unit) -> Command:
            ended = manage.cancel(unit, command_id, wall_clock_ms())
            self._answer(unit, ended)
            return ended

        return self._run(end)

    def _retry(self, command_id: str, unit: Unit) -> Command:
        known = unit.command(command_id)
        spec = self._catalog.spec(known.object) if known is not None else None
        again = manage.retry(unit, command_id, spec, wall_clock_ms())
        self._answer(unit, again)
        return again

    def _answer(self, unit: Unit, command: Command) -> None:
        for message in self._answers.result(command):
            unit.enqueue(message)

    def _described(self, unit: Unit) -> StoredCatalog:
        found = {name: stored_spec(unit, name) for name in self._settings.synced()}
        return StoredCatalog({name: spec for name, spec in found.items() if spec is not None})

    def _run(self, work: Callable[[Unit], T]) -> T:
        return self._session.run(work)
