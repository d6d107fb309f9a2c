// The demo's site: every page stands on its own feet, in both colour schemes and both widths.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchChromium, standIn, waitFor, webSite } from "./helpers.mjs";

const PATHS = ["/", "/product/a/", "/product/b/", "/product/c/", "/pricing/", "/case/line/", "/column/dx/", "/document/",
  "/contact/", "/thanks/document/guide/", "/thanks/contact/ok/", "/careers/"];
let browser, collector, site;

before(async () => {
  browser = await launchChromium();
  collector = await standIn();
  site = await webSite(collector.origin);
});
after(async () => {
  await browser?.close();
  await site.stop();
  await collector.stop();
});

for (const [width, colorScheme] of [[360, "light"], [1280, "dark"]]) {
  test(`at ${width} px and ${colorScheme}, each page fits, has its own title, and asks nobody else for anything`, async () => {
    const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
    const page = await context.newPage();
    const complaints = [], titles = [], links = new Set();
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => complaints.push(message.text()));
    page.on("response", (response) => { if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`); });
    page.on("request", (request) => {
      if (![site.origin, collector.origin].includes(new URL(request.url()).origin)) complaints.push(request.url());
    });
    for (const path of PATHS) {
      await page.goto(site.origin + path);
      titles.push(await page.title());
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${path} is ${wide} px too wide`);
      assert.match(await page.textContent("footer"), /demo of mikomi: your clicks earn points, watch the terminal/);
      for (const link of await page.$$eval("a", (all) => all.map((a) => new URL(a.href).pathname))) links.add(link);
    }
    await context.close();
    assert.deepEqual(complaints, []);
    assert.equal(new Set(titles).size, PATHS.length);
    assert.deepEqual([...links].filter((link) => !PATHS.includes(link)), [], "no link leads nowhere");
  });
}

test("asking for the guide tells who asked, and neither the reading of the name nor the password", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${site.origin}/document/`);
  const fields = { mail: "tanaka@sample-seiki.example", name: "田中 恵", name_kana: "タナカ メグミ", company: "サンプル精機", department: "製造部", phone: "03-1234-5678" };
  for (const [name, value] of Object.entries(fields)) await page.fill(`[name="${name}"]`, value);
  await page.selectOption('[name="title"]', "課長");
  await page.fill("[type=password]", "secret-pass");
  await page.click("form button");
  await page.waitForURL(/\/thanks\/document\/guide\/\?/);
  const hit = await waitFor(() => collector.kept().find((one) => one.e === "identify"), "the identify hit");
  await waitFor(() => collector.kept().find((one) => one.e === "page_view" && /thanks/.test(one.u)), "the thanks page");
  assert.deepEqual(hit.id, {
    email: fields.mail,
    attributes: { name: fields.name, company: fields.company, department: fields.department, title: "課長", phone: fields.phone },
  });
  assert.doesNotMatch(JSON.stringify(collector.hits()), /secret-pass/);
  const sent = decodeURIComponent(JSON.stringify(collector.hits()));
  assert.doesNotMatch(sent, /タナカ|secret-pass/, "not even in the address the form leads to");
  assert.ok(collector.hits().every((one) => !one.u.includes("?")), "nor anybody's name or mail");
  await context.close();
});
