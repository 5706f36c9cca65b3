"""What people write today: simple-salesforce reads a Bulk result, sqlite3 keeps it. `--url URL --token T --file F`.

Prints one JSON line: seconds, processor seconds and peak memory in MB, from the first request to the last commit.
"""

import argparse
import csv
import io
import json
import resource
import sqlite3
import time
from typing import Any

import requests
from simple_salesforce.api import Salesforce

from tests.devorg.clients import LocalAdapter

FIELDS = ("Id", "FirstName", "LastName", "Name", "Email", "Phone", "AccountId", "OwnerId", "SystemModstamp")


def main() -> None:
    """Load and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--file", required=True)
    given = parser.parse_args()
    session = requests.Session()
    session.mount("https://", LocalAdapter())  # the local org is plain http on this machine
    org: Any = Salesforce(session_id=given.token, instance_url=given.url, version="58.0", session=session)
    began_s, used_s = time.monotonic(), time.process_time()
    with sqlite3.connect(given.file) as database:
        database.execute(f"CREATE TABLE contact ({', '.join(FIELDS)}, PRIMARY KEY (Id))")
        marks = ", ".join("?" * len(FIELDS))
        soql = f"SELECT {', '.join(FIELDS)} FROM Contact"  # noqa: S608 - the names above
        for page in org.bulk2.Contact.query(soql, max_records=10_000, wait=0):
            rows = csv.reader(io.StringIO(page))
            next(rows)
            database.executemany(f"INSERT INTO contact VALUES ({marks})", rows)  # noqa: S608 - marks
            database.commit()
    told = {
        "seconds": time.monotonic() - began_s,
        "processor_s": time.process_time() - used_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
