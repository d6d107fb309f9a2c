"""The loop with sales, whose side is played by Tryton, a real system, and the bridge to it.

Everybody lives in one time, which this moves: mikomi by its test clock, Tryton and the bridge by a
library that is loaded before them.
"""

import base64
import contextlib
import datetime
import decimal
import hashlib
import hmac
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse

from measure.common import (
    MET, MISSED, NO_RATES, ROOT, SECRET, CannotMeasure, Server, build, free_port, work_folder)

SFA = ROOT / "loadtest" / "sfa"
sys.path.insert(0, str(SFA))
from prepare import PASSWORDS, configure
from tryton import Refused, Tryton

JAPAN = datetime.timezone(datetime.timedelta(hours=9))
SITE = "https://www.vendor.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
TANAKA, SUZUKI = "tanaka@sample-seiki.example", "suzuki@other.example"
SATO = "sato@vendor.example"
COMPANY = "サンプル精機株式会社"
# The clock stands between two steps: a second attempt must not wait for it to move.
STEADY = {**NO_RATES, "MIKOMI__webhooks__retry_schedule_ms": ",".join(["0"] * 10)}
# For what must come, and for what must not.
PATIENCE_S, QUIET_S, LOOK_EVERY_S = 60, 3, 0.5


def loop(options):
    """from an unknown visitor to a deal in Tryton, lost there, and hot again by new evidence"""
    build("collector")
    tools = Tools(options.install)
    with work_folder() as folder, contextlib.ExitStack() as stack:
        story = Story(folder, tools, stack)
        for chapter in (reads, is_hot, is_taken, is_worked_on, is_lost, rests, is_hot_again,
                        hears_nothing_twice):
            chapter(story)
            if not all(story.looked):
                print(f"         what follows after \"{chapter.__name__}\" was not played")
                break
    print(f"figure   {len(story.looked)} things looked at, {story.looked.count(False)} "
          "not as told")
    return MET if all(story.looked) else MISSED


# ---------------------------------------------------------------- the story


def reads(story):
    her = story.tanaka
    story.at("2026-12-01 09:00")
    her.page("/column/dx", stay=70)
    story.at("2026-12-01 09:04")
    her.page("/case/line", stay=65)
    story.expect("nobody is known", [], lambda: story.get("/api/leads")["leads"])
    for when, path in (("09:30", "/product/a"), ("09:32", "/product/b"), ("09:34", "/product/c")):
        story.at(f"2026-12-04 {when}")
        her.page(path)
    story.at("2026-12-04 09:40")
    her.page("/pricing/", stay=80)
    story.at("2026-12-04 09:50")
    her.form("/thanks/document/guide", {
        "name": "田中 恵", "company": COMPANY, "department": "製造部", "title": "課長",
        "industry": "manufacturing"})
    her.expect_score(59.382)
    her.expect_stage("warm")
    story.expect("nothing in Tryton", [], her.deals)


def is_hot(story):
    her = story.tanaka
    story.at("2026-12-07 08:55")
    her.click(story.mail_link(her.mail))
    her.expect_score(57.925)
    story.expect("confirmed by", "mail_click", lambda: her.lead()["confirmed_by"])
    story.at("2026-12-07 08:56")
    her.page("/pricing/")
    her.expect_score(69.923)
    her.expect_stage("hot")
    story.expect("Tryton: leads", [["lead", None]], her.deals)
    story.expect("Tryton: its company", COMPANY, lambda: her.deal()["party."]["name"])
    story.expect("Tryton: its contact", her.mail, lambda: her.deal()["contact."]["value"])
    story.expect("Tryton: its title", f"【ホット】{COMPANY} 田中恵さん 69点（B1）",
                 lambda: her.deal()["description"])
    story.expect("Tryton: its first reason", "22.359  料金ページを閲覧 ×2",
                 lambda: her.deal()["comment"].splitlines()[0].strip())
    story.expect("Tryton: notes", ["lead.hot"], her.notes)
    story.pass_s(80)
    her.stay(80)
    her.expect_score(75.922)


def is_taken(story):
    her = story.tanaka
    story.at("2026-12-07 09:20")
    her.sato("write", {"employee": story.employee})
    her.expect_stage("accepted")
    story.expect("her owner", SATO, lambda: her.lead()["owner"])
    her.expect_answer("accepted", "accepted", "2026-12-07 09:20")
    story.at("2026-12-07 13:00")
    story.expect_still("no reminder", ["lead.hot"], her.notes)


def is_worked_on(story):
    her = story.tanaka
    story.at("2026-12-08 10:00")
    her.sato("write", {"amount": decimal.Decimal(1_200_000)})
    her.sato("opportunity")
    her.expect_stage("working")
    her.expect_answer("opportunity", "working", "2026-12-08 10:00")
    story.expect("of the deal", ["1", "opportunity", "1200000", "JPY"], lambda: [
        her.answer("opportunity")["opportunity"][it]
        for it in ("id", "stage", "amount", "currency")])
    story.at("2026-12-14 10:00")
    her.page("/pricing/")
    her.expect_score(74.730)
    story.expect("Tryton: notes", ["lead.hot", "lead.signal"], her.notes)
    story.expect("Tryton: leads", [["opportunity", SATO]], her.deals)


def is_lost(story):
    her = story.tanaka
    story.at("2026-12-21 10:00")
    her.expect_score(57.077)
    her.sato("lost")
    story.expect_still("her stage, before anybody says why", "working", her.stage)
    her.sato("write", {"lost_reason": "price"})
    her.expect_stage("recycled")
    her.expect_score(28.539)
    her.expect_answer("lost", "recycled", "2026-12-21 10:00", "price")
    story.expect("what it took", [-15.988, -12.550], lambda: sorted(
        row["now"] for row in her.lead()["score"]["rows"] if row["granted"] < 0))
    story.expect("Tryton: leads", [["lost", SATO]], her.deals)
    story.expect("Tryton: why", "price", lambda: her.deal()["lost_reason"])
    story.expect("Tryton: its history", ["lead", "opportunity", "lost"], her.history)


def rests(story):
    """Somebody else, lost at the same hour, does so much in January that it would be enough."""
    him = story.suzuki
    story.at("2026-12-21 10:01")
    him.form("/thanks/contact/ok", {"name": "鈴木 一郎"})
    story.expect("Suzuki: leads in Tryton", [["lead", None]], him.deals)
    him.sato("write", {"lost_reason": "timing"})
    him.sato("lost")
    story.expect("Suzuki: stage", "recycled", him.stage)
    story.expect("Suzuki: said by", SATO, lambda: him.answer("lost")["by"])
    story.at("2027-01-20 09:50")
    for path in ("/pricing/", "/case/line", "/thanks/document/guide", "/thanks/event/dx"):
        him.page(path, stay=65)
    story.expect("Suzuki: over the line", True, lambda: him.score() >= 60)
    story.at("2027-01-20 10:00")
    story.expect_still("nothing was told of him", [["lost", None]], him.deals)
    story.expect_still("nor of her", ["lead.hot", "lead.signal"], story.tanaka.notes)
    story.at("2027-01-20 10:01")
    story.expect("Suzuki: leads in Tryton, when his rest is over",
                 [["lost", None], ["lead", None]], him.deals)
    story.expect("Suzuki: stage", "hot", him.stage)
    story.tanaka.expect_stage("recycled")


def is_hot_again(story):
    her = story.tanaka
    story.at("2027-01-25 10:00")
    her.expect_score(8.418)
    her.page("/pricing/")
    her.expect_score(25.418)
    story.pass_s(80)
    her.stay(80)
    her.expect_score(31.417)
    her.page("/thanks/document/guide")
    her.expect_score(51.417)
    her.expect_stage("recycled")
    story.at("2027-01-25 10:05")
    her.page("/thanks/event/dx")
    her.expect_score(66.412)
    her.expect_stage("hot")
    story.expect("crossing", 2, lambda: her.line("hot")["number"])
    story.expect("Tryton: leads", [["lost", SATO], ["lead", None]], her.deals)
    story.expect("Tryton: notes", ["lead.hot"], her.notes)
    story.expect("Tryton: companies of that name", 1, lambda: len(
        story.tryton.find("party.party", [["name", "=", COMPANY]])))


def hears_nothing_twice(story):
    """Neither side is moved by what it knows, by what is late, or by what nobody signed."""
    her = story.tanaka
    alert, deals = her.alert(), her.deals()
    told = {"type": "lead.hot", "data": {
        "alert_id": alert, "lead": her.deal()["reference"] and {
            "id": her.deal()["reference"], "name": "田中 恵", "email": her.mail},
        "company": {"name": COMPANY}, "headline": {"ja": "また"}, "reasons": [],
        "links": {"timeline": None}}}
    port, hook = story.ports["bridge"], "/hook"
    story.expect("the message five times more", [204] * 5, lambda: [
        story.post_signed(port, hook, alert, told)[0] for _ in range(5)])
    story.expect("the same, forged", 401, lambda: story.post_signed(
        port, hook, alert, told, forged=True)[0])
    story.expect("Tryton: leads", deals, her.deals)
    story.expect("Tryton: notes", ["lead.hot"], her.notes)

    port, desk = story.server.port, "/s/feedback"
    older = {"id": "late", "lead": her.deal()["reference"], "kind": "accepted", "by": SATO,
             "at": "2026-12-10T01:00:00Z"}
    story.expect("an answer older than the last", [200, "older"], lambda: [
        (said := story.post_signed(port, desk, "late", older))[0], json.loads(said[1])["why"]])
    story.expect("one that is forged", 401, lambda: story.post_signed(
        port, desk, "late", {**older, "id": "forged"}, forged=True)[0])

    before = her.heard()
    sent = story.log("bridge").count('"repeated"')
    story.forget()
    story.expect("answers sent again by a bridge that forgot them", len(before) + 1,
                 lambda: story.log("bridge").count('"repeated"') - sent)
    story.expect_still("her answers", before, her.heard)
    her.expect_stage("hot")
    her.expect_score(66.412)


def same(expected, found):
    """Scores to a hundredth, all else exactly."""
    if isinstance(expected, float):
        return isinstance(found, (int, float)) and abs(expected - found) <= 0.01
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    return expected == found


class Story:
    """The people and machines of it, and what was expected and found."""

    def __init__(self, folder, tools, stack):
        self.looked, self.folder, self.tools, self.stack = [], folder, tools, stack
        self.offset = folder / "offset"
        self.ports = {"tryton": free_port(), "bridge": free_port()}
        begin = moment("2026-11-30 09:00")
        self.server = Server(
            folder / "mikomi", STEADY, self.ports["bridge"], clock_ms=begin)
        self.move_sales(begin)
        stack.enter_context(self.server)
        self.start_tryton()
        self.bridge = self.start_bridge()
        self.tanaka, self.suzuki = Person(self, TANAKA), Person(self, SUZUKI)
        self.now = "2026-11-30 09:00"

    # Time.

    def at(self, when):
        self.now = when
        self.move(moment(when) - self.server.clock_ms)

    def pass_s(self, seconds):
        self.move(seconds * 1000)
        self.now = text(self.server.clock_ms)

    def move(self, ms):
        # Sales first: what mikomi sends at that moment must not come from the future.
        self.move_sales(self.server.clock_ms + ms)
        if ms:
            self.server.move_clock(ms)

    def move_sales(self, ms):
        ahead = ms / 1000 - time.time()
        whole = self.offset.with_suffix(".new")
        whole.write_text(f"{ahead:+.3f}\n")
        whole.rename(self.offset)

    # Machines.

    def start(self, name, command, **more):
        log = open(self.folder / f"{name}.log", "ab")
        self.stack.callback(log.close)
        environment = {**os.environ, **self.tools.in_time_of(self.offset), **more}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment,
                                   cwd=self.folder)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def start_tryton(self):
        shutil.copy(self.tools.trial / "sfa.sqlite", self.folder)
        configuration, port = configure(self.folder), self.ports["tryton"]
        process = self.start(
            "tryton", [self.tools.program("trytond"), "-c", str(configuration), "-d", "sfa"],
            TRYTOND_WEB__LISTEN=f"127.0.0.1:{port}")
        # Two of its users: what is looked at must not count as what Sato does.
        self.tryton, self.sato_of = (
            Tryton(f"http://127.0.0.1:{port}", "sfa", user, PASSWORDS[user])
            for user in ("admin", "sato"))
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self.sato_of.log_in()
                break
            if process.poll() is not None or time.monotonic() > until:
                raise CannotMeasure("Tryton did not start:\n" + self.log("tryton")[-2000:])
            time.sleep(0.1)
        self.employee = self.sato_of.preferences["employee"]

    def start_bridge(self):
        settings = (SFA / "bridge.toml").read_text()
        for shipped, ours in (
                ("127.0.0.1:8083\"", f"127.0.0.1:{self.ports['bridge']}\""),
                ("http://127.0.0.1:8080/", f"http://127.0.0.1:{self.server.port}/"),
                ("http://127.0.0.1:8000", f"http://127.0.0.1:{self.ports['tryton']}"),
                ("look_every_s = 5 ", f"look_every_s = {LOOK_EVERY_S} ")):
            if settings.count(shipped) < 1:
                raise CannotMeasure(f"bridge.toml has no {shipped}")
            settings = settings.replace(shipped, ours)
        (self.folder / "bridge.toml").write_text(settings)
        return self.start("bridge", [self.tools.program("python"), str(SFA / "bridge.py"),
                                     str(self.folder / "bridge.toml")],
                          MIKOMI_SECRET=SECRET, TRYTON_PASSWORD=PASSWORDS["mikomi"])

    def forget(self):
        """The bridge loses its memory of what it answered, and begins anew."""
        self.bridge.kill()
        self.bridge.wait()
        (self.folder / "bridge.sqlite").unlink()
        self.bridge = self.start_bridge()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # What is expected.

    def expect(self, what, expected, look):
        """What must come to be, soon."""
        until = time.monotonic() + PATIENCE_S
        while True:
            found = self.found(look)
            if same(expected, found) or time.monotonic() > until:
                return self.say(what, expected, found)
            time.sleep(0.1)

    def expect_still(self, what, expected, look):
        """What must not change, though there is time for it."""
        until = time.monotonic() + QUIET_S
        while same(expected, found := self.found(look)) and time.monotonic() < until:
            time.sleep(0.1)
        self.say(what, expected, found)

    def found(self, look):
        try:
            return look()
        except (CannotMeasure, Refused, OSError, LookupError, TypeError) as failure:
            return f"{type(failure).__name__}: {failure}"

    def say(self, what, expected, found):
        met = same(expected, found)
        self.looked.append(met)
        print(f"  {'met   ' if met else 'MISSED'}  {self.now}  {what}: {shown(expected)}"
              + ("" if met else f", found {shown(found)}"), flush=True)

    # Speaking to both.

    def get(self, path):
        return json.loads(self.server.admin(path))

    def mail_link(self, mail):
        made = json.loads(self.server.admin("/api/mail-links", json.dumps({
            "site": "demo", "mail": "newsletter-2026-12", "title": "ライン自動化キャンペーン",
            "url": f"{SITE}/lp/line-automation", "to": [{"email": mail}]})))
        return made["links"][0]["url"]

    def post_signed(self, port, path, name, value, forged=False):
        """Standard Webhooks by its text; the status and the body of the answer."""
        body, stamp = json.dumps(value), str(self.server.clock_ms // 1000)
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        tag = hmac.new(key, f"{name}.{stamp}.{body}".encode(), hashlib.sha256).digest()
        return self.server.ask(port, path, {
            "content-type": "application/json", "webhook-id": name, "webhook-timestamp": stamp,
            "webhook-signature": "v1," + base64.b64encode(tag[::-1] if forged else tag).decode(),
        }, body)


def shown(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def moment(when):
    return round(datetime.datetime.strptime(when, "%Y-%m-%d %H:%M").replace(
        tzinfo=JAPAN).timestamp() * 1000)


def moment_of(iso):
    return round(datetime.datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp() * 1000)


def text(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, JAPAN).strftime("%Y-%m-%d %H:%M")


class Person:
    """One with a browser, which speaks as the page script makes it; and what both sides know."""

    def __init__(self, story, mail):
        self.story, self.mail = story, mail
        self.jar, self.sent, self.url, self.nonce = {}, 0, "", ""

    # What they do.

    def page(self, path, stay=None):
        self.url = SITE + path
        self.nonce = f"{self.mail}-page-{self.sent}"
        self.send({"e": "page_view"})
        if stay:
            self.story.pass_s(stay)
            self.stay(stay)

    def stay(self, seconds):
        self.send({"e": "engagement", "ms": seconds * 1000, "sc": 80})

    def form(self, thanks, attributes):
        self.url = SITE + thanks
        self.send({"e": "identify", "id": {"email": self.mail, "attributes": attributes}})
        self.page(thanks)

    def click(self, link):
        """On a link of ours in a mail; it leads on at once."""
        parts = urllib.parse.urlsplit(link)
        status, headers = self.ask("GET", parts.path)
        where = headers.get("location") or ""
        if status != 302 or not where.startswith(SITE):
            raise CannotMeasure(f"a signed link answers {status} {where}")

    def send(self, more):
        self.sent += 1
        now = self.story.server.clock_ms
        hit = {"s": "demo", "u": self.url, "n": self.nonce, "i": f"{self.mail}-{self.sent}",
               "at": now, "st": now, **more}
        status, headers = self.ask("POST", "/b", json.dumps(hit))
        if status != 204 or headers.get("mikomi-dropped"):
            raise CannotMeasure(f"a hit was answered {status} {headers.get('mikomi-dropped')}")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.story.server.port, timeout=60)
        try:
            headers = {"user-agent": AGENT, "origin": SITE, "content-type": "text/plain"}
            if self.jar:
                headers["cookie"] = "; ".join(f"{name}={it}" for name, it in self.jar.items())
            connection.request(method, path, body and body.encode(), headers)
            answer = connection.getresponse()
            answer.read()
            for line in answer.headers.get_all("set-cookie") or []:
                name, _, value = line.split(";")[0].partition("=")
                self.jar[name] = value
            return answer.status, answer.headers
        finally:
            connection.close()

    # What mikomi knows of them.

    def lead(self, more=""):
        found = self.story.get(f"/api/leads/by?site=demo&email={urllib.parse.quote(self.mail)}")
        return self.story.get(f"/api/leads/{found['lead']}{more}")

    def score(self):
        return self.lead()["score"]["exact"]

    def stage(self):
        return self.lead()["stage"]["id"]

    def line(self, name):
        line, = (it for it in self.lead("/why")["thresholds"] if it["threshold"] == name)
        return line

    def answers(self):
        """What sales said, oldest first, as the timeline has it."""
        events = self.lead("/timeline")["events"]
        return [event for event in reversed(events) if "stage" in event and "by" in event]

    def heard(self):
        return [[answer["event"], answer["at"]] for answer in self.answers()]

    def answer(self, kind):
        return [event for event in self.answers() if event["event"] == kind][-1]

    def expect_score(self, expected):
        self.story.expect("her score", expected, self.score)

    def expect_stage(self, expected):
        self.story.expect("her stage", expected, self.stage)

    def expect_answer(self, kind, stage, when, reason=None):
        """What mikomi wrote down of an answer; to the minute, since Tryton's clock goes on."""
        def look():
            answer = self.answer(kind)
            return [answer["by"], answer["stage"], answer["reason"],
                    abs(moment_of(answer["at"]) - moment(when)) < 60_000]
        self.story.expect(f"the answer \"{kind}\"", [SATO, stage, reason, True], look)

    # What Tryton knows of them, and what Sato does about it.

    def find_deals(self):
        return self.story.tryton.find(
            "sale.opportunity", [["contact.value", "=", self.mail]], "state", "reference",
            "employee.party.email", "party.name", "contact.value", "description", "comment",
            "lost_reason")

    def deal(self):
        return self.find_deals()[-1]

    def deals(self):
        """Where each stands, and with whom."""
        return [[deal["state"], deal["employee."] and deal["employee."]["party."]["email"]]
                for deal in self.find_deals()]

    def note_ends(self):
        """The last lines of the notes on the newest: the kind of the message, and its id."""
        found = self.story.tryton.find(
            "ir.note", [["resource", "=", f"sale.opportunity,{self.deal()['id']}"]], "message")
        return [note["message"].splitlines()[-1].split() for note in found]

    def notes(self):
        return [kind for kind, _ in self.note_ends()]

    def alert(self):
        return self.note_ends()[-1][1]

    def history(self):
        """The states that the newest went through."""
        call, deal = self.story.tryton.call, self.deal()["id"]
        times = call("sale.opportunity", "history_revisions", [deal])
        states = [call("sale.opportunity", "read", [deal], ["state"], _datetime=at)[0]["state"]
                  for at, *_ in reversed(times)]
        return [state for place, state in enumerate(states) if states[:place][-1:] != [state]]

    def sato(self, method, *arguments):
        """Sato does something with the newest, as with his own program."""
        self.story.sato_of.call("sale.opportunity", method, [self.deal()["id"]], *arguments)


# ---------------------------------------------------------------- what the sales side is made of


class Tools:
    """Tryton and the rest in an environment of their own, and a Tryton to copy, made once."""

    def __init__(self, install):
        made_of = b"".join((SFA / name).read_bytes() for name in ("requirements.txt", "prepare.py"))
        self.folder = ROOT / ".measure" / f"sfa-{hashlib.sha256(made_of).hexdigest()[:8]}"
        self.trial = self.folder / "trial"
        if not (self.folder / "ready").exists():
            if not install:
                raise CannotMeasure("Tryton is missing: say --install (PyPI, into .measure/)")
            self.install()

    def program(self, name):
        return str(self.folder / "venv" / "bin" / name)

    def install(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for command in (
                [sys.executable, "-m", "venv", str(self.folder / "venv")],
                [self.program("pip"), "install", "-q", "--disable-pip-version-check",
                 "-r", str(SFA / "requirements.txt")],
                [self.program("python"), str(SFA / "prepare.py"), str(self.trial)]):
            if subprocess.run(command).returncode != 0:
                raise CannotMeasure(f"this failed: {' '.join(command)}")
        (self.folder / "ready").touch()

    def in_time_of(self, offset):
        """What makes a program live so many seconds ahead as a file says."""
        library, = (self.folder / "venv").glob(
            "lib/python*/site-packages/libfaketime/vendor/libfaketime/src/libfaketime.so.1")
        return {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset),
                "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
