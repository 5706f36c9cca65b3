"""The contract of this installation, as the control message and the command `schema` answer it."""

from collections.abc import Mapping
from typing import Any

from connector.inbound.catalog import stored_spec
from connector.mesh.topics import Topics
from connector.model.objects import ObjectSpec
from connector.schemas import asyncapi, object_schema, schemas
from connector.settings import Settings
from connector.store import ReadOnlyReplica


def schema_document(specs: Mapping[str, ObjectSpec]) -> Mapping[str, Any]:
    """Messages and objects, each by name."""
    return {"messages": schemas(), "objects": {name: object_schema(spec) for name, spec in specs.items()}}


def asyncapi_document(settings: Settings, specs: Mapping[str, ObjectSpec]) -> Mapping[str, Any]:
    """Every topic and message, as AsyncAPI, with the names that the settings give."""
    topics = Topics(root=settings.mqtt.root, org_code=settings.node.org_code, target=settings.signals.target)
    return asyncapi(topics, specs)


def stored_specs(settings: Settings) -> Mapping[str, ObjectSpec]:
    """The objects as the replica remembers their descriptions.

    Raises:
        StoreUnusable: There is no replica yet.
    """
    with ReadOnlyReplica(settings.storage.path) as replica, replica.snapshot() as unit:
        found = {name: stored_spec(unit, name) for name in settings.synced()}
    return {name: spec for name, spec in found.items() if spec is not None}
