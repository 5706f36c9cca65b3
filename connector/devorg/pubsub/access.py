"""Who calls, as the metadata of an RPC tells."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from connector.devorg.context import Context
from connector.devorg.pubsub.refusals import AUTHENTICATION, HEADERS, Refused

_MEMBERS = ("accesstoken", "instanceurl", "tenantid")
_CORE_TENANT = re.compile(r"core/[^/]+/(\w+)")
SHORT_ID_LENGTH = 15


def admit(context: Context, metadata: Mapping[str, str]) -> str:
    """The access token of a caller who may go on.

    Raises:
        Refused: The metadata is not complete, or names another org, or the token is dead.

    Source: Pub/Sub API Developer Guide, "Supported Authentication" and "RPC Method Headers".
    """
    missing = [name for name in _MEMBERS if not metadata.get(name)]
    if missing:
        raise Refused(HEADERS, f"Missing or blank metadata: {', '.join(missing)}.")
    token, tenant = metadata["accesstoken"], metadata["tenantid"]
    if not _is_tenant(context, tenant):
        raise Refused(HEADERS, "The tenant id is not the 18-character id of the org.")
    if _place(metadata["instanceurl"]) != _place(context.instance_url):
        raise Refused(AUTHENTICATION, "The instance URL is not the org's.")
    if context.tokens.check(token) is None:
        raise Refused(AUTHENTICATION, "An authentication exception occurred. Provide valid authentication.")
    return token


def _is_tenant(context: Context, tenant: str) -> bool:
    core = _CORE_TENANT.fullmatch(tenant)
    told, org_id = core.group(1) if core else tenant, context.tokens.org_id
    return told == org_id or (context.settings.short_tenant_ids and told == org_id[:SHORT_ID_LENGTH])


def _place(url: str) -> tuple[str, str | None, int | None, str]:
    """What makes two addresses the same; this machine has two names."""
    parts = urlsplit(url)
    host = "localhost" if parts.hostname == "127.0.0.1" else parts.hostname
    return parts.scheme, host, parts.port, parts.path.rstrip("/")
