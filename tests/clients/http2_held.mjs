// A hundred requests at once on one HTTP/2 connection while one of them is held; the scenario releases it.
//
// Not httpx: in httpcore whoever reads the connection also waits for its own answer, so that one held request
// may keep answers from its siblings that have already been read (seen with no proxy between).

import http2 from "node:http2";
import { basename } from "node:path";
import readline from "node:readline";

const prefix = `${process.env.VLAB_PREFIX}${basename(process.argv[1], ".mjs")}-`;
const session = http2.connect("https://mirror.googleapis.com");
session.on("error", (error) => fail(error));

function fail(error) {
  console.error(error.stack);
  process.exit(1);
}

function request(path, headers = {}, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path, ...headers });
    let status;
    stream.on("response", (answer) => (status = answer[":status"]));
    stream.on("error", reject);
    stream.on("close", () => resolve(status));
    stream.resume();
    stream.end(body);
  });
}

try {
  let answered = false;
  const held = request(`/echo/lab:hold=3600/id:${prefix}held`, { ":method": "POST" }, "x");
  held.then(() => (answered = true), fail);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === "go on") break;
  }
  const others = Array.from({ length: 100 }, (_, number) => request(`/echo/id:${prefix}beside-${number}`));
  const statuses = await Promise.all(others);
  if (statuses.some((status) => status !== 200)) throw new Error(`answered ${statuses}`);
  if (answered) throw new Error("the held request was answered");
  console.log("a hundred have passed");
  const status = await held;
  if (status !== 200) throw new Error(`the held request was answered ${status}`);
  session.close();
  console.log("done");
} catch (error) {
  fail(error);
}
