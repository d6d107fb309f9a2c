// The page script in a real Chromium, against a stand-in collector that fails when told to.
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { launchChromium, scriptText, standIn, waitFor, webSite } from "./helpers.mjs";

const tag = (attributes = "") =>
  `<script defer src="{{COLLECTOR}}/m.js" data-site="{{SITE}}" ${attributes}></script>`;
const html = (title, body = "", attributes = "") =>
  `<!doctype html><html lang="ja"><meta charset="utf-8"><title>${title}</title>${tag(attributes)}<body>${body}</body></html>`;

const FORM = (attributes = "") => `<form method="post" action="/thanks" ${attributes}>
  <label>メールアドレス <input name="mail"></label><label>確認用 <input name="mail2" type="email"></label>
  <label>姓<input name="f1"></label><label>名<input name="f2"></label>
  <label>姓（フリガナ）<input name="f3"></label><label>Name in kana<input name="name_kana"></label>
  <label>業種<select name="f0"><option>会社名 company</option></select></label><label>企業規模<input name="f9" value="sized"></label>
  <label>会社名 <em>必須</em><input name="f4"></label><label>部署名<input id="busho" name="f5"></label>
  <label>役職<select name="f6"><option value="">選択</option><option value="3">部長</option></select></label>
  <input name="tel1" aria-label="電話番号"><input name="tel2"><input name="tel3">
  <input type="password" name="company_name"><input name="memo" type="hidden" value="hidden-secret">
  <input name="card_number"><input name="phone" autocomplete="cc-number"><textarea name="name"></textarea>
  <select name="industry"><option value="manufacturing">製造業</option></select>
  <button>送信</button></form>`;
const FILLED = {
  mail: " Tanaka＠sample-seiki.example ", mail2: "other@sample.example", f1: "田中", f2: "恵", f3: "タナカ", name_kana: "メグミ",
  f4: "サンプル精機", f5: "製造部", tel1: "03", tel2: "1234", tel3: "5678",
  company_name: "pass-secret", card_number: "4111111111111111", phone: "5500005555555559", name: "free-text-secret",
};

const PAGES = {
  "/one": html("One", '<a href="/two">two</a>'),
  "/two": html("Two"),
  "/held": html("Held", "", 'data-consent="denied"'),
  "/granted": html("Granted", "", 'data-consent="granted"'),
  "/long": html("Long", '<pre>' + "line\n".repeat(400) + "</pre>"),
  "/form": html("Form", FORM(), `data-fields='{"industry": "industry", "memo": "memo"}'`),
  "/kiosk": html("Kiosk", FORM("data-mikomi-kiosk") + FORM("data-mikomi-ignore")),
  "/thanks": html("Thanks"),
  "/stub": html("Stub", "", "").replace("<script", `<script nonce="n">window.mikomi = window.mikomi || {q: []};
    mikomi.q.push(["event", "early", {a: 1}]); mikomi.q.push(["identify", {user_id: "u7"}, {plan: "x"}]);</script><script`),
  "/twice": html("Twice", "", "").replace("<body>", tag() + "<body>"),
  "/ahead": `<!doctype html><meta charset="utf-8"><title>Ahead</title>
    <script nonce="n" type="speculationrules">{"prerender": [{"urls": ["/two"], "eagerness": "immediate"}]}</script><a href="/two">two</a>`,
};

let browser, collector, site, context, page, errors;

before(async () => { browser = await launchChromium(); });
after(async () => { await browser?.close(); });
beforeEach(async () => {
  collector = await standIn();
  site = await webSite(collector.origin, PAGES);
  context = await browser.newContext();
  errors = [];
  page = await open();
});
afterEach(async () => {
  await context.close();
  await site.stop();
  await collector.stop();
  assert.deepEqual(errors, [], "no page saw an exception, a policy violation or a layout shift");
});

// A page that reports what its owner would complain about.
async function open() {
  const own = await context.newPage();
  own.on("pageerror", (error) => errors.push(`exception: ${error.message}`));
  own.on("console", (message) => {
    if (/Content Security Policy|complaint:/.test(message.text())) errors.push(message.text());
  });
  await own.addInitScript(() => {
    addEventListener("unhandledrejection", (event) => console.log(`complaint: rejection ${event.reason}`));
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
      if (entry.value > 0) console.log(`complaint: layout shift ${entry.value}`);
    })).observe({ type: "layout-shift", buffered: true });
  });
  return own;
}

const go = (path) => page.goto(site.origin + path);
const named = (name) => collector.kept().filter((hit) => hit.e === name);
const arrived = (name, count = 1) => waitFor(() => named(name).length >= count && named(name), `${count} x ${name}`);
const stored = () => page.evaluate(() => Object.keys(localStorage));
// The script starts a moment after it has loaded; then the page view is in the queue.
const begun = (part) => waitFor(async () =>
  (await page.evaluate(() => Object.values(localStorage).join())).includes(part), `a stored page view of ${part}`);
const empty = () => waitFor(async () => (await stored()).length === 0, "the stored queue is empty");
const ids = (hits) => hits.map((hit) => hit.i);
const unique = (hits) => [...new Map(hits.map((hit) => [hit.i, hit])).values()];

// Stops the page's clock: from here only `page.clock.runFor` and `pumped` move it.
async function stopClock() {
  await page.clock.install();
  await page.clock.pauseAt(new Date(Date.now() + 60_000));
  // It would abort a request whose answer takes real time while the page's time jumps.
  await page.addInitScript(() => { AbortSignal.timeout = undefined; });
}
const pumped = (condition, what) => waitFor(async () => { await page.clock.runFor(10); return condition(); }, what);
const pumpedIn = (name, count = 1) => pumped(() => named(name).length >= count && named(name), `${count} x ${name}`);

// Says to the page that it was hidden or shown, as the browser would.
const look = (state) => page.evaluate((next) => {
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => next });
  Object.defineProperty(document, "hidden", { configurable: true, get: () => next === "hidden" });
  document.dispatchEvent(new Event("visibilitychange"));
}, state);
const focus = (has) => page.evaluate((value) => {
  document.hasFocus = () => value;
  dispatchEvent(new Event(value ? "focus" : "blur"));
}, has);

test("the script stays below 6 KB gzipped and neither evaluates code nor listens to unload", async () => {
  const text = await scriptText();
  assert.ok(gzipSync(text, { level: 9 }).length < 6000, `${gzipSync(text, { level: 9 }).length} bytes`);
  assert.ok(text.split("\n").every((line) => line.length <= 115));
  assert.doesNotMatch(text, /\beval\(|new Function|["' ]unload|beforeunload|innerHTML|\.style\b/);
});

test("a page view says which page, from where, when, and leaves nothing behind once answered", async () => {
  await go("/one?q=1#part");
  await arrived("page_view");
  await page.click("a");
  const [first, second] = await arrived("page_view", 2);
  assert.equal(first.s, "demo");
  assert.equal(first.u, `${site.origin}/one?q=1`);
  assert.equal(first.t, "One");
  assert.match(first.i, /^[0-9a-f]{16}$/);
  assert.match(first.n, /^[0-9a-f]{16}$/);
  assert.ok(first.at <= first.st && first.st <= Date.now() && first.at > Date.now() - 60_000);
  assert.ok(!("c" in first), "consent is not stated where it is not known");
  assert.equal(second.r, `${site.origin}/one?q=1`);
  assert.notEqual(second.n, first.n);
  assert.equal(collector.requests[0].method, "POST");
  assert.match(collector.requests[0].type, /^text\/plain/);
  await empty();
});

test("an address loses what a form or a mailing put there about a person, and keeps the rest", async () => {
  await go("/one?utm_source=mail_news&q=a&mail=a%40b.example&your-name=x&who=a@b.example&card_no=4111#h");
  await page.click("a");
  const [first, second] = await arrived("page_view", 2);
  assert.equal(first.u, `${site.origin}/one?utm_source=mail_news&q=a`);
  assert.equal(second.r, first.u);
  await go(`/one?x=${"y".repeat(3_000)}`);
  assert.equal((await arrived("page_view", 3))[2].u, `${site.origin}/one`);
});

test("a new address by history is a page view with the title it gets a moment later; a new hash is none", async () => {
  await go("/one");
  await arrived("page_view");
  await page.evaluate(() => {
    history.pushState({}, "", "/spa");
    setTimeout(() => { document.title = "Later"; }, 50);
  });
  const [, second] = await arrived("page_view", 2);
  assert.equal(second.t, "Later");
  assert.equal(second.u, `${site.origin}/spa`);
  assert.equal(second.r, `${site.origin}/one`);
  await page.evaluate(() => { location.hash = "x"; history.pushState({}, "", "#y"); mikomi.event("mark"); });
  await arrived("mark");
  assert.equal(named("page_view").length, 2);
  await page.evaluate(() => history.go(-3));
  const back = (await arrived("page_view", 3))[2];
  assert.equal(back.u, `${site.origin}/one`);
  assert.equal(new Set(named("page_view").map((hit) => hit.n)).size, 3);
});

test("a router that pushes and at once replaces the address is one page view", async () => {
  await go("/one");
  await arrived("page_view");
  await page.evaluate(() => { history.pushState({}, "", "/old"); history.replaceState({}, "", "/new"); });
  assert.equal((await arrived("page_view", 2))[1].u, `${site.origin}/new`);
  await page.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  assert.equal(named("page_view").length, 2);
  assert.equal(named("mark")[0].n, named("page_view")[1].n);
});

test("a page shown again from the back-forward cache is a new page view", async () => {
  await go("/one");
  await arrived("page_view");
  await page.evaluate(() => {
    dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
  });
  const [first, second] = await arrived("page_view", 2);
  assert.notEqual(first.n, second.n);
  await empty();
});

test("attention is told at 10, 30 and 60 seconds and then each minute up to ten, with the scroll depth", async () => {
  await stopClock();
  await go("/long");
  await pumpedIn("page_view");
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
  const expected = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600];
  for (const [index, step] of expected.entries()) {
    await page.clock.runFor((step - (expected[index - 1] || 0)) * 1000);
    await pumpedIn("engagement", index + 1);
  }
  await page.clock.runFor(300_000);
  await page.evaluate(() => mikomi.event("mark"));
  await pumpedIn("mark");
  const told = named("engagement");
  assert.deepEqual(told.map((hit) => Math.round(hit.ms / 1000)), expected);
  assert.ok(told.every((hit) => hit.n === named("page_view")[0].n));
  assert.ok(told[0].sc > 40 && told[0].sc < 80, `scrolled ${told[0].sc} %`);
});

test("time without the focus, or hidden, is not attention", async () => {
  await stopClock();
  await go("/one");
  await pumpedIn("page_view");
  await page.clock.runFor(4_000);
  await focus(false);
  await page.clock.runFor(60_000);
  await focus(true);
  await page.clock.runFor(4_000);
  await look("hidden");
  const [first] = await pumpedIn("engagement");
  assert.ok(first.ms >= 8_000 && first.ms < 9_900, `${first.ms} ms`);
  await page.clock.runFor(60_000);
  await look("visible");
  await page.clock.runFor(1_000);
  await look("hidden");
  await page.evaluate(() => mikomi.event("mark"));
  await pumpedIn("mark");
  assert.equal(named("engagement").length, 1, "one more second is not worth a request");
});

test("on hiding the rest goes as one beacon, and its dwell is not told again", async () => {
  await stopClock();
  await page.addInitScript(() => {
    const send = navigator.sendBeacon.bind(navigator);
    navigator.sendBeacon = (url, body) => { window.beacons = (window.beacons || 0) + 1; return send(url, body); };
  });
  await go("/one");
  await pumpedIn("page_view");
  await pumped(async () => (await stored()).length === 0, "the stored queue is empty");
  await page.clock.runFor(5_000);
  await look("hidden");
  const [hit] = await pumpedIn("engagement");
  assert.equal(await page.evaluate(() => window.beacons), 1);
  assert.ok(hit.ms >= 5_000);
  await pumped(async () => (await stored()).length === 0, "the stored queue is empty");
  await page.clock.runFor(5_000);
  assert.equal(named("engagement").length, 1);
});

test("before the first answer nothing else is sent; after it the rest goes at once, with the cookie", async () => {
  collector.answer = () => "hang";
  await go("/one");
  await waitFor(() => collector.requests.length === 1, "the first request");
  await page.evaluate(() => { for (let n = 0; n < 5; n += 1) mikomi.event("more", { n }); });
  await waitFor(async () => (await page.evaluate(() => Object.values(localStorage).join())).includes('"n":4'), "five more are queued");
  assert.equal(collector.requests.length, 1);
  assert.deepEqual(collector.requests[0].hits.map((hit) => hit.e), ["page_view"]);
  assert.equal(collector.requests[0].cookie, "");
  collector.answer = () => 204;
  collector.release();
  const more = await arrived("more", 5);
  assert.equal(collector.requests.length, 2);
  assert.equal(collector.requests[1].cookie, "mikomi=seen");
  assert.deepEqual(more.map((hit) => hit.p.n), [0, 1, 2, 3, 4]);
  assert.ok(collector.hits().every((hit) => hit.n === more[0].n));
});

test("a form tells exactly the mapped fields, and passwords, cards and furigana leave the page never", async () => {
  await go("/form");
  await arrived("page_view");
  for (const [name, value] of Object.entries(FILLED)) await page.fill(`[name="${name}"]`, value);
  await page.selectOption('[name="f6"]', "3");
  await page.click("button");
  await page.waitForURL(/\/thanks/);
  const [hit] = await arrived("identify");
  await arrived("page_view", 2);
  assert.deepEqual(hit.id, {
    email: "Tanaka@sample-seiki.example",
    attributes: { name: "田中 恵", company: "サンプル精機", department: "製造部", title: "部長", phone: "03-1234-5678", industry: "manufacturing" },
  });
  assert.equal(unique(named("identify")).length, 1);
  // Ids and times are chance: four digits of a card may well be in them.
  const told = collector.hits().map(({ i, n, at, st, ...rest }) => rest);
  const sent = decodeURIComponent(JSON.stringify(told)).replaceAll(/localhost:\d+/g, "site");
  assert.doesNotMatch(sent, /pass-secret|hidden-secret|free-text-secret|タナカ|メグミ|4111|5500|other@|sized/);
});

test("a kiosk's form says that the browser is nobody's, an ignored one says nothing", async () => {
  await go("/kiosk");
  for (const form of await page.$$("form")) {
    await (await form.$('[name="mail"]')).fill("a@b.example");
    await form.evaluate((one) => one.addEventListener("submit", (event) => event.preventDefault()));
    await (await form.$("button")).click();
  }
  await go("/form");
  await page.fill('[name="mail"]', "not a mail address");
  await page.evaluate(() => document.forms[0].addEventListener("submit", (event) => event.preventDefault()));
  await page.click("button");
  await page.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  const said = unique(collector.hits().filter((hit) => hit.e === "identify"));
  assert.equal(said.length, 1, "neither an ignored form nor one without a mail address names anybody");
  assert.equal(said[0].id.email, "a@b.example");
  assert.equal(said[0].id.kiosk, true);
});

test("a field that hides the form's own methods does not stop its submission", async () => {
  await go("/one");
  await page.evaluate(() => {
    document.body.innerHTML = '<form action="/thanks"><input name="closest"><input name="querySelectorAll"><input name="mail" value="a@b.example"><button></button></form>';
  });
  await page.click("button");
  await page.waitForURL(/\/thanks/);
  assert.deepEqual((await arrived("identify"))[0].id.email, "a@b.example");
});

test("with the collector down over page views, events and reloads, each hit arrives once with its own time", async () => {
  collector.answer = () => "none";
  const times = [];
  await go("/one");
  await begun("/one");
  for (let n = 0; n < 6; n += 1) {
    times.push(Date.now());
    await page.evaluate((path) => history.pushState({}, "", path), `/view/${n}`);
    if (n < 3) await page.evaluate((number) => mikomi.event("tried", { number }), n);
    if (n === 2 || n === 4) {
      await go(`/one?reload=${n}`);
      await begun(`reload=${n}`);
    }
  }
  await waitFor(() => collector.requests.length > 2, "attempts were made");
  assert.equal(collector.kept().length, 0);
  collector.answer = () => 204;
  await go("/one?back");
  await arrived("tried", 3);
  await waitFor(() => named("page_view").some((hit) => hit.u.endsWith("?back")) && named("page_view").length >= 10, "10 page views");
  await empty();
  assert.equal(collector.requests.find((one) => one.answered).hits.length, 1, "the first goes alone, for the cookie");
  const kept = collector.kept().filter((hit) => hit.e !== "engagement");
  assert.equal(new Set(ids(kept)).size, kept.length, "no hit was kept twice");
  assert.equal(kept.length, 3 + 10);
  const views = named("page_view").filter((hit) => hit.u.includes("/view/"));
  assert.deepEqual(views.map((hit) => hit.u.slice(-1)), ["0", "1", "2", "3", "4", "5"]);
  views.forEach((hit, n) => assert.ok(Math.abs(hit.at - times[n]) < 2_000 && hit.st >= hit.at, "its own time"));
});

test("with a full queue and the collector down, no task of the script lasts over 50 ms", async () => {
  collector.answer = () => "none";
  await page.addInitScript(() => {
    window.longest = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => entry.scripts.forEach((part) => {
      if (/\/m\.js/.test(part.sourceURL)) window.longest = Math.max(window.longest, part.duration);
    }))).observe({ type: "long-animation-frame", buffered: true });
  });
  await go("/form");
  await begun("/form");
  await page.evaluate(() => { for (let n = 0; n < 99; n += 1) mikomi.event("x", { text: "y".repeat(400) }); });
  // A busy machine can only lengthen a task, so the best of a few tries is the script's own doing.
  const tries = [];
  while (tries.length < 6 && !tries.some((ms) => ms <= 50)) {
    const before = collector.requests.length;
    await go("/form");
    await begun("/form");
    await waitFor(() => collector.requests.length > before, "an attempt");
    await page.evaluate(async () => {
      document.forms[0].addEventListener("submit", (event) => event.preventDefault());
      document.forms[0].mail.value = "a@b.example";
      document.forms[0].requestSubmit();
      history.pushState({}, "", "/other");
      for (let n = 0; n < 3; n += 1) await new Promise((next) => requestAnimationFrame(next));
    });
    tries.push(await page.evaluate(() => new Promise((done) => setTimeout(() => done(window.longest)))));
  }
  assert.ok(tries.some((ms) => ms <= 50), `${tries} ms`);
});

test("too many requests: the script waits as long as it was told, over a reload too", async () => {
  await stopClock();
  collector.answer = () => ({ status: 429, retryAfter: 120 });
  await go("/one");
  await pumped(() => collector.requests.length === 1 && collector.requests[0].answered, "the refusal");
  await pumped(async () => (await page.evaluate(() => Object.values(localStorage).join())).includes('"w":1'), "the wait is noted");
  await page.clock.runFor(60_000);
  await page.evaluate(() => mikomi.event("more"));
  await look("hidden");
  await go("/two");
  await pumped(() => page.evaluate(() => Boolean(window.mikomi && mikomi.event)), "the script");
  await page.clock.runFor(30_000);
  assert.equal(collector.requests.length, 1, "nothing before the time named");
  collector.answer = () => 204;
  await page.clock.runFor(150_000);
  await pumpedIn("more");
  assert.equal(unique(named("page_view")).length, 2);
});

test("a server error is tried again, ever later; another refusal drops the hit and goes on", async () => {
  await stopClock();
  const at = [];
  collector.answer = () => { at.push(1); return at.length < 4 ? 503 : 204; };
  await go("/one");
  for (let n = 2; n <= 4; n += 1) {
    await pumped(() => at.length >= n - 1, `attempt ${n - 1}`);
    await waitFor(async () => { await page.clock.runFor(2_000); return at.length >= n; }, `attempt ${n}`);
  }
  await pumpedIn("page_view");
  assert.equal(new Set(ids(collector.hits().filter((hit) => hit.e === "page_view"))).size, 1);
  collector.answer = (hits) => (hits.some((hit) => hit.e === "bad") ? 400 : 204);
  await page.evaluate(() => mikomi.event("bad"));
  await pumped(() => collector.hits().some((hit) => hit.e === "bad"), "the bad hit arrives");
  await pumped(async () => (await stored()).length === 0, "the stored queue is empty");
  await page.evaluate(() => mikomi.event("good"));
  await pumpedIn("good");
  await page.clock.runFor(600_000);
  assert.equal(collector.hits().filter((hit) => hit.e === "bad").length, 1);
});

for (const [name, prepare, path] of [
  ["Global Privacy Control", () => Object.defineProperty(navigator, "globalPrivacyControl", { get: () => true }), "/one"],
  ["an opt-out", () => localStorage.setItem("mikomi_optout", "1"), "/one"],
  ["no consent yet", () => {}, "/held"],
]) {
  test(`with ${name} there is no request, no storage and no cookie`, async () => {
    await page.addInitScript(prepare);
    await go(path);
    await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
    await stopClock();
    await page.evaluate((form) => {
      document.body.innerHTML = form;
      document.forms[0].addEventListener("submit", (event) => event.preventDefault());
      mikomi.event("x");
      mikomi.identify({ email: "a@b.example" });
      mikomi.page();
      history.pushState({}, "", "/other");
    }, FORM());
    await page.fill('[name="mail"]', "a@b.example");
    await page.click("button");
    await page.clock.runFor(90_000);
    await look("hidden");
    await go("/thanks".replace("/thanks", path));
    await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
    assert.deepEqual(collector.requests, []);
    assert.deepEqual((await stored()).filter((key) => key !== "mikomi_optout"), []);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.deepEqual(await context.cookies(), []);
  });
}

test("opting out drops what is queued and keeps one flag; opting in starts anew", async () => {
  // By address: a request that is under way when its page is left may arrive later than the next page's.
  collector.answer = (hits) => (hits.some((hit) => hit.u.endsWith("/one")) ? "none" : 204);
  await go("/one");
  await page.evaluate(() => mikomi.event("before"));
  await waitFor(async () => (await stored()).some((key) => key.startsWith("mikomi_q_")), "a stored queue");
  await page.evaluate(() => mikomi.optOut());
  assert.deepEqual(await stored(), ["mikomi_optout"]);
  await go("/two");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => { mikomi.event("during"); mikomi.optIn(); });
  const [view] = await arrived("page_view");
  assert.equal(view.t, "Two");
  await empty();
  assert.deepEqual(collector.kept().map((hit) => hit.e), ["page_view"]);
});

test("what was held for consent goes out with it, at its own time; a no drops it and all that follows", async () => {
  await go("/held");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => { mikomi.event("held"); mikomi.consent(true); });
  const [held] = await arrived("held");
  assert.ok(collector.kept().every((hit) => hit.c === 1));
  assert.deepEqual(collector.kept().map((hit) => hit.e), ["page_view", "held"]);
  assert.ok(held.at <= held.st);
  const before = collector.requests.length;
  await page.evaluate(() => { mikomi.event("never"); mikomi.consent(false); mikomi.event("never"); });
  await page.evaluate(() => mikomi.consent(true));
  await arrived("page_view", 2);
  assert.ok(collector.requests.length > before);
  assert.ok(collector.hits().every((hit) => hit.e !== "never"));
  await go("/granted");
  assert.equal((await arrived("page_view", 3))[2].c, 1);
});

test("a prerendered page is viewed only when it is shown", async () => {
  await go("/ahead");
  const done = page.waitForEvent("request", { predicate: (request) => request.url().endsWith("/two"), timeout: 3_000 }).catch(() => null);
  await done;
  await page.click("a");
  await arrived("page_view");
  const real = await page.evaluate(() => performance.getEntriesByType("navigation")[0].activationStart > 0);
  assert.equal(named("page_view").length, 1);
  console.log(real ? "# Chromium prerendered the page" : "# Chromium did not prerender here; the next test fakes it");
});

test("while document.prerendering is true nothing is sent, and calls made then are kept", async () => {
  await page.addInitScript(() => {
    window.ahead = true;
    Object.defineProperty(document, "prerendering", { configurable: true, get: () => window.ahead });
  });
  await go("/stub");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => { mikomi.event("meanwhile"); document.dispatchEvent(new Event("visibilitychange")); });
  assert.deepEqual(collector.requests, []);
  await page.evaluate(() => { window.ahead = false; document.dispatchEvent(new Event("prerenderingchange")); });
  await arrived("meanwhile");
  assert.deepEqual(collector.kept().map((hit) => hit.e), ["page_view", "early", "identify", "meanwhile"]);
});

test("calls queued before the script loaded follow the page view; a second copy of the script is idle", async () => {
  await go("/stub");
  await arrived("identify");
  assert.deepEqual(collector.kept().map((hit) => hit.e), ["page_view", "early", "identify"]);
  assert.deepEqual(named("early")[0].p, { a: 1 });
  assert.deepEqual(named("identify")[0].id, { user_id: "u7", attributes: { plan: "x" } });
  await page.evaluate(() => { mikomi.q.push(["event", "pushed"]); mikomi.reset(); });
  await arrived("reset");
  assert.equal(named("pushed").length, 1);
  await go("/twice");
  await arrived("page_view", 2);
  await page.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  assert.equal(named("page_view").length, 2);
});

test("two tabs and the dead tab between them send no hit twice", async () => {
  collector.answer = () => "none";
  await go("/one");
  await page.evaluate(() => { for (let n = 0; n < 10; n += 1) mikomi.event("shared", { n }); });
  await waitFor(async () => (await page.evaluate(() => Object.values(localStorage).join())).includes('"n":9'), "ten are stored");
  await page.goto("about:blank");
  collector.answer = () => 204;
  const others = await Promise.all([open(), open(), open()]);
  await Promise.all(others.map((own, n) => own.goto(`${site.origin}/two?tab=${n}`)));
  await arrived("shared", 10);
  await arrived("page_view", 4);
  page = others[0];
  await empty();
  const kept = collector.kept().filter((hit) => hit.e !== "engagement");
  assert.equal(kept.length, 14);
  assert.equal(new Set(ids(kept)).size, 14);
});

test("a tab leaves the hits of a living tab alone", async () => {
  collector.answer = (hits) => (hits.some((hit) => hit.u.endsWith("/one")) ? "none" : 204);
  await go("/one");
  await begun("/one");
  const other = await open();
  await other.goto(`${site.origin}/two`);
  await arrived("page_view");
  await other.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  assert.deepEqual(collector.kept().map((hit) => hit.e), ["page_view", "mark"]);
});

test("the queue holds a hundred hits and 64 KB, refuses the next, and is sent in pieces below 50 KB", async () => {
  collector.answer = () => "none";
  await go("/one");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => { for (let n = 0; n < 150; n += 1) mikomi.event("small", { n }); });
  const count = () => page.evaluate(() => Object.values(localStorage).flatMap((text) => JSON.parse(text).q).length);
  assert.equal(await count(), 100);
  await page.evaluate(() => { mikomi.optOut(); mikomi.optIn(); });
  await page.evaluate(() => { for (let n = 0; n < 30; n += 1) mikomi.event("large", { text: "見".repeat(1_000) }); });
  const size = await page.evaluate(() => new Blob(Object.values(localStorage)).size);
  assert.ok(size > 50_000 && size < 66_000, `${size} bytes`);
  collector.answer = () => 204;
  await go("/two");
  await arrived("large", 15);
  await empty();
  assert.ok(collector.requests.every((request) => Buffer.byteLength(request.text) <= 50_000));
});

test("hits of a dead tab older than seven days are forgotten", async () => {
  await page.addInitScript(() => {
    const q = (days) => [{ s: "demo", e: "old", i: `${days}`.repeat(16), at: Date.now() - days * 86_400_000 }];
    if (location.pathname === "/one" && !sessionStorage.length) {
      sessionStorage.setItem("set", "1");
      localStorage.setItem("mikomi_q_a", JSON.stringify({ t: 0, w: 0, q: q(8) }));
      localStorage.setItem("mikomi_q_b", JSON.stringify({ t: Date.now() - 3_600_000, w: 0, q: q(6) }));
      localStorage.setItem("mikomi_q_c", "not JSON");
      localStorage.setItem("mikomi_q_0", '{"q": [null], "w": 9e15}');
    }
  });
  await go("/one");
  assert.deepEqual((await arrived("old")).map((hit) => hit.i), ["6666666666666666"]);
  await arrived("page_view");
  await empty();
  assert.equal(named("old").length, 1);
});

test("where storage is forbidden the script still works", async () => {
  await page.addInitScript(() => {
    Object.defineProperty(window, "localStorage", { get() { throw new DOMException("denied", "SecurityError"); } });
  });
  await go("/one");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  await page.evaluate(() => { mikomi.optOut(); mikomi.event("after"); mikomi.optIn(); });
  await arrived("page_view", 2);
  assert.equal(named("after").length, 0);
});

test("without fetch an image carries the page view and the events", async () => {
  await page.addInitScript(() => { delete window.fetch; });
  await go("/granted?q=見込み");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => mikomi.event("mark"));
  await arrived("mark");
  assert.ok(collector.requests.every((request) => request.path === "/p.gif"));
  assert.equal(named("page_view")[0].t, "Granted");
  assert.equal(named("page_view")[0].c, "1");
  await empty();
});

test("whatever the page passes in, nothing is thrown and the next hit is well formed", async () => {
  await go("/one");
  await page.waitForFunction(() => Boolean(window.mikomi && mikomi.event));
  await page.evaluate(() => {
    const round = {};
    round.self = round;
    mikomi.event("cycle", round);
    mikomi.event("big", { text: "x".repeat(60_000) });
    mikomi.event("half", { text: "a\ud83d" });
    mikomi.event({}, 1);
    mikomi.event();
    mikomi.identify();
    mikomi.q.push(null, [], ["no such call"], ["constructor"], 7);
    mikomi.consent.call(null, true);
    mikomi.event("mark", { big: 1n });
    mikomi.event("mark", { fine: true });
    const properties = { n: 1 };
    mikomi.event("copied", properties);
    properties.n = 2;
  });
  await arrived("copied");
  assert.deepEqual(named("copied")[0].p, { n: 1 });
  assert.equal(named("half")[0].p.text, "a\ufffd");
  assert.equal(named("big").length + named("cycle").length, 0);
  assert.equal(named("mark").length, 1);
});
