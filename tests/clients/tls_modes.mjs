// node-postgres without TLS, with TLS that is not verified, and with TLS that is.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert";

const pg = createRequire(process.env.VLAB_NODE)("pg");
const prefix = `${process.env.VLAB_PREFIX}node-`;
const roots = readFileSync(process.env.VLAB_ROOTS, "utf8");

const modes = { plain: false, trusting: { rejectUnauthorized: false }, verifying: { ca: roots } };
for (const [name, ssl] of Object.entries(modes)) {
  const client = new pg.Client({ ssl });
  await client.connect();
  const statement = `SELECT 1 AS one /* id:${prefix}${name} */`;
  assert.deepEqual((await client.query(statement)).rows, [{ one: 1 }]);
  console.log(JSON.stringify({ id: prefix + name, statement, rows: 1 }));
  await client.end();
}
