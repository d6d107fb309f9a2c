"""What is left of a person who was erased: bytes of a mark that came in wherever it could."""

import base64
import contextlib
import http.client
import http.server
import json
import shutil
import threading
import time

from measure.common import (
    NO_RATES, CannotMeasure, Server, build, endpoint_text, free_port, verdict, work_folder)

CANARY = "kanariaxq7z"
SECRET = "whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="
# A failing endpoint gives up at once here; as shipped it takes a weekend.
IMPATIENT = {
    **NO_RATES,
    "MIKOMI__webhooks__retry_schedule_ms": "0,50",
    "MIKOMI__webhooks__rest_min_ms": "50",
    "MIKOMI__webhooks__rest_max_ms": "100",
}
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOAL_S = 15 * 60
WAIT_S = 60


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what it is sent. A bad one answers every message with an error that repeats it."""

    def __init__(self, good):
        self.good, self.messages = good, []
        super().__init__(("127.0.0.1", free_port()), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.messages.append(json.loads(body))
        self.send_response(204 if self.server.good else 500)
        answer = b"" if self.server.good else body
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def waited(what, look):
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    raise CannotMeasure(f"never happened within {WAIT_S} s: {what}")


def people_of(number):
    return f"{CANARY}{number}@sample.example"


def lives(server, number):
    """One person, by everything through which something of them comes in."""
    mail, cookie = people_of(number), None

    def beacon(hit):
        nonlocal cookie
        page = f"https://www.vendor.example{hit.pop('path')}"
        body = json.dumps({"s": "demo", "u": page, "i": f"{number}-{time.monotonic_ns()}", **hit})
        headers = {"User-Agent": AGENT, **({"Cookie": cookie} if cookie else {})}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/b", body, headers)
            answer = connection.getresponse()
            answer.read()
            if given := answer.headers["Set-Cookie"]:
                cookie = given.split(";")[0]
            if answer.status != 204:
                raise CannotMeasure(f"a hit was answered {answer.status}")

    beacon({"path": "/"})
    beacon({"path": "/pricing/", "t": f"for {mail}", "p": {"to": mail}})
    form = {"name": CANARY, "company": f"{CANARY} Inc.", "title": "部長"}
    beacon({"path": "/contact", "e": "identify", "id": {"email": mail, "attributes": form}})
    beacon({"path": "/thanks/contact/ok"})
    card = {"site": "demo", "email": mail, "attributes": {"phone": CANARY, "note": CANARY}}
    server.admin("/api/attributes", json.dumps(card))
    found = json.loads(server.admin(f"/api/leads/by?site=demo&email={mail}"))
    return found["lead"]


def words():
    """The mark as it is, and in base 64 wherever it may begin."""
    found = [CANARY.encode()]
    for shift in range(3):
        text = base64.b64encode(b"_" * shift + CANARY.encode())
        found.append(text[(0, 2, 3)[shift]:-4])
    return found


def left(folder):
    """Bytes of the mark, plain or in base 64, and the files they are in."""
    count, files = 0, set()
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            if times := sum(text.count(word) for word in words()):
                count += times * len(CANARY)
                files.add(path.name)
    return count, files


def keys(folder):
    """Whose keys are there: 44 bytes each, the lead's id first."""
    log = (folder / "keys" / "subjects.log").read_bytes()
    return {int.from_bytes(log[at:at + 8], "little"): log[at + 8:at + 40]
            for at in range(0, len(log) // 44 * 44, 44)}


def erase(options):
    """what is left of an erased person in the data folder, also after an older copy is put back"""
    people = 3 if options.short else 100
    build("collector")
    with work_folder() as folder:
        good, bad = Receiver(True), Receiver(False)
        server = Server(folder, IMPATIENT)
        endpoints = [endpoint_text(name, receiver.server_port, SECRET).replace(
            'audience = ["sales"]\n', "") for name, receiver in (("good", good), ("bad", bad))]
        (server.config / "endpoints.toml").write_text("".join(endpoints))
        with server:
            leads = [lives(server, number) for number in range(people)]
            waited("every message about them died somewhere", lambda: {
                it["lead"] for it in json.loads(server.admin("/api/dead"))["outstanding"]
                if it["dead"]} >= set(leads))
            for lead in leads:
                why = {"lead": lead, "actor": CANARY, "reason": f"{CANARY} called"}
                server.admin("/api/withdraw", json.dumps(why))
            server.stop()
            copy = folder / "copy"
            shutil.copytree(server.data, copy)
            had = {lead: keys(copy).get(int(lead[1:], 16)) for lead in leads}
            server.start()
            began = time.monotonic()
            took = []
            for lead in leads:
                started = time.monotonic()
                server.admin("/api/erase", json.dumps(
                    {"lead": lead, "actor": "measure", "reason": f"asked by {CANARY}@x.example"}))
                took.append(time.monotonic() - started)
            waited("every receiver is told", lambda: told(good) >= set(leads))
            seconds = time.monotonic() - began
            gone = [server.ask(server.admin_port, f"/api/leads/{lead}",
                               {"Authorization": f"Bearer {server.token}"})[0] for lead in leads]
            exported = server.admin("/api/export/hits") + server.admin("/api/alerts")
            server.stop()
            after, files = left(server.data)
            kept = sum(key in (server.data / "keys" / "subjects.log").read_bytes()
                       for key in had.values() if key)
            # Only the log of erasures is newer than the copy.
            erased = (server.data / "keys" / "erased.log").read_bytes()
            shutil.rmtree(server.data)
            shutil.copytree(copy, server.data)
            (server.data / "keys" / "erased.log").write_bytes(erased)
            good.messages.clear()
            began = time.monotonic()
            server.start()
            back = time.monotonic() - began
            waited("every receiver is told again", lambda: told(good) >= set(leads))
            again = [server.ask(server.admin_port, f"/api/leads/{lead}",
                                {"Authorization": f"Bearer {server.token}"})[0] for lead in leads]
            server.stop()
            restored, more = left(server.data)
            kept_again = sum(key in (server.data / "keys" / "subjects.log").read_bytes()
                             for key in had.values() if key)
    took.sort()
    print(f"figure   {people} people by form, API, steps, alerts and dead letters: {after} bytes "
          f"of their mark left, {kept} of their {sum(map(bool, had.values()))} keys")
    print(f"         an erasure is answered in {took[len(took) // 2] * 1000:.0f} ms (the slowest "
          f"{took[-1] * 1000:.0f} ms); all were gone, and receivers told, after {seconds:.2f} s")
    print(f"         an older copy put back, with the log of erasures alone: {restored} bytes "
          f"left, {kept_again} keys; the server was ready after {back:.2f} s")
    for name in sorted(files | more):
        print(f"         left in {name}")
    return verdict(
        ("bytes of the mark in the data folder = 0", after == 0 and CANARY not in exported),
        ("keys of erased people = 0", kept == 0 and all(had.values())),
        (f"within {GOAL_S // 60} minutes", seconds <= GOAL_S),
        ("every lead is answered as erased", set(gone) == {410}),
        ("after an older copy: 0 bytes, 0 keys, erased and told",
         restored == 0 and kept_again == 0 and set(again) == {410}),
    )


def told(receiver):
    return {message["data"]["lead"]["id"] for message in list(receiver.messages)
            if message["type"] == "lead.erased"}
