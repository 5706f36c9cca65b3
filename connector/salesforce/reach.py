"""Is there an org at an address? Asked without a login and at no API call."""

from dataclasses import dataclass

import aiohttp

from connector.errors import LinkDown
from connector.salesforce.answers import server_ms
from connector.salesforce.wire import parse

_VERSIONS_PATH = "/services/data/"


@dataclass(frozen=True, slots=True)
class Reached:
    """What an org tells everybody.

    Attributes:
        versions: API versions that it speaks, for instance `58.0`, oldest first.
        server_ms: Its clock, milliseconds since the Unix epoch, UTC; HTTP tells whole seconds.
    """

    versions: tuple[str, ...]
    server_ms: int


async def reach(instance_url: str, timeout_s: float) -> Reached:
    """Ask an org for its API versions.

    Raises:
        LinkDown: Nothing answers there, or something that is no org.

    Source: REST API Developer Guide, "List Available REST API Versions".
    """
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as http,
            http.get(
                instance_url + _VERSIONS_PATH, headers={"Accept": "application/json"}, allow_redirects=False
            ) as answer,
        ):
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise LinkDown(f"no answer: {type(error).__name__}") from error
    try:
        versions = tuple(str(entry["version"]) for entry in parse(body))
    except (ValueError, KeyError, TypeError) as error:
        raise LinkDown(f"HTTP {answer.status} is no answer of a Salesforce org") from error
    return Reached(versions, server_ms(answer.headers))
