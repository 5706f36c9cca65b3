"""Keeps who works for an org from a mirror's file."""

from connector.errors import StoreUnusable
from connector.mirror.origin import Copy
from connector.ports import Unit


def refuse_mirrors(unit: Unit) -> None:
    """For who works for the org.

    Raises:
        StoreUnusable: The file is a mirror's.
    """
    if Copy.stored(unit) is not None:
        raise StoreUnusable(
            "the database is a mirror's copy, kept from the mesh alone: commands go over MQTT (SFSync(remote=...)), "
            "and a connector needs another storage.path"
        )
