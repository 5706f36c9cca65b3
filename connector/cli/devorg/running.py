"""A local org that runs, asked through its admin interface."""

import json
from collections.abc import Mapping
from typing import Any

import click
import requests

from connector.cli.outcome import NO_ORG

DEFAULT_PORT = 8620
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
REQUEST_TIMEOUT_S = 600  # of a seed of two million records


class Org:
    """A running local org, as its admin interface shows it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, method: str, path: str, order: Mapping[str, Any] | None = None) -> Any:
        """The answer of one admin resource; ends the program where there is none or it refuses."""
        try:
            answer = requests.request(
                method,
                f"{self.url}/devorg{path}",
                data=None if method == "GET" else json.dumps(order or {}),
                headers={} if method == "GET" else {"Content-Type": "application/json"},
                timeout=REQUEST_TIMEOUT_S,
            )
        except requests.RequestException as error:
            message = f"no local org answers at {self.url}: start one with `salesforce-sync devorg`"
            raise Unreachable(message) from error
        if not answer.ok:
            raise click.ClickException(_reason(answer))
        return answer.json() if answer.content else None


class Unreachable(click.ClickException):
    """No local org answers."""

    exit_code = NO_ORG


def _reason(answer: requests.Response) -> str:
    try:
        return "; ".join(f"{error['errorCode']}: {error['message']}" for error in answer.json())
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url} answered {answer.status_code}: is this a local org?"
