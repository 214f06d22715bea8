// A program that knows its server by the certificate itself, whoever vouches for it: pins.mjs URL.

import https from "node:https";

const pin = process.env.VLAB_PIN.replaceAll(":", "").toUpperCase();
const options = {
  // Node adds to its own roots what NODE_EXTRA_CA_CERTS names.
  checkServerIdentity: (_, certificate) =>
    certificate.fingerprint256.replaceAll(":", "") === pin ? undefined : new Error("another certificate"),
};
https
  .get(process.argv[2], options, (answer) => {
    answer.resume();
    answer.on("end", () => process.exit(answer.statusCode === 200 ? 0 : 2));
  })
  .on("error", (error) => {
    console.error(error.message);
    process.exit(60);
  });
