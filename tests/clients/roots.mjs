// A question to BigQuery by Node's own client, with whatever roots its environment names.

import https from "node:https";

const [url, body] = process.argv.slice(2);
const request = https.request(url, { method: "POST", headers: { "Content-Type": "application/json" } }, (answer) => {
  answer.resume();
  answer.on("end", () => process.exit(answer.statusCode === 200 ? 0 : 1));
});
request.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
request.end(body);
