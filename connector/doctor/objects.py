"""Does an object's description fit what the settings want of it?"""

from collections.abc import Iterator, Mapping
from typing import Any

from connector.doctor.findings import Finding, listed
from connector.model.objects import ObjectSpec, object_spec
from connector.settings import ObjectSettings

_ACCESS = "give the user's permission set access"


def object_findings(name: str, wanted: ObjectSettings, describe: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with an object; one good finding where nothing is.

    Args:
        name: As the settings spell it.
        wanted: Its settings.
        describe: The org's describe result for our user, not validated.
    """
    try:
        spec = object_spec(describe, wanted.fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [Finding("objects", "fail", f"{name}: its description cannot be used: {error}", f"leave {name} out")]
    if spec.name != name:
        mend = f"spell it so in [objects.{spec.name}] and sync.objects"
        return [Finding("objects", "fail", f"{name}: the org spells it {spec.name}", mend)]
    found = [*_readable(spec, describe), *_external_id(spec, wanted.external_id), *_writable(spec, wanted)]
    if not found:
        found.append(Finding("objects", "ok", f"{name}: {len(spec.fields)} fields readable"))
    return found


def _readable(spec: ObjectSpec, describe: Mapping[str, Any]) -> Iterator[Finding]:
    if describe.get("queryable") is False:
        yield Finding("objects", "fail", f"{spec.name}: the org does not let us query it", f"leave {spec.name} out")
    if spec.missing:
        message = f"{spec.name}: the org has no {listed(spec.missing)}, or does not show it to this user"
        mend = f"{_ACCESS} to the fields, or take them out of objects.{spec.name}.fields"
        yield Finding("objects", "fail", message, mend)


def _external_id(spec: ObjectSpec, name: str) -> Iterator[Finding]:
    if not name:
        return
    setting = f"objects.{spec.name}.external_id = {name!r}"
    field = spec.described.get(name)
    if field is None:
        yield Finding("objects", "fail", f"{setting}: there is no such field", f"{_ACCESS} to it, or correct the name")
    elif not field.external_id:
        mend = 'tick "External ID" and "Unique" in the field\'s definition, or name another field'
        yield Finding("objects", "fail", f"{setting}: the field is no external id", mend)
    elif not field.createable:
        yield Finding("objects", "fail", f"{setting}: the org does not let us set it", f"{_ACCESS} to edit the field")
    elif not field.unique:
        message = f"{setting}: the field is not unique, so that an upsert may find several records"
        yield Finding("objects", "warn", message, 'tick "Unique" in the field\'s definition')


def _writable(spec: ObjectSpec, wanted: ObjectSettings) -> Iterator[Finding]:
    if not wanted.writable:
        return
    synced = {*spec.by_name, wanted.external_id}
    named = f"objects.{spec.name}.writable_fields"
    if unsynced := [name for name in wanted.writable_fields if name not in synced]:
        mend = f"add it to objects.{spec.name}.fields"
        yield Finding(
            "objects", "fail", f"{named}: {listed(unsynced)} is not synced, so commands cannot write it", mend
        )
    fields = [spec.described[name] for name in wanted.writable_fields if name in synced and name in spec.described]
    if closed := [field.name for field in fields if not (field.createable or field.updateable)]:
        message = f"{named}: the org does not let us write {listed(closed)}"
        yield Finding("objects", "fail", message, f"{_ACCESS} to edit the fields, or leave them out")
    may = {
        "create": spec.createable,
        "update": spec.updateable,
        "upsert": spec.createable and spec.updateable,
        "delete": spec.deletable,
    }
    if refused := [operation for operation in wanted.operations if not may[operation]]:
        message = f"{spec.name}: commands may {listed(refused)}, but the org does not let this user"
        mend = f"{_ACCESS}, or set objects.{spec.name}.operations, or .writable = false"
        yield Finding("objects", "warn", message, mend)
    if unknown := [name for name in wanted.owner if name not in spec.by_name]:
        message = f"objects.{spec.name}.owner: {listed(unknown)} is not synced"
        yield Finding("objects", "warn", message, "correct the name, or leave it out")
