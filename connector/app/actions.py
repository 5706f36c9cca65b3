"""What control messages set off."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from connector.inbound.engine import Inbound
from connector.mesh.envelope import result_document
from connector.serve.control import Actions, Verification
from connector.serve.health import Health
from connector.store.database import Database


def control_actions(
    *,
    objects: Callable[[], Collection[str]],
    inbound: Inbound,
    database: Database,
    health: Health,
    state_changed: Callable[[], None],
) -> Actions:
    """The actions on these parts; `state_changed` is told that health has something new."""

    async def sync(names: Sequence[str] | None) -> Mapping[str, Any]:
        done = await inbound.sync(names)
        return {
            "objects": list(done.objects),
            "records": done.records,
            "duration_s": round(done.duration_s, 3),
            "api_calls": done.api_calls,
        }

    async def verify(asked: Verification) -> Mapping[str, Any]:
        found = await inbound.verify(asked.objects, repair=asked.repair, allow_deletions=asked.allow_deletions)
        state_changed()
        return {
            "objects": {
                r.object: {"compared": r.compared, "drift": r.drift, "repaired": r.repaired, "held": r.held}
                for r in found
            }
        }

    async def pause() -> None:
        inbound.pause()
        state_changed()

    async def resume() -> None:
        inbound.resume()
        state_changed()

    async def status() -> Mapping[str, Any]:
        return await health.document()

    async def command(command_id: str) -> Mapping[str, Any] | None:
        found = await database.run(lambda unit: unit.command(command_id))
        return None if found is None else result_document(found)

    async def schema() -> Mapping[str, Any]:
        from connector.app.schema import schema_document  # noqa: PLC0415 - a model per message, for who asks alone

        return schema_document(inbound.catalog.specs)

    return Actions(
        objects=objects,
        sync=sync,
        pause=pause,
        resume=resume,
        status=status,
        command=command,
        verify=verify,
        schema=schema,
    )
