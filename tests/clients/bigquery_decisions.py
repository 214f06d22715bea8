"""google-cloud-bigquery under a policy that denies and holds: bigquery_decisions.py WHAT."""

import sys
import threading

from google.api_core import exceptions
from google.cloud import bigquery

from vlab import did, mark, say

client = bigquery.Client()
METHODS = {"query": client.query_and_wait, "insert": lambda text: client.query(text, retry=None, job_retry=None)}


def denied():
    """403 in the API's own form, by both methods, and the client goes on."""
    for name, run in METHODS.items():
        text = mark(f"denied-{name}", "SELECT 1 -- lab:deny\n")
        try:
            run(text)
            raise AssertionError("it was not denied")
        except exceptions.Forbidden as error:
            assert "the lab says no" in str(error), error
            assert error.errors, error
        did(
            f"denied-{name}",
            text,
            status="not_forwarded",
            decision="denied",
            method=f"bigquery.jobs.{name}",
        )
        text = mark(f"after-{name}", "SELECT 1 AS one")
        assert [row.one for row in client.query_and_wait(text)] == [1]
        did(f"after-{name}", text, rows=1, method="bigquery.jobs.query")


def released():
    """Held until somebody says yes."""
    text = mark("held", "SELECT 1 AS one /* lab:hold=3600 */")
    assert [row.one for row in client.query_and_wait(text)] == [1]
    did("held", text, rows=1, method="bigquery.jobs.query")


def expired():
    """Held until nobody has said anything."""
    text = mark("held", "SELECT 1 AS one /* lab:hold=1 */")
    try:
        client.query_and_wait(text, retry=None, job_retry=None)
        raise AssertionError("it was not refused")
    except exceptions.GoogleAPICallError as error:
        say(f"refused with {error.code}")
    did("held", text, status="not_forwarded", decision="expired", method="bigquery.jobs.query")


globals()[sys.argv[1]]()
say("done")
