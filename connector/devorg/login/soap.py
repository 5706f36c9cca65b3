"""SOAP `login()`, the oldest way in: user name, password and security token, no client app.

Source: SOAP API Developer Guide, "login()"; not available in API 65.0 and later.
"""

from xml.sax.saxutils import escape

from aiohttp import hdrs, web

from connector.devorg.context import Context
from connector.devorg.login.oauth import LoginRefusedError, LoginServer
from connector.devorg.markup import text_of

LAST_VERSION = 64
_MOST_BODY_BYTES = 65_536
_ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"\
 xmlns="urn:partner.soap.sforce.com" xmlns:sf="urn:fault.partner.soap.sforce.com"\
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{0}</soapenv:Body></soapenv:Envelope>"""


def routes(context: Context, login: LoginServer) -> list[web.RouteDef]:
    """The partner and enterprise endpoints."""

    async def answer(request: web.Request) -> web.Response:
        if not request.headers.get("SOAPAction"):
            return _fault("sf:UNKNOWN_EXCEPTION", "UNKNOWN_EXCEPTION", "SOAPAction HTTP header missing")
        version = request.match_info["version"]
        if float(version) > LAST_VERSION:
            return _fault("sf:UNSUPPORTED_API_VERSION", "UNSUPPORTED_API_VERSION", "login() is not available")
        body = (await request.read())[:_MOST_BODY_BYTES].decode(errors="replace")
        try:
            user_id = login.password_login(text_of(body, "username"), text_of(body, "password"))
            session_id = login.issue(user_id)
        except LoginRefusedError:
            return _fault(
                "sf:INVALID_LOGIN",
                "INVALID_LOGIN",
                "INVALID_LOGIN: Invalid username, password, security token; or user locked out.",
            )
        return _xml(_result(context, user_id, session_id, request.path), 200)

    return [web.post(r"/services/Soap/{api:[uc]}/{version:\d\d\.\d}{rest:.*}", answer)]


def _result(context: Context, user_id: str, session_id: str, path: str) -> str:
    organization = f"<organizationId>{context.tokens.org_id}</organizationId>"
    result = (
        f"<passwordExpired>false</passwordExpired><sandbox>false</sandbox>"
        f"<serverUrl>{escape(context.instance_url + path)}</serverUrl><sessionId>{escape(session_id)}</sessionId>"
        f"<userId>{user_id}</userId><userInfo>{organization}<userId>{user_id}</userId></userInfo>"
    )
    return f"<loginResponse><result>{result}</result></loginResponse>"


def _fault(fault_code: str, code: str, message: str) -> web.Response:
    detail = (
        f'<detail><sf:LoginFault xsi:type="sf:LoginFault"><sf:exceptionCode>{code}</sf:exceptionCode>'
        f"<sf:exceptionMessage>{escape(message)}</sf:exceptionMessage></sf:LoginFault></detail>"
    )
    text = f"<faultcode>{fault_code}</faultcode><faultstring>{escape(message)}</faultstring>{detail}"
    return _xml(f"<soapenv:Fault>{text}</soapenv:Fault>", 500)


def _xml(content: str, status: int) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: "text/xml; charset=utf-8"}
    return web.Response(status=status, body=_ENVELOPE.format(content).encode(), headers=headers)
