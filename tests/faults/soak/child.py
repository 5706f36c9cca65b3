"""The daemon as a process of its own, with its waits scaled and a clock that can be set.

It is forked from a process that has everything imported, so that it starts in milliseconds and SIGKILL is SIGKILL.
"""

import asyncio
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from connector.app.opening import run_daemon
from connector.app.supervise import Jobs, Stop
from connector.errors import ConnectorError, TransientError
from connector.inbound.poll import PollRules
from connector.inbound.snapshot import LoadRules
from connector.logs import configure_logs
from connector.salesforce.cometd_watch import CometdLimits
from connector.salesforce.pubsub_client import PubSubLimits
from connector.settings import load_settings
from tests.faults.soak.strings import Strings, hold_the_database

# Exit codes: what the runner makes of an end that nobody asked for.
WAITED_OUT, REFUSED, CRASHED = 75, 76, 77

# Every wait that is no setting, scaled so that an hour's reactions fit into a second. A name that is gone is an error:
# the runner would wait for minutes.
WAITS: Mapping[str, Mapping[str, float]] = {
    "connector.app.supervise": {"BACKOFF_FIRST_S": 0.05, "HEALTHY_AFTER_S": 1.0, "SAME_SIGNAL_S": 0.05},
    "connector.app.daemon": {"QUEUED_LOOK_S": 0.05},
    "connector.app.proving": {"PROVE_AFTER_S": 0.05, "PROVE_AGAIN_S": 0.5},
    "connector.inbound.catalog": {"REFRESH_AT_MOST_EVERY_S": 0.2},
    "connector.inbound.timetable": {"FASTEST_S": 0.3, "REFUSED_RETRY_S": 0.3},
    "connector.inbound.reconcile": {"SETTLE_AGAIN_S": 0.02},
    "connector.inbound.repair": {
        "GATHER_S": 0.02,
        "AGAIN_S": 0.1,
        "LOOK_S": 0.5,
        "REFUSED_RETRY_S": 0.3,
        "HELD_RETRY_S": 1.0,
        "UNPROVED_RETRY_S": 0.5,
    },
    "connector.inbound.snapshot": {"REFUSED_RETRY_S": 0.3, "_JOB_POLL_FIRST_S": 0.02},
    "connector.inbound.stream": {"REFUSED_RETRY_S": 0.3, "THROTTLED_RETRY_S": 0.2, "HEALTHY_S": 1.0},
    "connector.mesh.connection": {
        "BACKOFF_FIRST_S": 0.05,
        "CONNECT_TIMEOUT_S": 2.0,
        "HEALTHY_AFTER_S": 0.5,
        "_LAST_MESSAGE_TIMEOUT_S": 0.5,
    },
    "connector.mesh.link": {"_CLOSE_TIMEOUT_S": 0.3},
    "connector.mesh.router": {"RETRY_FIRST_S": 0.02, "RETRY_MAX_S": 0.2},
    "connector.outbound.bulk": {"PAUSE_MS": 200, "_POLL_FIRST_S": 0.02, "_POLL_MOST_S": 0.2},
    "connector.outbound.writer": {"RETRY_LOOK_S": 0.1},
    "connector.model.codes": {
        "DAILY_LIMIT_WAIT_S": 0.3,
        "_CONCURRENT_WAIT_S": 0.2,
        "_MAINTENANCE_WAIT_S": 0.3,
        "_PERSON_WAIT_S": 0.3,
    },
    "connector.salesforce.answers": {"_THROTTLED_WAIT_S": 0.2, "_REFUSED_TOKEN_WAIT_S": 0.2},
    "connector.salesforce.budget": {"_PROBE_S": 0.3},
    "connector.salesforce.cometd_errors": {
        "_BUSY_WAIT_S": 0.3,
        "_CLIENTS_WAIT_S": 0.3,
        "_SERVER_CONNECTIONS_WAIT_S": 0.2,
        "_DENIED_WAIT_S": 0.2,
    },
    "connector.salesforce.cometd_watch": {"_SHORTEST_HOLD_S": 0.1},
    "connector.salesforce.pubsub_errors": {"_CLIENTS_WAIT_S": 0.3, "_REQUESTS_WAIT_S": 0.2},
    "connector.salesforce.login": {"_LOGIN_WINDOW_S": 0.1, "_CLOSE_WAIT_S": 0.5},
    "connector.salesforce.login_answers": {"RATE_WAIT_S": 0.3},
    "connector.salesforce.streaming": {"EVENTS_WAIT_S": 0.4},
    "connector.serve.relay": {"BACKOFF_FIRST_S": 0.05, "BACKOFF_MAX_S": 0.3, "MARK_WITHIN_S": 0.3},
    "connector.store.checks": {"BUSY_TIMEOUT_MS": 300},
}
# The same for those that are defaults of what the wiring makes.
SHORTER: Mapping[str, Mapping[str, Any]] = {
    "connector.app.daemon": {"Jobs": partial(Jobs, drain_timeout_s=2.0)},
    "connector.app.rules": {
        "LoadRules": partial(LoadRules, subscribe_wait_s=0.5),
        "PollRules": partial(PollRules, stream_wait_s=0.5),
    },
    "connector.salesforce.cometd": {
        "CometdLimits": partial(
            CometdLimits,
            hold_s=3.0,  # the longest that a plan's org may hold a connect
            margin_s=1.0,
            request_s=1.5,
            close_s=0.3,
            healthy_s=1.0,
            backlog_wait_s=1.0,
        )
    },
    "connector.salesforce.pubsub": {
        "PubSubLimits": partial(
            PubSubLimits,
            hold_s=2.0,  # the plan's org sends something every second
            margin_s=1.0,
            ping_s=1.0,
            request_s=1.5,
            settle_s=0.5,
            reached_every_s=0.2,
            healthy_s=1.0,
        )
    },
}
# How much goes together, so that the soak's few records make several pages, and its queues are long: name -> homes.
SIZES: Mapping[str, Sequence[str]] = {
    "PAGE_ROWS": ("connector.inbound.snapshot", "connector.inbound.compare"),
    "MOST_TAKEN": ("connector.outbound.writer",),
}
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(settings: Path, secrets: Mapping[str, str], strings: Path, log: Path, sizes: Mapping[str, int]) -> None:
    """Be the daemon until told to stop; what ends it otherwise is its exit code.

    Args:
        settings: The settings file.
        secrets: The environment.
        strings: File by which this process is pulled, see `Strings`.
        log: Where the log goes; it is appended to.
        sizes: Name of one of `SIZES` -> what it is to be.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    _scale(sizes)
    pulled = Strings(strings)
    hold_the_database(pulled)
    _set_clock(pulled)
    loaded = load_settings(settings, environ=secrets, directory=settings.parent)
    configure_logs("json", "info")
    try:
        asyncio.run(_run(loaded))
    except TransientError as error:
        _leave(WAITED_OUT, error)
    except ConnectorError as error:
        _leave(REFUSED, error)
    except BaseException as error:  # noqa: BLE001 - reported by its exit code
        _leave(CRASHED, error)


async def _run(settings: Any) -> None:
    stop = Stop()
    stop.on_signals()
    await run_daemon(settings, stop)


def _leave(code: int, error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.write(f"soak: ended by {type(error).__name__}: {error}\n")
    sys.stderr.flush()
    os._exit(code)


def _set_clock(pulled: Strings) -> None:
    real_ns = time.time_ns
    time.time_ns = lambda: real_ns() + pulled.get("clock_ms") * 1_000_000


def _scale(sizes: Mapping[str, int]) -> None:
    for name, waits in WAITS.items():
        for constant, value in waits.items():
            _replace(importlib.import_module(name), constant, value)
    for name, size in sizes.items():
        for home in SIZES[name]:
            _replace(importlib.import_module(home), name, size)
    for name, classes in SHORTER.items():
        for constant, shorter in classes.items():
            setattr(importlib.import_module(name), constant, shorter)


def _replace(home: ModuleType, constant: str, value: float) -> None:
    """Set a constant where it is defined and wherever it was imported by name."""
    old = getattr(home, constant)
    for name, module in list(sys.modules.items()):
        if name.startswith("connector.") and getattr(module, constant, None) is old:
            setattr(module, constant, value)
