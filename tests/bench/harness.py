"""What every benchmark shares: facts of the machine, percentiles, figures beside their targets, a table and JSON."""

import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tests.broker import BrokerOptions, mosquitto

_PACKAGES = ("salesforce-sync", "apsw", "paho-mqtt", "aiosfstream-ng", "simple-salesforce", "orjson", "pydantic")

# Where the stack of the tests is set to be quick about everything, a benchmark takes the settings that ship.
SHIPPED: Mapping[str, Any] = {
    "salesforce": {"timeout": "30s"},
    "mqtt": {"keepalive": "30s"},
    "signals": {"batch_interval": "5s"},
    "health": {"interval": "30s"},
}


def shipped_broker(*extra: str) -> BrokerOptions:
    """A broker that logs what the shipped mosquitto.conf has it log: a line for each packet is work as well."""
    return BrokerOptions(log_types=("error", "warning", "notice"), extra=extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        target: What it is to be, at least or at most as `better` says; None: it only informs.
        ceiling: The same work without the connector, measured in the same run; figures of different machines are
            compared by their ratio to it.
    """

    name: str
    value: float
    unit: str
    better: Literal["more", "less"] = "more"
    target: float | None = None
    ceiling: float | None = None

    @property
    def met(self) -> bool:
        """True unless it misses its target."""
        if self.target is None:
            return True
        return self.value >= self.target if self.better == "more" else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """The part of the ceiling that was reached."""
        return None if not self.ceiling else self.value / self.ceiling


def percentile(values: Iterable[float], part: float) -> float:
    """The smallest of the values that at least this part of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, -(-len(ordered) * part // 1).__trunc__() - 1)]


def cpu_s(pid: int) -> float:
    """Processor time that a process has used until now, seconds; what else the machine does hardly changes it."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> tuple[float, float]:
    """Memory of a process that is in use now, and the most that was."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return int(told["VmRSS"].split()[0]) / 1024, int(told["VmHWM"].split()[0]) / 1024


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "interpreter": str(Path(sys.executable).resolve()),  # one of the same version may be built to be slower
        "sqlite": sqlite3.sqlite_version,
        "mosquitto": _mosquitto_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _mosquitto_version() -> str:
    told = subprocess.run([mosquitto(), "-h"], capture_output=True, text=True, check=False)  # noqa: S603 - the broker's own path
    return told.stdout.partition("\n")[0].removeprefix("mosquitto version ").strip()


def table(figures: Sequence[Figure]) -> str:
    """The figures for people."""
    rows = [("figure", "value", "target", "of the ceiling", "")]
    for figure in figures:
        sign = "≥" if figure.better == "more" else "≤"
        target = "" if figure.target is None else f"{sign} {figure.target:g} {figure.unit}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.0%} of {_short(figure.ceiling or 0.0)}"
        rows.append((figure.name, f"{figure.value:,.1f} {figure.unit}", target, ratio, "" if figure.met else "MISSED"))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def document(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    """The figures for programs."""
    told = [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in figures]
    return json.dumps({"machine": facts, "figures": told}, indent=2, ensure_ascii=False)
