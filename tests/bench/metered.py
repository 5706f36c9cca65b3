"""Run a command and note what it took: `python metered.py FILE COMMAND...` writes one line of JSON to the file.

A process of its own, and a small one: a program begins with the peak memory of the process that has started it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Run it; its exit code."""
    file, *command = sys.argv[1:]
    began_s = time.monotonic()
    process = subprocess.Popen(command)  # noqa: S603 - what a benchmark measures
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    _, status, usage = os.wait4(process.pid, 0)
    told = {
        "seconds": time.monotonic() - began_s,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    Path(file).write_text(json.dumps(told), encoding="utf-8")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
