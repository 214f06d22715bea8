"""bq, the command line, as a person uses it. It takes what it needs from the metadata server."""

import json
import subprocess
import tempfile

from vlab import PREFIX, called, did, mark

DATASET = PREFIX.replace("-", "_") + "set"


def bq(*arguments, fails=False):
    done = subprocess.run(
        ["bq", "--quiet", "--headless", "--format=json", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
    return done.stdout


def query(text, *flags, fails=False):
    return bq("query", "--use_legacy_sql=false", *flags, text, fails=fails)


text = mark("one", "SELECT 1 AS one")
assert json.loads(query(text)) == [{"one": "1"}]
did("one", text, method="bigquery.jobs.insert")

text = mark("parameter", "SELECT @number + 1 AS n")
assert json.loads(query(text, "--parameter=number:INT64:41", "--label=team:lab")) == [{"n": "42"}]
did("parameter", text, method="bigquery.jobs.insert")

text = mark("dry", "SELECT 1")
query(text, "--dry_run")
did("dry", text, method="bigquery.jobs.insert")

text = mark("fails", "SELECT * FROM nowhere.nothing")
query(text, fails=True)
did("fails", text, status="error", method="bigquery.jobs.insert")

bq("mk", "--dataset", DATASET)
called("bigquery.datasets.insert")
bq("mk", "--table", f"{DATASET}.item", "id:INTEGER,name:STRING")
called("bigquery.tables.insert")
with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    file.write("".join(f"{number},name {number}\n" for number in range(1000)))
    file.flush()
    bq("load", "--source_format=CSV", f"{DATASET}.item", file.name)
called("bigquery.jobs.insert", op="load")
called("bigquery.jobs.insert", op="upload")

text = mark("count", f"SELECT count(*) AS n FROM {DATASET}.item")
assert int(json.loads(query(text))[0]["n"]) >= 999, query(text)
did("count", text, method="bigquery.jobs.insert")

assert len(json.loads(bq("head", "-n", "3", f"{DATASET}.item"))) == 3
called("bigquery.tabledata.list", op="read_rows")
bq("rm", "-r", "-f", "--dataset", DATASET)
called("bigquery.datasets.delete")
