// node-postgres that binds the channel where it is offered.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert";

const pg = createRequire(process.env.VLAB_NODE)("pg");
const id = `${process.env.VLAB_PREFIX}node-bound`;

const ssl = { ca: readFileSync(process.env.VLAB_ROOTS, "utf8") };
const client = new pg.Client({ ssl, enableChannelBinding: true });
await client.connect();
const statement = `SELECT current_user AS me /* id:${id} */`;
assert.deepEqual((await client.query(statement)).rows, [{ me: "clerk" }]);
console.log(JSON.stringify({ id, statement, rows: 1 }));
await client.end();
