// What npm's standardwebhooks, or svix if that is asked for, says to deliveries. In: a JSON array of {secret, headers, body (base
// 64)}. Out: an array of "accepted" or "rejected: why". Ends with 77 where the library is not there.
import { createRequire } from "node:module";

const require = createRequire(new URL("../browser/", import.meta.url));
const library = process.argv[2] ?? "standardwebhooks";
let Webhook;
try {
  ({ Webhook } = require(library));
} catch {
  console.log(`npm install in tests/browser brings ${library}`);
  process.exit(77);
}

let text = "";
for await (const piece of process.stdin) text += piece;
const verdicts = JSON.parse(text).map(({ secret, headers, body }) => {
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    return "accepted";
  } catch (error) {
    return `rejected: ${error.message}`;
  }
});
console.log(JSON.stringify(verdicts));
