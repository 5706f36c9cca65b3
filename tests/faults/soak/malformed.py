"""Commands that no service should send: each must be refused, and nothing else may come of it."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Spoilt = Callable[[dict[str, Any]], Mapping[str, Any]]

# Refused with a result: the body of a good update of a contact, and what is wrong with it.
SPOILT: Sequence[Spoilt] = (
    lambda body: {**body, "fields": {}},
    lambda body: {**body, "fields": {**body["fields"], "NoSuchField": 1}},
    lambda body: {**body, "fields": {**body["fields"], "Id": "0035f0000000001AAA"}},
    lambda body: {**body, "fields": {**body["fields"], "CreatedDate": "2026-01-01T00:00:00Z"}},
    lambda body: {**body, "fields": {**body["fields"], "Title": {"not": "text"}}},
    lambda body: {**body, "fields": {**body["fields"], "LastName": "x" * 2000}},
    lambda body: {**body, "fields": {**body["fields"], "Birthdate": "yesterday"}},
    lambda body: {**body, "id": "0015f0000000001AAA"},
    lambda body: {**body, "id": "nobody"},
    lambda body: {name: value for name, value in body.items() if name != "id"},
    lambda body: {**body, "on_conflict": "guess"},
    lambda body: {**body, "expires_at": "soon"},
    lambda body: {**body, "base": {"version": "newest"}},
    lambda body: {**body, "surprise": True},
)


def unreadable(rng: random.Random, body: Mapping[str, Any]) -> bytes:
    """What is no command at all, made of a good one."""
    text = json.dumps(body).encode()
    return rng.choice(
        (text[: len(text) // 2], b"[" + text + b"]", b"\xff\xfe" + text, b"", text + b" " * 300_000, b"null")
    )
