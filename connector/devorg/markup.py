"""The little XML that the older APIs speak."""

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape, unescape

_ELEMENT = r"<(?:\w+:)?{0}(?:\s[^>]*)?>([^<]*)</(?:\w+:)?{0}>"
_ENTITIES = {"&quot;": '"', "&apos;": "'"}


def text_of(body: str, name: str) -> str:
    """Text of the first element of that name, nothing where there is none; no other part of XML is looked at."""
    found = re.search(_ELEMENT.format(name), body)
    return unescape(found.group(1), _ENTITIES) if found else ""


def elements(values: Mapping[str, object]) -> str:
    """One element after the other; truth values as XML writes them."""
    texts = ((name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in values.items())
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in texts)
