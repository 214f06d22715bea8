// node-postgres: simple, parameterised and named statements, failures, transactions.

import { createRequire } from "node:module";
import assert from "node:assert";

const pg = createRequire(process.env.VLAB_NODE)("pg");
const prefix = `${process.env.VLAB_PREFIX}node-`;
const mark = (name, text) => `${text} /* id:${prefix}${name} */`;
const did = (name, fields) => console.log(JSON.stringify({ id: prefix + name, ...fields }));

const client = new pg.Client();
await client.connect();

let statement = mark("simple", "SELECT 1 AS one");
assert.deepEqual((await client.query(statement)).rows, [{ one: 1 }]);
did("simple", { statement, rows: 1 });

statement = mark("parameters", "SELECT $1::int4 AS a, $2::text AS b, $3::text AS c");
assert.deepEqual((await client.query(statement, [5, "naïve", null])).rows, [{ a: 5, b: "naïve", c: null }]);
did("parameters", { statement, op: "execute", rows: 1, parameters: ["5", "naïve", null] });

statement = mark("named", "SELECT name FROM item WHERE id = $1");
for (const id of [1, 2, 3, 4]) {
  const result = await client.query({ name: "by id", text: statement, values: [id] });
  assert.equal(result.rows[0].name, `item ${id}`);
  did("named", { statement, op: "execute", rows: 1, parameters: [String(id)] });
}

statement = mark("fails", "SELECT $1::int4 / 0");
try {
  await client.query(statement, [1]);
  assert.fail("a division by zero succeeded");
} catch (error) {
  did("fails", { statement, op: "execute", status: "error", sqlstate: error.code, parameters: ["1"] });
}

await client.query("BEGIN");
statement = mark("insert", "INSERT INTO item VALUES ($1, $2, $3)");
await client.query(statement, [7001, "from node", 2.5]);
did("insert", { statement, op: "execute", rows: 1, parameters: ["7001", "from node", "2.5"] });
await client.query("ROLLBACK");

await client.end();
