"""Who a token's user is: the identity URL, and OpenID Connect's UserInfo.

Source: Salesforce Help, "Identity URLs", "Query for User Information".
"""

from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.middleware import bearer


def routes(context: Context) -> list[web.RouteDef]:
    """Both, for the token of the request alone."""

    async def identity(request: web.Request) -> web.Response:
        user_id = _user_of(request, context)
        wanted = (request.match_info["org_id"][:15], request.match_info["user_id"][:15])
        if wanted != (context.tokens.org_id[:15], user_id[:15]):
            return web.Response(status=403, text="Wrong_Org" if wanted[1] == user_id[:15] else "Bad_Id")
        return web.json_response(_identity(context, user_id))

    async def userinfo(request: web.Request) -> web.Response:
        return web.json_response(_userinfo(context, _user_of(request, context)))

    return [
        web.get("/id/{org_id}/{user_id}", identity),
        web.get("/services/oauth2/userinfo", userinfo),
        web.post("/services/oauth2/userinfo", userinfo),
    ]


def _user_of(request: web.Request, context: Context) -> str:
    """Whose token a request carries; answers it with 403 and a word where it carries no good one."""
    try:
        user_id = context.tokens.check(bearer(request.headers.get(hdrs.AUTHORIZATION)))
    except OrgError as error:
        raise web.HTTPForbidden(text="Missing_OAuth_Token") from error
    if user_id is None:
        raise web.HTTPForbidden(text="Bad_OAuth_Token")
    return user_id


def _identity(context: Context, user_id: str) -> dict[str, Any]:
    """What the identity URL tells about the user, as far as a client can use it here."""
    user = context.org.get("User", user_id) or {}
    return {
        "id": _identity_url(context, user_id),
        "asserted_user": True,
        "user_id": user_id,
        "organization_id": context.tokens.org_id,
        "username": user.get("Username"),
        "display_name": user.get("Name"),
        "email": user.get("Email"),
        **_common(context),
    }


def _userinfo(context: Context, user_id: str) -> dict[str, Any]:
    """The same in OpenID Connect's words."""
    user = context.org.get("User", user_id) or {}
    return {
        "sub": _identity_url(context, user_id),
        "user_id": user_id,
        "organization_id": context.tokens.org_id,
        "preferred_username": user.get("Username"),
        "nickname": user.get("Alias"),
        "name": user.get("Name"),
        "email": user.get("Email"),
        "email_verified": True,
        "given_name": user.get("FirstName"),
        "family_name": user.get("LastName"),
        "zoneinfo": user.get("TimeZoneSidKey"),
        **_common(context),
    }


def _identity_url(context: Context, user_id: str) -> str:
    return f"{context.url}/id/{context.tokens.org_id}/{user_id}"


def _common(context: Context) -> dict[str, Any]:
    base = context.instance_url
    return {
        "active": context.settings.user_active,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "urls": {
            "rest": f"{base}/services/data/v{{version}}/",
            "sobjects": f"{base}/services/data/v{{version}}/sobjects/",
            "query": f"{base}/services/data/v{{version}}/query/",
            "custom_domain": f"{urlsplit(base).scheme}://{urlsplit(base).netloc}",
        },
    }
