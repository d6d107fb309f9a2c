"""Five receivers, good and bad, while the server is killed: who is told what, and how late."""

import base64
import collections
import hashlib
import hmac
import json
import random
import statistics
import subprocess
import time

from measure.common import (
    MET, MISSED, NO_RATES, SEED, UNCLEAR, CannotMeasure, Server, build, endpoint_text, free_port,
    load, loadtest, probe, verdict, work_folder)

MANNERS = ("good", "slow_to_take", "hanging", "resetting", "endless")
# What must have arrived here; the others may only slow down nobody.
TAKING = ("good", "slow_to_take")
# The waits as shipped reach over a weekend, and the rest of a failing endpoint takes minutes.
IMPATIENT = {
    **NO_RATES,
    "MIKOMI__webhooks__retry_schedule_ms": "0,100,200,400,800,1000,1000,1000,1000,1000",
    "MIKOMI__webhooks__rest_min_ms": "50",
    "MIKOMI__webhooks__rest_max_ms": "100",
}
# As receivers' libraries allow.
TOLERANCE_S = 300
DRAIN_S = 300
# Of the client's own schedule: beyond it a round tells about the machine.
LATE_MS_MAX = 10
QUIET_S = 3


def secret(manner):
    return hashlib.sha256(manner.encode()).digest()


def endpoint(manner, port):
    return endpoint_text(manner, port, f"whsec_{base64.b64encode(secret(manner)).decode()}")


class Receivers:
    """The load client's receivers, and what they wrote down."""

    def __init__(self, book, ports):
        self.book, self.ports = book, ports
        command = loadtest("probe", "receive", "--out", book)
        for manner, port in ports.items():
            command += ["--receiver", f"{manner}=127.0.0.1:{port}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def endpoints(self):
        return "".join(endpoint(manner, port) for manner, port in self.ports.items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def requests(self):
        if not self.book.exists():
            return []
        lines = self.book.read_bytes().split(b"\n")[:-1]
        return [Request(*line.split(b"\t", 7)) for line in lines]


class Request:
    """One attempt, as a receiver saw it."""

    def __init__(self, manner, at_ms, alert, stamp, signature, attempt, answer, body):
        self.manner, self.alert, self.body = manner.decode(), alert.decode(), body
        self.at_ms, self.attempt, self.answer = int(at_ms), int(attempt), int(answer)
        self.stamp, self.signature = stamp.decode(), signature.decode()

    @property
    def taken(self):
        return 200 <= self.answer < 300

    def is_genuine(self):
        """By the text of Standard Webhooks, with nothing of the server's."""
        signed = f"{self.alert}.{self.stamp}.".encode() + self.body
        tag = hmac.new(secret(self.manner), signed, hashlib.sha256).digest()
        expected = "v1," + base64.b64encode(tag).decode()
        fresh = abs(self.at_ms / 1000 - int(self.stamp)) <= TOLERANCE_S
        return fresh and any(hmac.compare_digest(expected, one)
                             for one in self.signature.split(" "))


def alerts(options):
    """five receivers, four of them bad, and kills: who is told, once, and how late"""
    build("collector", "loadtest")
    with work_folder() as folder:
        outcomes = (kills(folder / "kills", 5 if options.short else 20),
                    latencies(folder, *((2, 100) if options.short else (5, 400))))
    return MISSED if MISSED in outcomes else max(outcomes)


# ---------------------------------------------------------------- who is told


def kills(folder, rounds):
    chance = random.Random(SEED)
    account, book = folder / "account.tsv", folder / "book.tsv"
    server = Server(folder, IMPATIENT)
    with Receivers(book, {manner: free_port() for manner in MANNERS}) as receivers:
        (server.config / "endpoints.toml").write_text(receivers.endpoints())
        with server:
            witness = subprocess.Popen(
                probe(server.port, "--seed", SEED, "browse", "--rate", 600, "--out", account),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                for _ in range(rounds):
                    time.sleep(chance.uniform(0.3, 1.5))
                    server.kill()
                    server.start()
                time.sleep(1)
                found, _ = witness.communicate(timeout=120)
            finally:
                witness.kill()
            if witness.returncode != 0:
                raise CannotMeasure("the witness failed")
            expected = {line.split("\t")[1] for line in account.read_text().splitlines()
                        if line.startswith("expected\t")}
            took = drain(receivers, expected)
            hot = json.loads(server.admin("/api/hot"))["leads"]
        return judge(rounds, json.loads(found), expected, hot, receivers.requests(), took)


def drain(receivers, expected):
    """Waits until the receivers that take something have all; how long that was."""
    began = quiet_since = time.monotonic()
    before = None
    while time.monotonic() < began + DRAIN_S:
        told = Told(receivers.requests())
        if told.messages.keys() != before:
            before, quiet_since = told.messages.keys(), time.monotonic()
        complete = expected <= told.by_mail.keys() and all(
            told.taken[manner].keys() == told.messages.keys() for manner in TAKING)
        if complete and time.monotonic() - quiet_since > QUIET_S:
            break
        time.sleep(0.5)
    return time.monotonic() - began


class Told:
    """What all receivers together heard."""

    def __init__(self, requests):
        self.requests = requests
        self.messages = {}  # alert id -> its body, as first heard
        self.other_bodies = 0
        self.attempts, self.repeated = collections.Counter(), collections.Counter()
        self.taken = {manner: collections.Counter() for manner in MANNERS}
        seen, bodies = set(), {}
        for request in requests:
            manner, alert = request.manner, request.alert
            self.attempts[manner] += 1
            # The server never knew how this attempt ended, so it made it again.
            self.repeated[manner] += (manner, alert, request.attempt) in seen
            seen.add((manner, alert, request.attempt))
            self.taken[manner][alert] += request.taken
            if bodies.setdefault(alert, request.body) != request.body:
                self.other_bodies += 1
        self.taken = {manner: +those for manner, those in self.taken.items()}
        self.messages = {alert: json.loads(body) for alert, body in bodies.items()}
        self.by_mail, self.by_crossing = collections.defaultdict(set), collections.defaultdict(set)
        self.by_lead, self.by_number = collections.defaultdict(set), collections.defaultdict(set)
        for alert, message in self.messages.items():
            data, crossing = message["data"], message["data"]["crossing"] or {}
            lead = data["lead"]["id"]
            self.by_number[(lead, data["sequence"])].add(alert)
            if crossing:
                self.by_crossing[(lead, message["type"], crossing["threshold"],
                                  crossing["number"])].add(alert)
            if message["type"] == "lead.hot":
                self.by_mail[data["lead"]["email"]].add(alert)
                self.by_lead[lead].add(alert)

    def is_complete(self, manner, mails, leads):
        """Whether it took every message, among them those of whoever must be hot and who is."""
        mine = self.taken[manner].keys()
        return (mine == self.messages.keys()
                and all(self.by_mail[mail] & mine for mail in mails)
                and all(self.by_lead[lead] & mine for lead in leads))

    def gaps(self):
        """Leads whose messages are not numbered 1, 2, 3, ..., each number once."""
        numbers = collections.defaultdict(list)
        for lead, number in self.by_number:
            numbers[lead].append(number)
        return ([lead for lead, those in numbers.items()
                 if sorted(those) != list(range(1, len(those) + 1))]
                + [lead for (lead, _), those in self.by_number.items() if len(those) > 1])


def judge(rounds, witnessed, expected, hot, requests, took):
    told = Told(requests)
    leads = {lead["id"] for lead in hot}
    forged = sum(1 for request in requests if not request.is_genuine())
    print(f"figure   {witnessed['acknowledged']:,} hits acknowledged in "
          f"{witnessed['seconds']:.0f} s, {rounds} kills, {witnessed['sent_again']} hits sent "
          "again after a lost answer")
    print(f"         {len(expected):,} crossings expected by the client, {len(leads):,} leads hot "
          f"by the server, {len(told.messages):,} messages for {len(told.by_crossing):,} crossings")
    for manner in MANNERS:
        print(f"         {manner:13} {told.attempts[manner]:7,} attempts, "
              f"{len(told.taken[manner]):6,} messages taken, "
              f"{told.repeated[manner]:4} made again after a kill")
    print(f"         drained in {took:.0f} s; {len(requests):,} signatures checked")
    if witnessed["sent_again"] == 0 or not expected:
        print("         no answer was lost to a kill, or nobody became hot: nothing was tested")
        return UNCLEAR
    if not any(told.repeated.values()):
        print("         no attempt was under way at a kill: repetition was not tested")
    return verdict(
        *((f"{manner}: every message came; whoever is hot was told, and whoever must be",
           told.is_complete(manner, expected, leads)) for manner in TAKING),
        ("whoever must be hot is hot", expected <= {lead["email"] for lead in hot}),
        ("every crossing under one id", all(len(it) == 1 for it in told.by_crossing.values())),
        ("every lead's messages are numbered without a gap, each number once", not told.gaps()),
        ("whatever is repeated has the same id and the same body", told.other_bodies == 0),
        ("every signature is right, each endpoint's under its own secret", forged == 0),
    )


# ---------------------------------------------------------------- how late


def latencies(folder, rounds, crossings):
    goal, rate = 2.0, 40
    ports = {manner: free_port() for manner in MANNERS}
    bad = {manner: port for manner, port in ports.items() if manner != "good"}
    with Receivers(folder / "book.tsv", bad) as receivers:
        servers = {"alone": Server(folder / "alone", IMPATIENT),
                   "beside the bad": Server(folder / "beside", IMPATIENT)}
        good = endpoint("good", ports["good"])
        for name, server in servers.items():
            text = good if name == "alone" else good + receivers.endpoints()
            (server.config / "endpoints.toml").write_text(text)
        pairs, tried = [], 0
        with servers["alone"], servers["beside the bad"]:
            while tried < 3 * rounds and sum(map(is_calm, pairs)) < rounds:
                pairs.append({name: load(
                    servers[name].port, "alerts", "--receiver", f"127.0.0.1:{ports['good']}",
                    "--crossings", crossings, "--first", tried * crossings, "--rate", rate)
                    for name in list(servers)[::1 if tried % 2 == 0 else -1]})
                tried += 1
        attempts = collections.Counter(request.manner for request in receivers.requests())
    calm = [pair for pair in pairs if is_calm(pair)]
    print(f"figure   {tried} interleaved rounds of {crossings} crossings at {rate}/s, from the hit "
          "to the good receiver's reading")
    if len(calm) < tried:
        print(f"         {tried - len(calm)} of them are left out: the client itself got no CPU in "
              f"time, its schedule was late by more than {LATE_MS_MAX} ms at its p99")
    print("         attempts at the bad: "
          + ", ".join(f"{manner} {attempts[manner]:,}" for manner in bad))
    told_once = ("every crossing was told, once", all(
        one["alerts"] == crossings and not one["repeated"] and not one["strange"]
        for pair in pairs for one in pair.values()))
    if len(calm) < rounds:
        print(f"         {rounds} are needed: no verdict on the time")
        return UNCLEAR if verdict(told_once) == MET else MISSED
    for name in servers:
        p50, p99 = (sorted(pair[name]["click_to_alert_ms"][it] for pair in calm)
                    for it in ("p50", "p99"))
        print(f"         {name:15} p50 {statistics.median(p50):6.2f} ms, p99 "
              f"{statistics.median(p99):6.2f} ({p99[0]:.2f} to {p99[-1]:.2f}) ms")
    ratios = sorted(pair["beside the bad"]["click_to_alert_ms"]["p99"]
                    / pair["alone"]["click_to_alert_ms"]["p99"] for pair in calm)
    print(f"         p99 beside the bad / alone: {statistics.median(ratios):.2f} ({ratios[0]:.2f} "
          f"to {ratios[-1]:.2f})")
    outcome = verdict(told_once, (f"the good receiver's p99 at most {goal:.1f} times its p99 alone",
                                  statistics.median(ratios) <= goal))
    if told_once[1] and ratios[0] <= goal < ratios[-1]:
        print("         the rounds lie on both sides of the goal")
        return UNCLEAR
    return outcome


def is_calm(pair):
    return all(one["schedule_late_ms"]["p99"] <= LATE_MS_MAX for one in pair.values())
