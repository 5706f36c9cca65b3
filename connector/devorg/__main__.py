"""`python -m connector.devorg`: the local org as a process of its own."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from connector.devorg.admin.interface import description
from connector.devorg.server import DevOrg, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; one line of JSON on standard output says where, and how to log in."""
    parser = argparse.ArgumentParser(prog="python -m connector.devorg", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes any free one")
    parser.add_argument("--pubsub-port", type=int, help="port of the Pub/Sub API; without one it is not served")
    parser.add_argument("--directory", type=Path, help="folder of the org's data; without one nothing is kept")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(serve(options.directory, options.port, _announce, pubsub_port=options.pubsub_port))
    except (OSError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


def _announce(org: DevOrg) -> None:
    print(json.dumps(description(org.ctx, org.keys)), flush=True)  # noqa: T201 - what the caller waits for


if __name__ == "__main__":
    sys.exit(main())
