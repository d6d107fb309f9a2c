"""Whether every score and every message is what it must be, under load and through kills."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import time

from measure.alerts import Receivers, Told, endpoint
from measure.common import (
    NO_RATES, ROOT, SEED, UNCLEAR, CannotMeasure, Server, build, endpoint_text,
    free_port, loadtest, verdict, work_folder)

SCENARIOS = ROOT / "loadtest" / "scenarios"
COUNTERS = ("lost", "invented", "missing", "doubled", "wrong")
SINK_SECRET = "whsec_" + base64.b64encode(b"the secret of all that is told").decode()
IDENTITY_SECRET = "the-sites-own-server-signs-with-this"
LOAD_TOKEN = "whoever-has-this-is-told-where-hits-stand"
# A run of millions is longer than a receiver is away: what waits must find room.
ROOM = {
    "MIKOMI__limits__leads_max": "2000000",
    "MIKOMI__limits__visitors_max": "4000000",
    "MIKOMI__webhooks__pending_max": "200000",
    "MIKOMI__webhooks__bodies_bytes_max": "2000000000",
    "MIKOMI__webhooks__retry_schedule_ms": "0,100,200,400,800,1000,1000,1000,1000,1000",
    "MIKOMI__webhooks__rest_min_ms": "50",
    "MIKOMI__webhooks__rest_max_ms": "100",
    "LOAD_TOKEN": LOAD_TOKEN,
    "MIKOMI__collector__load_token_env": "LOAD_TOKEN",
    "ID_SECRETS": IDENTITY_SECRET,
}
# Of the scenario: hits a request, at least; a browser's first one has one.
HITS_A_REQUEST = 10
HITS = 10_000_000
# Of the highest rate that the server keeps up with.
SHARE = 0.7
# So much longer than it takes without kills: while it starts again, hits are refused.
LONGER = 1.5
# Receivers beside the one that is listened to: 500 three times and then 204, no answer ever, and
# an answer that is cut off.
OTHERS = ("slow_to_take", "hanging", "resetting")


def truth(options):
    """every score and message under load is what a model of its own says, through kills"""
    build("collector", "loadtest")
    reader = reads_histograms(options.install)
    with work_folder() as folder:
        # Requests a second, seconds, visitors, kills.
        size = (250, 25, 900, 2)
        if not options.short:
            rate = SHARE * highest_rate(folder / "search")
            size = (int(rate), int(HITS * LONGER / (rate * HITS_A_REQUEST)), 200_000, 20)
        ports = {manner: free_port() for manner in OTHERS}
        with Receivers(folder / "others.tsv", ports) as others:
            report, errors = played(folder, size, others)
            told = Told(others.requests())
        hlog = check_hlog(reader, folder / "report.hlog", report)
        keep(folder / "report.html")
    return judged(report, errors, (hlog, told), size, options.short)


def highest_rate(folder):
    """The most requests a second that are answered within 100 ms, none with an error."""
    # So few that after the warm-up nearly all have come: who is new has one hit a request.
    visitors = 5_000
    server = Server(folder, {**NO_RATES, **ROOM})
    prepare(server, "")
    report = folder / "search.json"
    with server:
        command = loadtest(
            "search", "--quiet", "--url", f"http://127.0.0.1:{server.port}", "--seed", SEED,
            "--from", 1_000, "--warm", "4s", "--step", "6s", "--precision", 10, "--connections", 64,
            "--lag-max", "1s", "--scenario", SCENARIOS / "truth.toml", "--visitors", visitors,
            "--slo", "p99<100ms", "--slo", "errors=0", "--json", report)
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=900)
    steps = json.loads(report.read_text())["steps"] if report.exists() else []
    rate = max((one["rate"] for one in steps if one["met"] and one["valid"]), default=0)
    if not rate:
        raise CannotMeasure("no rate keeps p99 below 100 ms here")
    print(f"figure   {rate:,.0f} requests/s, of {HITS_A_REQUEST} hits and more, are answered within "
          f"100 ms at the 99th percentile; {SHARE:.0%} of it from here on", flush=True)
    return rate


def keep(page):
    """So that it can be looked at."""
    target = ROOT / "target" / "truth.html"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(page, target)
    print(f"         page: {target.relative_to(ROOT)}")


def played(folder, size, others):
    """A server killed while it is under load, and what the harness says of it."""
    rate, seconds, visitors, kills = size
    sink = free_port()
    server = Server(folder / "server", {**NO_RATES, **ROOM})
    listened_to = endpoint_text("truth", sink, SINK_SECRET)
    listened_to = listened_to.replace('audience = ["sales"]', 'audience = ["sales", "hr"]')
    beside = [endpoint(manner, port) + "test = true\n" for manner, port in others.ports.items()]
    prepare(server, listened_to + "test = true\nin_flight_max = 32\n" + "".join(beside))
    secrets = {}
    with server:
        server.admin("/metrics")
        for name, text in (("load", LOAD_TOKEN), ("identity", IDENTITY_SECRET),
                           ("admin", server.token)):
            secrets[name] = folder / f"{name}.txt"
            secrets[name].write_text(text)
        command = loadtest(
            "run", "--quiet", "--url", f"http://127.0.0.1:{server.port}", "--seed", SEED,
            "--load", f"{rate} for {seconds}s", "--warm", "1s", "--connections", 64,
            "--lag-max", "1s", "--scenario", SCENARIOS / "truth.toml", "--visitors", visitors,
            "--truth", server.config / "scoring.toml", "--sink", f"127.0.0.1:{sink}",
            "--sink-endpoint", "truth",
            "--load-token-file", secrets["load"], "--identity-secret-file", secrets["identity"],
            "--admin", f"http://127.0.0.1:{server.admin_port}",
            "--admin-token-file", secrets["admin"], "--json", folder / "report.json",
            "--html", folder / "report.html", "--hlog", folder / "report.hlog",
            *(word for name in COUNTERS for word in ("--slo", f"{name}=0")))
        environment = {**os.environ, "MIKOMI_LOADTEST_SECRET": SINK_SECRET}
        # In a process of its own, so that the server can be killed meanwhile.
        with open(folder / "run.txt", "w+", encoding="utf-8") as said, \
                subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
            try:
                kill(server, kills, seconds, process)
                process.wait(timeout=1_800)
            finally:
                process.kill()
            said.seek(0)
            text = said.read()
    if not (folder / "report.json").exists():
        raise CannotMeasure(f"the harness failed: {text[-2000:]}")
    report = json.loads((folder / "report.json").read_text())
    return report, report["requests"]["errors"]


def prepare(server, endpoints):
    """The rules that the model reads too, a site that signs, and endpoints for test keys."""
    shutil.copy(SCENARIOS / "truth.scoring.toml", server.config / "scoring.toml")
    settings = server.config / "mikomi.toml"
    text = settings.read_text()
    signed = '# identity_secrets_env = "ID_SECRETS"'
    if signed not in text:
        raise CannotMeasure("config/mikomi.toml has no place for an identity secret")
    settings.write_text(text.replace(signed, signed[2:]))
    (server.config / "endpoints.toml").write_text(endpoints)


def kill(server, kills, seconds, process):
    """So often within the load, not in its last seconds: it has to end with a server."""
    chance = random.Random(SEED)
    room = (seconds - 5) / (kills + 1)
    begun = time.monotonic()
    for number in range(kills):
        at = begun + 2 + room * (number + chance.uniform(0.2, 1.0))
        time.sleep(max(at - time.monotonic(), 0))
        if process.poll() is not None:
            return
        server.kill()
        server.start()


# ---------------------------------------------------------------- HdrHistogram's own reader

READ = """
import json, math, sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
sums = {}
for tag in sys.argv[2:]:
    reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3_600_000_000, 3))
    total = HdrHistogram(1, 3_600_000_000, 3)
    while interval := reader.get_next_interval_histogram():
        if interval.get_tag() == tag:
            total.add(interval)
    count = total.get_total_count()
    # The rank is rounded up, as the others do it; by itself this one rounds to the nearest.
    at = lambda share: total.get_value_at_percentile(100 * math.ceil(share * count) / count)
    sums[tag] = {"count": count, "max_us": total.get_max_value(), **(
        {"p50_us": at(.5), "p90_us": at(.9), "p99_us": at(.99), "p999_us": at(.999)}
        if count else {})}
print(json.dumps(sums))
"""


def reads_histograms(install):
    """A Python that has HdrHistogram's public reader, or nothing."""
    home = ROOT / ".measure" / "hdrhistogram"
    for python in (sys.executable, home / "bin" / "python"):
        done = subprocess.run([python, "-c", "import hdrh.log"], capture_output=True) \
            if shutil.which(python) else None
        if done and done.returncode == 0:
            return python
    if not install:
        return None
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "hdrhistogram"], check=True)
    return home / "bin" / "python"


def check_hlog(reader, path, report):
    """Whether the public reader says the same of the log as the report; nothing if not asked."""
    if not reader:
        print("skipped  hlog: hdrhistogram (PyPI) is not installed; say --install")
        return None
    sides = {"response": report["response"], "service": report["service"],
             "click_to_alert": report["truth"]["click_to_alert"],
             "due_to_alert": report["truth"]["due_to_alert"]}
    done = subprocess.run([reader, "-c", READ, path, *sides], capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"hdrhistogram cannot read the log: {done.stderr[-500:]}")
    found = json.loads(done.stdout)
    other = [f"{side} {name}: {value} there, {sides[side][name]} here"
             for side, values in found.items() for name, value in values.items()
             if value != sides[side][name]]
    print(f"         hlog read by hdrhistogram (PyPI): "
          f"{sum(it['count'] for it in found.values()):,} times in {len(found)} tags; "
          f"{other or 'each count and percentile as in the report'}")
    return not other


def judged(report, errors, beside, size, short):
    rate, seconds, visitors, kills = size
    hlog, told = beside
    found = report["truth"]
    hits, messages = found["hits"], found["messages"]
    click, due = found["click_to_alert"], found["due_to_alert"]
    goal = rate * seconds * HITS_A_REQUEST * 0.5 if short else HITS
    print(f"figure   {hits['sent']:,} hits of {visitors:,} visitors in {seconds} s, {kills} kills: "
          + ", ".join(f"{name} {found[name]}" for name in COUNTERS))
    print(f"         {hits['acknowledged']:,} acknowledged, {hits['unanswered']:,} without an "
          f"answer (the server has {hits['unanswered_recorded']:,}), {errors:,} requests failed")
    print(f"         {found['leads']:,} people with {found['rows']:,} rows compared, "
          f"{messages['expected']:,} messages; {messages['repeated']} came again, "
          f"{messages['refused']} without a good signature; judged in {found['judged_s']:.0f} s")
    ms = lambda us: f"{us / 1000:,.1f} ms"
    print(f"         click to alert p50 {ms(click['p50_us'])}, p99 {ms(click['p99_us'])}, max "
          f"{ms(click['max_us'])} ({click['count']:,}); due to alert p50 {ms(due['p50_us'])}, "
          f"p99 {ms(due['p99_us'])} ({due['count']:,}); kills are in both")
    took = {manner: len(told.taken[manner]) for manner in told.taken}
    print("         beside it " + ", ".join(
        f"{manner}: {told.attempts[manner]:,} attempts, {took[manner]:,} messages taken"
        for manner in OTHERS))
    for example in found["examples"][:12]:
        print(f"         {example[:600]}")
    if not hits["unanswered"] or not due["count"] or not click["count"]:
        print("         nothing was cut off, or nobody was told: nothing was tested")
        return UNCLEAR
    parts = [(f"{name} = 0", found[name] == 0) for name in COUNTERS]
    parts += [(f"hits acknowledged >= {goal:,.0f}", hits["acknowledged"] >= goal),
              ("every message had a good signature", messages["refused"] == 0),
              ("whoever answers 500 three times has taken messages, the others were tried",
               took["slow_to_take"] > 0 and all(told.attempts[manner] for manner in OTHERS)),
              ("no message had two bodies", told.other_bodies == 0)]
    if hlog is not None:
        parts.append(("HdrHistogram's own reader says what the report says", hlog))
    return verdict(*parts)
