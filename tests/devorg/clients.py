"""The public clients people use, pointed at a local org."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce

from connector.devorg.server import DevOrg


class LocalAdapter(HTTPAdapter):
    """Sends over plain HTTP what simple-salesforce insists on sending to `https://`."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one request."""
        request.url = str(request.url).replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


@contextmanager
def salesforce(org: DevOrg, token: str = "", version: str = "59.0") -> Generator[Any]:
    """A simple-salesforce client of the org, logged in; every call blocks, so make it through `called`.

    Typed Any: its attributes are made on the fly, and their declared union fits no single use.
    """
    with requests.Session() as session:
        session.mount("https://", LocalAdapter())
        yield Salesforce(
            session_id=token or org.ctx.tokens.default_access_token,
            instance_url=org.url,
            version=version,
            session=session,
        )


async def called(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Make a blocking call on a thread, while the org answers it on this one."""
    async with asyncio.timeout(30):
        return await asyncio.to_thread(call, *args, **kwargs)
