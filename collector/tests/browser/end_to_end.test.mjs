// The whole way with a real Chromium and the real binary: somebody reads, says who they are, turns
// hot, and cools when time passes. MIKOMI_BIN names another binary.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtemp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Webhook } from "standardwebhooks";
import { launchChromium, waitFor, webSite } from "./helpers.mjs";

const BINARY = process.env.MIKOMI_BIN || fileURLToPath(new URL("../../../target/debug/mikomi", import.meta.url));
const RULES = fileURLToPath(new URL("../../../config/scoring.toml", import.meta.url));
const SECRET = "whsec_bWlrb21pIHRlc3Qgc2VjcmV0IG51bWJlciBvbmUh";
// A headless Chromium says that it is one, and is then a robot.
const AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
const DAY_MS = 86_400_000;
const PERSON = {
  mail: "tanaka@sample-seiki.example", name: "田中 恵", name_kana: "タナカ メグミ",
  company: "サンプル精機株式会社", department: "製造部", phone: "03-1234-5678",
};

let folder, receiver, mikomi, site, browser, page;
const answers = [], complaints = [];

/** A receiver of webhooks that keeps every request. */
async function startReceiver() {
  const received = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const piece of request.setEncoding("utf8")) text += piece;
    received.push({ headers: request.headers, text, body: JSON.parse(text) });
    response.writeHead(204).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); });
  return { received, port: server.address().port, stop };
}

/** The real binary with a folder of its own and a clock that stands where this one does. */
async function startMikomi(clock) {
  const config = join(folder, "config"), data = join(folder, "data");
  await mkdir(config);
  await writeFile(join(config, "mikomi.toml"), `
[collector]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[[site]]
id = "demo"
key = "demo"
consent = "assumed"
origins = ["*"]
`);
  await writeFile(join(config, "scoring.toml"), await readFile(RULES));
  await writeFile(join(config, "endpoints.toml"), `
[[endpoint]]
id = "sfa"
url = "http://127.0.0.1:${receiver.port}/hook"
secrets = ["${SECRET}"]
mode = "live"
allow_http = true
allow_private = ["127.0.0.0/8"]
allow_ports = [${receiver.port}]
`);
  const folders = ["--config", config, "--data", data];
  const child = spawn(BINARY, ["serve", "--test-clock", String(clock), ...folders], { stdio: ["ignore", "pipe", "inherit"] });
  const ports = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(/^(collector|admin) +http:\/\/127\.0\.0\.1:(\d+)/);
    if (found) ports[found[1]] = found[2];
    if (ports.admin) break;
  }
  const token = execFileSync(BINARY, ["token", ...folders], { encoding: "utf8" }).trim();
  const ask = async (path, body) => {
    const answer = await fetch(`http://127.0.0.1:${ports.admin}${path}`, {
      method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers: { authorization: `Bearer ${token}` },
    });
    assert.equal(answer.status, 200, path);
    return answer.text();
  };
  const stop = () => new Promise((resolve) => { child.once("exit", resolve); child.kill("SIGTERM"); });
  // Under this name, page and collector are of one site, and the cookie is a first party's.
  return { origin: `http://localhost:${ports.collector}`, data, ask, stop, clock };
}

const told = (kind) => waitFor(() => receiver.received.find((one) => one.body.type === kind), kind);
const hits = async () => (await mikomi.ask("/api/export/hits")).trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));
const arrived = (path, event = "page_view") => waitFor(async () =>
  (await hits()).find((hit) => hit.path === path && hit.event === event), `${event} of ${path}`);

/** What the receiver's library makes of a message, at the time of mikomi's clock. */
function verified(message, now) {
  const system = Date.now;
  Date.now = () => now;
  try {
    return new Webhook(SECRET).verify(message.text, message.headers);
  } finally {
    Date.now = system;
  }
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "mikomi-browser-"));
  receiver = await startReceiver();
  mikomi = await startMikomi(Date.now());
  site = await webSite(mikomi.origin);
  browser = await launchChromium({ args: [`--user-agent=${AGENT}`] });
  page = await watched(browser);
});

/** A page of a fresh browser, of which every answer and complaint is kept. */
async function watched(browser) {
  const page = await (await browser.newContext()).newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("response", async (response) => {
    if (!response.url().startsWith(mikomi.origin)) return;
    const text = await response.text().catch(() => "");
    answers.push({ url: response.url(), status: response.status(), headers: JSON.stringify(response.headers()), text });
  });
  return page;
}
after(async () => {
  await browser?.close();
  await site?.stop();
  await mikomi?.stop();
  await receiver?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

test("somebody unknown reads, and earns points as nobody", async () => {
  for (const path of ["/", "/column/dx", "/case/line", "/product/a", "/product/b", "/product/c", "/pricing"]) {
    await page.goto(`${site.origin}${path === "/" ? path : `${path}/`}`);
    await arrived(path);
  }
  assert.equal(await page.evaluate(() => navigator.userAgent), AGENT);
  const cookies = (await page.context().cookies()).filter((cookie) => cookie.name === "mikomi");
  assert.equal(cookies.length, 1);
  assert.ok(cookies[0].httpOnly && cookies[0].sameSite === "Lax");
  const visitors = new Set((await hits()).map((hit) => hit.visitor));
  assert.equal(visitors.size, 1, "one browser, one visitor");
  const visitor = JSON.parse(await mikomi.ask(`/api/visitors/${[...visitors][0]}`));
  assert.equal(visitor.points, 1 + 4 + 8 + 12);
  assert.equal(visitor.lead, null);
  assert.deepEqual(JSON.parse(await mikomi.ask("/api/leads")).leads, []);
  assert.ok((await hits()).every((hit) => hit.excluded === null), "no robot");
});

test("the form tells who it was, with everything read before, and nobody is alarmed yet", async () => {
  await page.goto(`${site.origin}/document/`);
  for (const [name, value] of Object.entries(PERSON)) await page.fill(`[name="${name}"]`, value);
  await page.selectOption('[name="title"]', "課長");
  await page.fill("[type=password]", "secret-pass");
  await page.click("form button");
  await arrived("/thanks/document/guide");
  const { leads } = await waitFor(async () => {
    const found = JSON.parse(await mikomi.ask("/api/leads?q=tanaka"));
    return found.leads.length === 1 && found.leads[0].points === 45 && found;
  }, "a lead with 45 points");
  assert.deepEqual([leads[0].name, leads[0].assurance, leads[0].stage.id], [PERSON.name, "claimed", "warm"]);
  assert.equal(receiver.received.length, 0);
});

test("asking for a quote makes her hot, and sales gets one message that its library accepts", async () => {
  await page.goto(`${site.origin}/contact/`);
  for (const field of await page.$$("form [required]")) {
    const name = await field.getAttribute("name");
    const tag = await field.evaluate((element) => element.tagName);
    if (tag === "SELECT") await field.selectOption({ index: 1 });
    else await field.fill(PERSON[name] || "見積をお願いします");
  }
  await page.click("form button");
  const message = await told("lead.hot");
  const { data } = verified(message, mikomi.clock);
  assert.equal(message.headers["webhook-id"], data.alert_id);
  assert.equal(data.lead.name, PERSON.name);
  assert.equal(data.lead.email, PERSON.mail);
  assert.equal(data.lead.title, "課長");
  assert.equal(data.company.name, PERSON.company);
  assert.ok(Math.abs(data.score.exact - 80) < 0.01, `${data.score.exact}: a claim counts up to 80`);
  assert.equal(data.because.rule, "contact");
  assert.equal(data.history.known_by, "form");
  assert.ok(data.history.anonymous_hits_attached >= 8);
  assert.match(data.headline.ja, /田中恵さん (79|80)点.*※未確認$/);
  assert.throws(() => verified({ ...message, text: message.text.replace("精機", "精器") }, mikomi.clock));
  assert.throws(() => verified(message, mikomi.clock + 301_000));
});

test("when nothing more happens, time alone cools her, and says so once", async () => {
  const later = mikomi.clock + 60 * DAY_MS;
  await mikomi.ask("/api/test-clock", { now_ms: later });
  const message = await told("lead.cooled");
  const body = verified(message, later);
  assert.ok(body.data.score.exact < 40 && body.data.score.exact > 39.9);
  const cooled = Date.parse(body.timestamp);
  assert.ok(cooled > mikomi.clock + DAY_MS && cooled < later, "at its own moment, not at this one");
  // Nobody of sales took her meanwhile.
  const all = ["lead.hot", "lead.reminder", "lead.cooled"];
  assert.deepEqual(receiver.received.map((one) => one.body.type), all);
});

test("a link in our mail, opened on another browser, proves whose it is", async () => {
  const wish = { site: "demo", mail: "newsletter", url: `${site.origin}/pricing/`, to: [{ email: PERSON.mail }] };
  const { links } = JSON.parse(await mikomi.ask("/api/mail-links", wish));
  const phone = await watched(browser);
  // As where the collector has a name of the site's own: one cookie for the link and the page.
  await phone.goto(links[0].url.replace("127.0.0.1", "localhost"));
  assert.equal(new URL(phone.url()).pathname, "/pricing/", "it leads on at once");
  const { lead } = JSON.parse(await mikomi.ask(`/api/leads/by?site=demo&email=${PERSON.mail}`));
  const known = await waitFor(async () => {
    const found = JSON.parse(await mikomi.ask(`/api/leads/${lead}`));
    return found.links.length === 2 && found;
  }, "both browsers are hers");
  assert.equal(known.assurance, "verified");
  assert.deepEqual(known.links.map((link) => link.assurance).sort(), ["claimed", "verified"]);
  const viewed = (await hits()).filter((hit) => hit.event === "page_view").at(-1);
  assert.equal(viewed.path, "/pricing");
  assert.doesNotMatch(JSON.stringify(viewed), /mk=/, "the token is not kept");
});

test("the browser learned nothing, and what was not to be read is in no byte of the journal", async () => {
  assert.ok(answers.length > 10);
  for (const answer of answers) {
    const seen = `${answer.headers}${answer.text}`;
    assert.doesNotMatch(seen, /tanaka|sample-seiki|田中|精機|msg_|"score"|lead\./i, answer.url);
  }
  assert.deepEqual(complaints, []);
  const journal = join(mikomi.data, "journal");
  const files = await readdir(journal);
  assert.ok(files.length > 0);
  for (const file of files) {
    const bytes = await readFile(join(journal, file));
    for (const secret of ["secret-pass", PERSON.name_kana, "タナカ", PERSON.mail, PERSON.name, PERSON.phone]) {
      assert.equal(bytes.indexOf(secret), -1, `${secret} in ${file}`);
    }
  }
});
