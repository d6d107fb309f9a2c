/* mikomi's page script, served as it is.
   <script defer src="https://COLLECTOR/m.js" data-site="KEY"></script>
     data-consent="denied": all waits in memory for mikomi.consent(true). "granted": it is given
     data-fields='{"field name or css": "attribute"}': more form fields to read
     on a form: data-mikomi-kiosk: many use this browser, it stays nobody's. data-mikomi-ignore
   mikomi.event(name, properties)  .identify({email, user_id}, attributes)  .reset()  .page()
         .consent(true | false)  .optOut()  .optIn()        Before the script has loaded:
   window.mikomi = window.mikomi || {q: []};  mikomi.q.push(["event", "download", {file: "guide"}]);
   With Global Privacy Control, optOut() or consent(false) nothing is sent or stored. */
(function () {
  "use strict";
  const script = document.currentScript;
  const stub = window.mikomi || {};
  if (!script || stub.page) return;

  const HOME = new URL(script.src).origin;
  const HITS_MAX = 100;
  const QUEUE_BYTES_MAX = 65536;
  const REQUEST_BYTES_MAX = 50000;            // keepalive allows 64 KiB
  const TEXT_MAX = 2000;
  const KEPT_MS = 7 * 86400000;
  const BACKOFF_MAX_MS = 300000;
  const STALE_MS = 900000;                    // a tab so silent is dead
  const ASKED_MAX_MS = 3600000;
  const ANSWER_MS = 20000;
  const TITLE_MS = 300;
  const GREW_MS = 3000;
  const STEPS_MS = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600].map((s) => s * 1000);
  const KEY = "mikomi_q_";
  const OUT = "mikomi_optout";

  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(8)),
    (byte) => (byte + 256).toString(16).slice(1)).join("");
  // Nothing may throw into the page.
  const safe = (run) => function () {
    try { return run.apply(this, arguments); } catch (error) { return null; }
  };
  const on = (target, names, run, options) =>
    names.split(" ").forEach((name) => target.addEventListener(name, safe(run), options));
  const store = safe(() => window.localStorage)();
  const mine = KEY + random();

  // 1: given. 0: refused. null: to be asked for. undefined: the collector knows.
  let consent = { granted: 1, denied: null }[script.dataset.consent];
  let out = false;
  let queue = [];
  let sending = [];
  let answered = false;                       // until then one hit goes alone, for the cookie
  let failures = 0;
  let until = 0;
  let asked = 0;
  let saved = 0;
  let left = false;
  let timer, naming, ticking, scrolling;
  let view = null;

  const off = () => navigator.globalPrivacyControl || consent === 0 || out ||
    store && store.getItem(OUT);
  const held = () => consent === null || off();

  const bytes = (value) => new Blob([JSON.stringify(value)]).size;
  const part = (hits, most, room) =>
    hits.slice(0, most).filter((hit) => (room -= bytes(hit) + 40) > 0);
  const keys = () => Object.keys(store || {}).filter((key) => key.startsWith(KEY));

  const save = safe(() => {
    if (!store || held()) return;
    if (queue.length) {
      saved = Date.now();
      store.setItem(mine, JSON.stringify({ t: left ? 0 : saved, w: asked, q: queue }));
    } else if (saved) {
      saved = 0;
      store.removeItem(mine);
    }
  });

  function wake() {
    if (saved && (left || Date.now() - saved > STALE_MS) && !store.getItem(mine)) queue = [];
  }

  function adopt() {
    if (held()) return;
    keys().forEach(safe((key) => {
      const old = safe(JSON.parse)(store.getItem(key)) || { q: [] };
      if (key === mine || Date.now() - old.t < STALE_MS) return;
      store.removeItem(key);
      const fresh = old.q.filter((hit) => Date.now() - hit.at < KEPT_MS);
      const taken = part(fresh, HITS_MAX - queue.length, QUEUE_BYTES_MAX - bytes(queue));
      old.q = fresh.slice(taken.length);
      if (old.q.length) store.setItem(key, JSON.stringify(old));
      queue = taken.concat(queue);
      until = asked = Math.max(asked, old.w || 0);
    }));
    save();
  }

  // One page at a time adopts.
  function alone(then) {
    const both = (lock) => { if (lock) safe(adopt)(); safe(then)(); };
    if (navigator.locks) {
      navigator.locks.request("mikomi", { ifAvailable: true }, both).catch(() => both(0));
    } else both(1);
  }

  function record(name, more) {
    wake();
    const hit = { s: script.dataset.site, e: name, u: view.u, i: random(), n: view.n, at: Date.now() };
    // A copy; half a surrogate pair is no text.
    const copy = JSON.parse(JSON.stringify(Object.assign(hit, more), (key, value) =>
      typeof value === "string" ? value.replace(/[\ud800-\udfff]/gu, "\ufffd") : value));
    if (off() || queue.length >= HITS_MAX || bytes(copy) > REQUEST_BYTES_MAX - 100 ||
      bytes(queue) + bytes(copy) > QUEUE_BYTES_MAX) return null;
    queue.push(copy);
    save();
    later(0);
    return copy;
  }

  function forget() {
    queue = [];
    saved = 0;
    if (view) view.hit = null;
    keys().forEach((key) => store.removeItem(key));
  }

  function body(hits) {
    const all = hits.map((hit) =>
      Object.assign({}, hit, { st: Date.now() }, consent === 1 && { c: 1 }));
    return JSON.stringify(all.length > 1 ? all : all[0]);
  }

  function later(ms) {
    clearTimeout(timer);
    timer = setTimeout(safe(send), Math.min(ms, BACKOFF_MAX_MS));
  }

  function send() {
    if (sending.length || naming || held()) return;
    wake();
    if (!queue.length) return;
    if (Date.now() < until) return later(until - Date.now());
    sending = part(queue, answered ? HITS_MAX : 1, REQUEST_BYTES_MAX);
    if (!sending.length) return;
    (window.fetch ? post : pixel)(sending).then(safe(settle), () => safe(settle)());
  }

  // Text needs no preflight.
  const post = (hits) => fetch(HOME + "/b", {
    method: "POST", body: body(hits), keepalive: true, credentials: "include", priority: "low",
    signal: window.AbortSignal && AbortSignal.timeout && AbortSignal.timeout(ANSWER_MS),
  });

  // Without fetch: no dwell, no identity.
  const pixel = (hits) => Promise.all(hits.filter((hit) => !hit.ms && !hit.id).map((hit) =>
    new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = resolve;
      image.onerror = reject;
      image.src = HOME + "/p.gif?" + new URLSearchParams(safe(JSON.parse)(body([hit])));
    }))).then(() => ({ status: 200 }));

  function settle(answer) {
    const status = answer ? answer.status : 0;
    const now = Date.now();
    if (status < 200 || status === 429 || status > 499) {
      const after = answer && answer.headers.get("retry-after");
      const ms = Math.min(ASKED_MAX_MS, after * 1000 || Date.parse(after) - now || 0);
      asked = ms > 0 ? now + ms * (1 + Math.random() / 10) : 0;
      until = asked ||
        now + Math.min(BACKOFF_MAX_MS, 1000 * 2 ** failures++) * (0.5 + Math.random() / 2);
    } else {
      answered = answered || status < 400;
      failures = until = asked = 0;
      queue = queue.filter((hit) => !sending.includes(hit));
    }
    sending = [];
    save();
    if (until) send();
    else alone(send);
  }

  // Nobody answers a beacon, so it is used only while all is well. Dwell then counts as
  // delivered; the rest stays queued: a repeated id does no harm.
  function leave() {
    dwell();
    const rest = part(queue.filter((hit) => !sending.includes(hit)), HITS_MAX, REQUEST_BYTES_MAX);
    if (rest.length && (store ? answered && !until : !asked) && !held() &&
      navigator.sendBeacon(HOME + "/b", body(rest))) {
      queue = queue.filter((hit) => !rest.includes(hit) || store && hit.e !== "engagement");
    }
    save();
  }

  // A form sent by GET leaves its fields in the address.
  function clean(url) {
    const [path, query] = url.split("#")[0].split(/\?(.*)/);
    const kept = (query || "").split("&").filter((pair) => pair && !/@|%40/.test(pair) &&
      !personal(words(pair.split("=")[0]))).join("&");
    return (kept && url.length < TEXT_MAX ? path + "?" + kept : path).slice(0, TEXT_MAX);
  }

  const address = () => clean(location.href);

  function page(referrer) {
    dwell();
    named();
    view = { u: address(), n: random(), ms: 0, told: 0, sc: 0 };
    view.hit = record("page_view", { t: document.title.slice(0, 300), r: clean(referrer) });
    tick();
  }

  function named() {
    if (!naming) return;
    clearTimeout(naming);
    naming = 0;
    if (view.hit) view.hit.t = document.title.slice(0, 300);
    save();
    send();
  }

  function moved(replaced) {
    if (address() === view.u) return;
    if (replaced && naming && view.hit) {
      view.u = view.hit.u = address();        // a redirecting router
      clearTimeout(naming);
    } else page(view.u);
    naming = setTimeout(safe(named), TITLE_MS);
  }

  function tick() {
    const now = performance.now();
    // The computer may have slept.
    if (view.since && view.slice) view.ms += Math.min(now - view.since, view.slice + 1000);
    view.ms = Math.min(view.ms, STEPS_MS[STEPS_MS.length - 1]);
    view.since = document.visibilityState === "visible" && document.hasFocus() ? now : 0;
    if (view.ms >= STEPS_MS.find((step) => step > view.told)) tell();
    view.slice = STEPS_MS.find((step) => step > view.ms) - view.ms;
    clearTimeout(ticking);
    if (view.since && view.slice) ticking = setTimeout(safe(tick), Math.ceil(view.slice));
  }

  function tell() {
    depth();
    view.told = view.ms;
    record("engagement", { ms: Math.round(view.ms), sc: view.sc });
  }

  function dwell() {
    if (!view) return;
    tick();
    if (view.hit && view.ms - view.told >= GREW_MS) tell();
  }

  function depth() {
    scrolling = 0;
    const seen = (scrollY + innerHeight) / (document.documentElement.scrollHeight || 1);
    view.sc = Math.max(view.sc, Math.min(100, Math.round(seen * 100)));
  }

  // Forms: only what is listed is read.

  const NEVER = /pass|pwd|secret|token|card|cv[vc]|cc_|kana|furi|yomi|カード|[カガ]ナ|[かが]な|仮名|fax|件名/;
  const KNOWN = {
    email: /(^|_)e?_?mail(_?address)?\d*$|メール/,
    phone: /(^|_)(tel|phone|mobile)(_?(number|national|\d))?$|電話|携帯/,
    title: /(^|_)(title|position)$|役職|肩書/,
    department: /(^|_)(department|dept|division)(_?name)?$|部署|部門|所属/,
    company: /(^|_)(company|organi[sz]ation)(_?name)?$|社名|企業名|団体名|法人名|勤務先|^会社$/,
    given: /(^|_)(last|family|sur|sei|first|given|mei)(_?name)?$|^[姓氏名](_|$)/,
    name: /^((your|full|contact)_?)?name$|氏名|名前|担当者/,
  };
  const extra = safe(JSON.parse)(script.dataset.fields || "{}") || {};

  const words = (text) => String(text || "").replace(/([a-z])([A-Z])/g, "$1_$2").toLowerCase()
    .replace(/必須|任意|required|optional|[^a-z0-9\u3040-\u9fff]+/g, "_").replace(/^_+|_+$/g, "");

  const known = (mark) => Object.keys(KNOWN).find((key) => KNOWN[key].test(mark));
  const never = (mark) => NEVER.test(mark);
  const personal = (mark) => never(mark) || known(mark);

  function attribute(field) {
    const label = field.labels && field.labels[0];
    // A label may enclose its field, options and all.
    const says = label && Array.from(label.childNodes)
      .map((node) => node.contains(field) ? "" : node.textContent).join(" ");
    const marks = [field.autocomplete, field.name, field.id,
      says || field.getAttribute("aria-label") || field.placeholder].map(words);
    if (/password|hidden|file|submit|button/.test(field.type) || marks.some(never)) return null;
    const own = Object.keys(extra).find((key) => field.name === key || safe(() => field.matches(key))());
    if (own) return extra[own];
    if (/radio|checkbox|textarea/.test(field.type)) return null;
    return known(marks.find(known)) || { email: "email", tel: "phone" }[field.type];
  }

  function submitted(event) {
    const form = event.target, call = Element.prototype;
    if (call.closest.call(form, "[data-mikomi-ignore]")) return;
    const found = {};
    for (const field of call.querySelectorAll.call(form, "input,select,textarea")) {
      const key = attribute(field);
      const chosen = field.selectedOptions && key in KNOWN && field.value && field.selectedOptions[0];
      const text = (chosen ? chosen.text : field.value).normalize("NFKC").trim().slice(0, 200);
      if (!key || !text || field.checked === false && /radio|checkbox/.test(field.type)) continue;
      (found[key] = found[key] || []).push(text);
    }
    const who = {};
    Object.keys(found).forEach((key) => { who[key] = found[key][0]; });
    const email = who.email;
    delete who.email;
    delete who.given;
    if (found.given && !who.name) who.name = found.given.join(" ");
    if (who.phone && who.phone.length < 6) who.phone = found.phone.join("-");
    // More digits: a card.
    if (who.phone && who.phone.replace(/\D/g, "").length > 13) delete who.phone;
    if (/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(email)) {
      const kiosk = call.closest.call(form, "[data-mikomi-kiosk]") ? true : undefined;
      calls.identify({ email, kiosk }, who);
    }
  }

  const again = () => view.hit ? save() || later(0) : page(document.referrer);
  const calls = {
    event(name, properties) { if (name) record(String(name).slice(0, 100), { p: properties }); },
    identify(who, attributes) { record("identify", { id: Object.assign({}, who, { attributes }) }); },
    reset() { record("reset"); },
    page() { page(view.u); },
    consent(yes) { consent = yes ? 1 : 0; (yes ? again : forget)(); },
    optOut() { forget(); out = true; if (store) store.setItem(OUT, "1"); },
    optIn() { out = false; if (store) store.removeItem(OUT); again(); },
  };
  const early = Array.isArray(stub.q) ? stub.q : [];
  const call = safe((one) => { view ? calls[one[0]](...one.slice(1)) : early.push(one); });
  window.mikomi = { q: { push: (...all) => all.forEach((one) => call(one)) } };
  Object.keys(calls).forEach((name) => { window.mikomi[name] = (...all) => call([name, ...all]); });

  function begin() {
    if (off()) forget();
    page(document.referrer);
    early.forEach((one) => call(one));
    later(0);
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function () {
        const result = original.apply(this, arguments);
        safe(moved)(name === "replaceState");
        return result;
      };
    }
    on(window, "popstate", () => moved());
    on(window, "focus blur", tick);
    on(document, "visibilitychange", () => (document.hidden ? leave : tick)());
    on(window, "pagehide", () => { left = true; leave(); });
    on(window, "pageshow", (event) => {
      if (!event.persisted) return;
      wake();
      left = false;
      page(document.referrer);
    });
    on(window, "online", () => { until = asked; send(); });
    on(window, "scroll", () => { scrolling = scrolling || requestAnimationFrame(safe(depth)); },
      { passive: true });
    on(document, "submit", submitted, true);
  }

  const start = () => alone(begin);
  // visibilitychange would come too early.
  if (document.prerendering) on(document, "prerenderingchange", start, { once: true });
  else safe(start)();
})();
