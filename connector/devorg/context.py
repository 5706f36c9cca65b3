"""What every HTTP module of the org is handed, and what they all ask of a request."""

from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from connector.devorg.clock import OrgClock
from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.events.bus import EventBus
from connector.devorg.events.changes import EventOptions
from connector.devorg.faults import Faults
from connector.devorg.objects.schema import Schema
from connector.devorg.records.org import Org
from connector.devorg.settings import OrgSettings
from connector.devorg.tokens import Credentials, Tokens
from connector.devorg.usage import Usage

UI_ORIGIN = "com/salesforce/api/soap/66.0;client=SfdcInternalAPI/"
"""`changeOrigin` of what people do in the org's pages. Source: recorded change events."""


@dataclass(kw_only=True)
class Context:
    """The parts of one running org.

    Attributes:
        url: Where it listens, without a slash at the end; known once it has started.
        pubsub_url: Where its Pub/Sub API listens; empty where it is not served.
        requests: Those being answered at this moment, by a number of no meaning.
    """

    org: Org
    schema: Schema
    clock: OrgClock
    database: OrgDatabase
    bus: EventBus
    tokens: Tokens
    credentials: Credentials
    faults: Faults
    usage: Usage
    settings: OrgSettings
    event_options: EventOptions
    url: str = ""
    pubsub_url: str = ""
    requests: dict[int, web.BaseRequest] = field(default_factory=dict)

    @property
    def instance_url(self) -> str:
        """The base of every data call, as token responses name it."""
        return self.settings.instance_url.rstrip("/") or self.url


CONTEXT = web.AppKey("context", Context)
USER_ID = web.RequestKey("user_id", str)
"""Who asks; set for every call below `/services/data/vXX.X`."""


def version_of(request: web.BaseRequest) -> str:
    """API version of the request's path, for instance `58.0`."""
    _, _, rest = request.path.partition("/services/data/v")
    return rest.partition("/")[0]


def origin_of(request: web.Request) -> str:
    """`changeOrigin` of the events that this request's writes give.

    Source: REST API Developer Guide, "Call Options Header"; it is not documented for `/composite`.
    """
    api = "bulkapi" if "/jobs/" in request.path else "rest"
    origin = f"com/salesforce/api/{api}/{version_of(request)}"
    composite = request.path.split("/")[4:5] == ["composite"]
    if composite and not request.app[CONTEXT].settings.composite_client_origin:
        return origin
    client = _call_option(request.headers.get("Sforce-Call-Options", ""), "client")
    return f"{origin};client={client}" if client else origin


def _call_option(header: str, name: str) -> str:
    """The value of one of several options, which are separated by `;` or `,`."""
    for option in header.replace(",", ";").split(";"):
        key, _, value = option.strip().partition("=")
        if key == name:
            return value.strip()
    return ""


async def read_json(request: web.Request) -> Any:
    """The request's body as JSON.

    Raises:
        OrgError: It is none (400 JSON_PARSER_ERROR).
    """
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        text = f"Unexpected character at [line:{error.lineno}, column:{error.colno}]"
        raise OrgError(400, "JSON_PARSER_ERROR", text) from error
