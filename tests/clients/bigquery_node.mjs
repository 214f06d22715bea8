// @google-cloud/bigquery: queries, a job, rows without SQL. Nothing names an endpoint or a credential.

import { createRequire } from "node:module";
import assert from "node:assert";

const { BigQuery } = createRequire(process.env.VLAB_NODE)("@google-cloud/bigquery");
const prefix = `${process.env.VLAB_PREFIX}node-`;
const mark = (name, text) => `${text} /* id:${prefix}${name} */`;
const did = (name, fields) => console.log(JSON.stringify({ id: prefix + name, ...fields }));
const called = (call, fields) => console.log(JSON.stringify({ call, ...fields }));

const client = new BigQuery();

let statement = mark("one", "SELECT 1 AS one");
let [rows] = await client.query(statement);
assert.deepEqual(rows, [{ one: 1 }]);
did("one", { statement, rows: 1, method: "bigquery.jobs.query" });

statement = mark("parameters", "SELECT @number + 1 AS n");
[rows] = await client.query({ query: statement, params: { number: 41 } });
assert.deepEqual(rows, [{ n: 42 }]);
did("parameters", { statement, rows: 1, method: "bigquery.jobs.query" });

statement = mark("job", "SELECT x FROM UNNEST([1, 2, 3]) AS x");
const [job] = await client.createQueryJob(statement);
[rows] = await job.getQueryResults();
assert.equal(rows.length, 3);
did("job", { statement, method: "bigquery.jobs.insert" });

statement = mark("fails", "SELECT * FROM nowhere.nothing");
try {
  const [failed] = await client.createQueryJob(statement);
  await failed.getQueryResults();
  assert.fail("a query of nothing succeeded");
} catch (error) {
  assert.ok(!(error instanceof assert.AssertionError), error);
  did("fails", { statement, status: "error", method: "bigquery.jobs.insert" });
}

const name = `${prefix}set`.replaceAll("-", "_");
await client.createDataset(name);
called("bigquery.datasets.insert");
const schema = [{ name: "id", type: "INTEGER" }, { name: "name", type: "STRING" }];
const [table] = await client.dataset(name).createTable("item", { schema });
called("bigquery.tables.insert");
await table.insert([{ id: 1, name: "one" }]);
called("bigquery.tabledata.insertAll", { status: "ok" });
const [read] = await table.getRows();
assert.equal(read.length, 1);
called("bigquery.tabledata.list", { op: "read_rows" });
await client.dataset(name).delete({ force: true });
called("bigquery.datasets.delete");
