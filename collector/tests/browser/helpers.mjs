// What browser tests share: a Chromium, a web site on loopback, a stand-in for the collector that
// can be told to fail, and waiting for a condition instead of for a time.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const SITE = fileURLToPath(new URL("../../src/demo/site/", import.meta.url));
const SCRIPT = fileURLToPath(new URL("../../src/script/m.js", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
const CHROMIUM_ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

/** A headless Chromium with a fresh profile; MIKOMI_CHROMIUM names another binary. */
export function launchChromium(options = {}) {
  return chromium.launch({
    executablePath: process.env.MIKOMI_CHROMIUM || "/usr/bin/chromium",
    headless: true,
    ...options,
    args: [...CHROMIUM_ARGS, ...(options.args || [])],
  });
}

/** Waits until `condition` (may be async) is truthy and returns its value; names it when it never is. */
export async function waitFor(condition, what = condition.toString(), limitMs = 15_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never happened within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function listen(handler) {
  const server = createServer((request, response) => {
    Promise.resolve(handler(request, response)).catch(() => response.destroy());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://localhost:${server.address().port}`,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
}

/** The page script as it stands in the repository. */
export const scriptText = () => readFile(SCRIPT, "utf8");

/**
 * A stand-in for the collector, enough for the script's own behaviour.
 * `answer(hits)` decides for each request to /b: a status, {status, retryAfter}, "none" (the
 * connection breaks) or "hang" (until `release()`). `requests` holds every request to /b and /p.gif.
 */
export async function standIn() {
  const own = { requests: [], answer: () => 204, release: () => {} };
  const waiting = [];
  own.release = () => waiting.splice(0).forEach((go) => go());
  const { origin, stop } = await listen(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/m.js") {
      response.writeHead(200, { "content-type": "text/javascript; charset=utf-8" });
      return response.end(await scriptText());
    }
    let text = "";
    for await (const piece of request) text += piece;
    const parsed = url.pathname === "/b" ? JSON.parse(text) : Object.fromEntries(url.searchParams);
    const seen = {
      method: request.method, path: url.pathname, text, hits: [].concat(parsed),
      cookie: request.headers.cookie || "", type: request.headers["content-type"] || "", answered: 0,
      at: Date.now(),
    };
    own.requests.push(seen);
    let verdict = own.answer(seen.hits, seen);
    if (verdict === "none") return response.destroy();
    if (verdict === "hang") { await new Promise((go) => waiting.push(go)); verdict = 204; }
    const { status, retryAfter } = typeof verdict === "object" ? verdict : { status: verdict };
    seen.answered = status;
    // An image without a body would count as broken.
    response.writeHead(url.pathname === "/p.gif" && status === 204 ? 200 : status, {
      "access-control-allow-origin": request.headers.origin || "*",
      "access-control-allow-credentials": "true",
      "access-control-expose-headers": "retry-after, mikomi-dropped",
      ...(status === 204 && { "set-cookie": "mikomi=seen; Path=/; HttpOnly; SameSite=Lax" }),
      ...(retryAfter && { "retry-after": String(retryAfter) }),
      ...(url.pathname === "/p.gif" && { "content-type": "image/gif" }),
    });
    response.end(url.pathname === "/p.gif"
      ? Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64") : undefined);
  });
  /** Every hit that was answered with a 2xx, in order of arrival, repeats included. */
  own.kept = () => own.requests.filter((r) => r.answered >= 200 && r.answered < 300).flatMap((r) => r.hits);
  /** Every hit that arrived, whatever the answer. */
  own.hits = () => own.requests.flatMap((r) => r.hits);
  return Object.assign(own, { origin, stop });
}

/**
 * The demo site from its files, plus `pages` (path -> HTML), all under a strict Content Security
 * Policy whose nonce is "n". {{COLLECTOR}} and {{SITE}} are filled in.
 */
export async function webSite(collector, pages = {}, { siteKey = "demo" } = {}) {
  const policy = `default-src 'none'; script-src ${collector} 'nonce-n'; style-src 'self'; ` +
    `connect-src ${collector}; img-src 'self' ${collector}; form-action 'self'; base-uri 'none'`;
  const fill = (html) => html.replaceAll("{{COLLECTOR}}", collector).replaceAll("{{SITE}}", siteKey);
  return listen(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const file = extname(pathname) ? pathname : `${pathname.replace(/\/$/, "")}/index.html`;
    let text = pages[pathname];
    if (text === undefined) {
      const path = SITE + file.slice(1);
      text = path.includes("..") ? undefined : await readFile(path, "utf8").catch(() => undefined);
    }
    response.writeHead(text === undefined ? 404 : 200, {
      "content-type": TYPES[extname(pages[pathname] === undefined ? file : ".html")] || "text/html",
      "content-security-policy": policy,
    });
    response.end(fill(text === undefined ? "<title>404</title>" : text));
  });
}
