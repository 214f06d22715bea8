"""google-cloud-bigquery: queries by both methods, jobs of every kind, rows without SQL, and their failures.

Nothing here names an endpoint, a credential or a certificate: as in any pod.
"""

import io
import os

from google.api_core import exceptions
from google.cloud import bigquery

from vlab import PREFIX, called, did, mark

client = bigquery.Client()
DATASET = PREFIX.replace("-", "_") + "set"
TABLE = f"{client.project}.{DATASET}.item"

# jobs.query: the answer is in the answer.
text = mark("one", "SELECT 1 AS one")
assert [row.one for row in client.query_and_wait(text)] == [1]
did("one", text, rows=1, method="bigquery.jobs.query")

text = mark("parameters", "SELECT @number + 1 AS n, @name AS name")
config = bigquery.QueryJobConfig(
    query_parameters=[
        bigquery.ScalarQueryParameter("number", "INT64", 41),
        bigquery.ScalarQueryParameter("name", "STRING", "näive"),
    ],
    labels={"team": "lab"},
    maximum_bytes_billed=10_000_000,
)
assert [(row.n, row.name) for row in client.query_and_wait(text, job_config=config)] == [(42, "näive")]
did("parameters", text, rows=1, method="bigquery.jobs.query")

# jobs.insert, then the results.
text = mark("job", "SELECT x FROM UNNEST([1, 2, 3]) AS x ORDER BY x")
assert [row.x for row in client.query(text).result()] == [1, 2, 3]
did("job", text, method="bigquery.jobs.insert")

text = mark("dry", "SELECT 1")
job = client.query(text, job_config=bigquery.QueryJobConfig(dry_run=True, use_query_cache=False))
assert job.total_bytes_processed is not None
did("dry", text, method="bigquery.jobs.insert")

text = mark("job-fails", "SELEKT 1")
try:
    client.query(text).result()
    raise AssertionError("a syntax error succeeded")
except exceptions.GoogleAPICallError:
    did("job-fails", text, status="error", method="bigquery.jobs.insert")

# Data sets and tables.
client.create_dataset(DATASET)
called("bigquery.datasets.insert")
schema = [bigquery.SchemaField("id", "INT64", mode="REQUIRED"), bigquery.SchemaField("name", "STRING")]
client.create_table(bigquery.Table(TABLE, schema=schema))
called("bigquery.tables.insert")
assert client.get_table(TABLE).num_rows == 0
called("bigquery.tables.get")
assert [table.table_id for table in client.list_tables(DATASET)] == ["item"]
called("bigquery.tables.list")

# Rows without SQL: the second time they are refused, and HTTP says 200.
assert client.insert_rows_json(TABLE, [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]) == []
called("bigquery.tabledata.insertAll", status="ok")
rows = [{"id": "no number", "name": "x"}, {"id": 5, "name": "five"}]
assert client.insert_rows_json(TABLE, rows, skip_invalid_rows=True)
called("bigquery.tabledata.insertAll", status="error", http_status=200)

# A file, in one request of two parts.
file = io.BytesIO(b'{"id": 3, "name": "three"}\n{"id": 4, "name": "four"}\n')
config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=schema)
client.load_table_from_file(file, TABLE, job_config=config).result()
called("bigquery.jobs.insert", op="load")

# Above what goes in one request: begun, then sent in parts.
rows = b"".join(b'{"id": %d, "name": "%s"}\n' % (number, b"x" * 200) for number in range(100, 30_000))
config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=schema)
job = client.load_table_from_file(io.BytesIO(rows), TABLE, job_config=config)
job.result()
called("bigquery.jobs.insert", op="load")

text = mark("count", f"SELECT count(*) AS n FROM `{TABLE}`")
(count,) = [row.n for row in client.query_and_wait(text)]
assert count >= 4, count
did("count", text, rows=1, method="bigquery.jobs.query")

text = mark("update", f"UPDATE `{TABLE}` SET name = 'changed' WHERE id = 1")
job = client.query(text)
job.result()
did("update", text, method="bigquery.jobs.insert")

assert len(list(client.list_rows(TABLE, max_results=2))) == 2
called("bigquery.tabledata.list", op="read_rows")

# A copy, within the project.
client.copy_table(TABLE, f"{client.project}.{DATASET}.copied").result()
called("bigquery.jobs.insert", op="copy")

# To nowhere: the job fails, not the request.
try:
    client.extract_table(TABLE, "gs://no-such-bucket-of-the-lab/x.csv").result()
except exceptions.GoogleAPICallError:
    pass
called("bigquery.jobs.insert", op="extract")

routine = bigquery.Routine(
    f"{client.project}.{DATASET}.twice",
    type_="SCALAR_FUNCTION",
    language="SQL",
    body="x * 2",
    arguments=[
        bigquery.RoutineArgument(
            name="x",
            data_type=bigquery.StandardSqlDataType(type_kind=bigquery.StandardSqlTypeNames.INT64),
        )
    ],
)
client.create_routine(routine)
called("bigquery.routines.insert")
assert [one.routine_id for one in client.list_routines(DATASET)] == ["twice"]
called("bigquery.routines.list")

# A job that is over can be cancelled: nothing happens.
client.cancel_job(job.job_id)
called("bigquery.jobs.cancel", op="cancel")
assert client.get_job(job.job_id).state == "DONE"
called("bigquery.jobs.get")

try:
    client.get_dataset("no_such_data_set")
    raise AssertionError("there is a data set that there is not")
except exceptions.NotFound:
    called("bigquery.datasets.get", status="error", http_status=404)

client.delete_table(TABLE)
called("bigquery.tables.delete")
client.delete_dataset(DATASET, delete_contents=True)
called("bigquery.datasets.delete")
