#!/usr/bin/env python3
"""The two ways between mikomi and a sales system, here Tryton. A start for your own.

  python bridge.py bridge.toml

In: each webhook is checked and becomes a lead with a note, or a note on the lead or deal that is
open already. Whatever is delivered twice is there once: the lead is found by mikomi's id in its
reference, the note by the message's id in its text.

Out: what people do in Tryton is read from its history, and each change that means something is
answered to mikomi under an id that follows from the change. So nothing is lost while this is not
running, and nothing counts twice, however often it is sent.
"""

import contextlib
import datetime
import http.server
import json
import os
import pathlib
import sqlite3
import sys
import time
import tomllib
import urllib.error
import urllib.request

from standardwebhooks import Webhook, WebhookVerificationError
from tryton import Refused, Tryton

BODY_BYTES_MAX = 1_048_576
# Whoever connects and says nothing holds up the next for so long.
SILENT_S = 10
# Looked back on again: a change is dated when its transaction began, and seen when it ended.
LOOK_BACK = datetime.timedelta(minutes=30)
OPEN = ["lead", "opportunity", "converted"]
# What makes a lead where none is open; the others are notes on one that is.
BEGINS = ("lead.hot", "lead.action")
NOTES = BEGINS + (
    "lead.escalated", "lead.signal", "lead.reminder", "lead.cooled", "alert.retracted")


class Incoming:
    """What mikomi tells, into Tryton."""

    def __init__(self, tryton):
        self.tryton = tryton

    def take(self, message):
        kind, data = message["type"], message["data"]
        if kind == "lead.merged":
            self.follow(data["from"], data["into"])
        if kind not in NOTES:
            return
        deal = self.open_deal(data["lead"]["id"])
        if deal is None and kind in BEGINS:
            deal = self.begin(data)
        if deal is not None:
            self.note(deal, kind, data)

    def open_deal(self, lead):
        """One that is lost or cancelled stays so: whoever is hot again is a new lead."""
        found = self.tryton.find("sale.opportunity", [
            ["reference", "=", lead], ["state", "in", OPEN]])
        return found[-1]["id"] if found else None

    def begin(self, data):
        party, contact = self.customer(data["lead"], data["company"] or {})
        deal, = self.tryton.call("sale.opportunity", "create", [{
            "reference": data["lead"]["id"],
            "party": party,
            "contact": contact,
            "description": data["headline"]["ja"],
            "comment": "\n".join(
                f"{reason['points']:7.3f}  {reason['label']['ja']} ×{reason['times']}"
                for reason in data["reasons"] if reason.get("label")),
        }])
        return deal

    def customer(self, lead, company):
        """The company, and in it the person by mail; those of an earlier lead, if there are."""
        mail = lead["email"]
        known = mail and self.tryton.find("party.contact_mechanism", [
            ["type", "=", "email"], ["value", "=", mail]], "party")
        if known:
            return known[0]["party"], known[0]["id"]
        contact = {"type": "email", "value": mail, "name": lead["name"]}
        party, = self.tryton.call("party.party", "create", [{
            "name": company.get("name") or lead["name"] or mail or lead["id"],
            "contact_mechanisms": [["create", [contact]]] if mail else [],
        }])
        made = self.tryton.find("party.contact_mechanism", [["party", "=", party]])
        return party, made[0]["id"] if made else None

    def note(self, deal, kind, data):
        place, alert = f"sale.opportunity,{deal}", data["alert_id"]
        if self.tryton.find("ir.note", [
                ["resource", "=", place], ["message", "like", f"%{alert}%"]]):
            return
        text = f"{data['headline']['ja']}\n{data['links']['timeline'] or ''}\n{kind} {alert}"
        self.tryton.call("ir.note", "create", [{"resource": place, "message": text}])

    def follow(self, old, new):
        """Two of mikomi's leads are one person."""
        found = self.tryton.find("sale.opportunity", [["reference", "=", old]])
        if found:
            self.tryton.call("sale.opportunity", "write", [deal["id"] for deal in found],
                             {"reference": new})


class Answers:
    """What sales did in Tryton, to mikomi."""

    FIELDS = ("number", "reference", "description", "state", "amount", "currency.code",
              "lost_reason", "employee.party.email", "create_uid", "write_uid", "write_uid.email")

    def __init__(self, tryton, settings, secret):
        self.tryton, self.webhook = tryton, Webhook(secret)
        self.url, self.words = settings["mikomi"]["answers"], settings["answers"]
        self.patience = datetime.timedelta(seconds=settings["tryton"]["reason_within_s"])
        self.look_back = self.patience + LOOK_BACK
        self.memory = sqlite3.connect(settings["tryton"]["memory"], isolation_level=None)
        self.memory.execute("CREATE TABLE IF NOT EXISTS given (id TEXT PRIMARY KEY, at TEXT)")
        self.own, self.looked_at = None, {}

    def look(self):
        if self.own is None:
            self.own = self.tryton.find("res.user", [["login", "=", self.tryton.user]])[0]["id"]
        deals = self.changed()
        waiting = set()
        for at, name, deal, before, after, now in sorted(
                (change for deal in deals for change in self.changes(deal)), key=lambda it: it[0]):
            for word in self.meant(before, after):
                if word == "lost" and not now["lost_reason"] and utc() - at < self.patience:
                    waiting.add(deal)
                else:
                    self.give(at, f"{name}-{word}", word, after, now)
        self.looked_at.update((deal, at) for deal, at in deals.items() if deal not in waiting)

    def changed(self):
        """What came from mikomi and was changed since it was last looked at, and when it was."""
        last, = self.memory.execute("SELECT max(at) FROM given").fetchone()
        since = datetime.datetime.min
        if last:
            since = datetime.datetime.fromisoformat(last) - self.look_back
        found = self.tryton.find("sale.opportunity", [
            ["reference", "like", "L%"], ["write_date", ">=", since]], "write_date")
        return {deal["id"]: deal["write_date"] for deal in found
                if self.looked_at.get(deal["id"]) != deal["write_date"]}

    def changes(self, deal):
        """Each change by people: when, its name, whose, before, after, and as all is now."""
        times = [at for at, *_ in self.tryton.call("sale.opportunity", "history_revisions", [deal])]
        now, before = self.read(deal), {}
        for number, at in enumerate(reversed(times)):
            after = self.read(deal, _datetime=at)
            if (after["write_uid"] or after["create_uid"]) != self.own:
                yield at, f"tryton-{deal}-{number}", deal, before, after, now
            before = after

    def read(self, deal, **context):
        return self.tryton.call("sale.opportunity", "read", [deal], list(self.FIELDS), **context)[0]

    def meant(self, before, after):
        """What of a change means something, in Tryton's words."""
        if after["employee."] and not before.get("employee."):
            yield "taken"
        if after["state"] != before.get("state", "lead"):
            yield after["state"]

    def give(self, at, answer_id, word, after, now):
        kind = self.words.get(word)
        if kind is None or self.memory.execute(
                "SELECT 1 FROM given WHERE id = ?", [answer_id]).fetchone():
            return
        amount = after["amount"]
        body = json.dumps({
            "id": answer_id,
            "lead": now["reference"],
            "kind": kind,
            "by": self.who(after),
            "at": at.isoformat(timespec="milliseconds") + "Z",
            "reason": now["lost_reason"] if word == "lost" else None,
            "until": None,
            "opportunity": None if word == "taken" else {
                "id": after["number"], "name": after["description"], "stage": after["state"],
                "amount": None if amount is None else str(amount),
                "currency": after["currency."]["code"],
                "budget": None, "authority": None, "need": None, "timeline": None,
            },
        }, ensure_ascii=False)
        said = self.send(answer_id, body)
        self.memory.execute("INSERT INTO given VALUES (?, ?)", [answer_id, at.isoformat()])
        print(f"{answer_id} {kind}: {said}", flush=True)

    def who(self, row):
        """Whose lead it is by the change, or who made the change where it is nobody's."""
        person = row["employee."] and row["employee."]["party."] or row["write_uid."] or {}
        return person.get("email")

    def send(self, answer_id, body):
        """What mikomi says; raises what is worth trying again."""
        now = datetime.datetime.now(datetime.timezone.utc)
        request = urllib.request.Request(self.url, body.encode(), {
            "content-type": "application/json",
            "webhook-id": answer_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self.webhook.sign(answer_id, now, body),
        })
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as refusal:
            # A wrong key can be put right, a full server has room again; what is wrong with the
            # answer itself stays wrong.
            if refusal.code in (401, 403, 408, 429) or refusal.code >= 500:
                raise
            return f"{refusal.code} {refusal.read().decode(errors='replace')}"


def utc():
    """As Tryton dates: UTC, without saying so."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def receiver(address, incoming, secret):
    webhook = Webhook(secret)

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = SILENT_S

        def do_POST(self):
            self.send_response(self.take())
            self.send_header("content-length", "0")
            self.end_headers()

        def take(self):
            size = self.headers.get("content-length", "")
            if not size.isdigit() or int(size) > BODY_BYTES_MAX:
                return 413
            body = self.rfile.read(int(size))
            try:
                incoming.take(webhook.verify(body, dict(self.headers)))
            except WebhookVerificationError as forged:
                print(f"refused: {forged}", flush=True)
                return 401
            except (OSError, Refused) as failure:
                # mikomi tries again, for days.
                print(f"not taken: {failure}", flush=True)
                return 500
            return 204

        def log_message(self, *_):
            pass

    host, port = address.rsplit(":", 1)
    return http.server.HTTPServer((host, int(port)), Handler)


def main(path):
    settings = tomllib.loads(pathlib.Path(path).read_text())
    mikomi, sfa = settings["mikomi"], settings["tryton"]
    secret = os.environ[mikomi["secret_env"]]
    tryton = Tryton(sfa["url"], sfa["database"], sfa["user"], os.environ[sfa["password_env"]])
    answers = Answers(tryton, settings, secret)
    # One thing after the other, in one thread: nothing here can overtake anything.
    server = receiver(mikomi["listen"], Incoming(tryton), secret)
    server.timeout = sfa["look_every_s"]
    looked = 0
    while True:
        server.handle_request()
        if time.monotonic() - looked >= sfa["look_every_s"]:
            try:
                answers.look()
            except (OSError, Refused) as failure:
                print(f"looking again later: {failure}", flush=True)
            looked = time.monotonic()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1])
