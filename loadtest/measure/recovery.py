"""Snapshots: how long a start takes with and without, and what taking one costs whoever sends."""

import json
import shutil
import statistics
import subprocess
import threading
import time

from measure.common import (
    NO_RATES, SEED, UNCLEAR, CannotMeasure, Server, binary, build, load, loadtest, pinned, verdict,
    work_folder)

# None but those that are asked for; and as many visitors as the folder has.
BY_HAND = {
    **NO_RATES,
    "MIKOMI__snapshots__every_ms": "86400000",
    "MIKOMI__snapshots__every_bytes": str(1 << 40),
    "MIKOMI__limits__visitors_max": "100000000",
    "MIKOMI__limits__leads_max": "10000000",
    "MIKOMI__limits__journal_bytes_max": str(1 << 40),
    "RUST_LOG": "info",
}
GB = 1e9
# What the load client ends with where it could not keep its schedule.
INVALID = 3
# Page views by the pixel alone, of people who come equally often.
PEOPLE = """
site = "demo"
[visitors]
count = 12000
exponent = 0.0
[requests]
pixel = 1.0
beacon = 0.0
batch = 0.0
[visits]
stays = 0.0
events = 0.0
forms = 0.0
[noise]
duplicates = 0.0
late = 0.0
robots = 0.0
"""


def seed(folder, visitors, *more):
    """A data folder as a site of this size leaves it, without snapshots."""
    done = subprocess.run([binary("seed"), str(folder), str(visitors), *more],
                          stdout=subprocess.PIPE, text=True, timeout=3600)
    if done.returncode != 0:
        raise CannotMeasure("the folder could not be seeded")
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    return json.loads(done.stdout)


def said(server, message):
    """The last line of the server's log that says so."""
    lines = (server.folder / "server.log").read_text(errors="replace").splitlines()
    # What it prints for people stands there, too.
    found = [json.loads(line)["fields"] for line in lines
             if line.startswith("{") and message in line]
    return next((fields for fields in reversed(found) if fields["message"] == message), None)


def started(server):
    """Starts it; seconds until it is ready."""
    (server.folder / "server.log").unlink(missing_ok=True)
    began = time.monotonic()
    server.start()
    return time.monotonic() - began


def state_hash(server):
    return json.loads(server.admin("/api/state"))["hash"]


def take(server):
    """Has a snapshot taken, and waits until it is there. What it holds."""
    before = server.metrics()["mikomi_snapshots_taken_total"]
    server.admin("/api/snapshot", "{}")
    until = time.monotonic() + 600
    while time.monotonic() < until:
        metrics = server.metrics()
        if metrics["mikomi_snapshots_taken_total"] > before:
            return {name: metrics[f"mikomi_snapshot_{name}"] for name in ("bytes", "took_ms")}
        time.sleep(0.05)
    raise CannotMeasure("no snapshot was taken")


def recovery(options):
    """a start of a large site: from its journal alone, and from a snapshot and what came after"""
    sizes = [200_000] if options.short else [1_000_000, 5_000_000]
    build("benches/seed", "collector")
    parts = []
    for visitors in sizes:
        with work_folder() as folder:
            server = Server(folder, BY_HAND, clock_ms=int(time.time() * 1000) + 60_000)
            made = seed(server.data, visitors)
            alone_s = started(server)
            replayed = said(server, "replayed")
            taken = take(server)
            server.stop()
            # A day's worth of what came after it.
            after = seed_after(server, visitors // 100)
            with_s = started(server)
            read, tail, second = (said(server, "a snapshot is read"),
                                  said(server, "replayed"), state_hash(server))
            resident = server.memory_mib()
            server.stop()
            shutil.rmtree(server.data / "snapshots")
            started(server)
            third = state_hash(server)
            server.stop()
        if read is None:
            raise CannotMeasure("the snapshot was not read")
        journal = replayed["took_ms"] / 1000 / (replayed["bytes"] / GB)
        snapshot = read["took_ms"] / 1000 / (read["bytes"] / GB)
        print(f"figure   {visitors:,} visitors, {made['leads']:,} leads: journal "
              f"{replayed['bytes'] / GB:.2f} GB, snapshot {taken['bytes'] / GB:.3f} GB, taken in "
              f"{taken['took_ms'] / 1000:.1f} s; {resident:,.0f} MiB resident")
        print(f"         ready after {alone_s:.1f} s by the journal alone "
              f"({replayed['took_ms'] / 1000:.1f} s of replay, {journal:.1f} s a GB)")
        print(f"         ready after {with_s:.1f} s by the snapshot ({read['took_ms'] / 1000:.1f} s "
              f"of reading, {snapshot:.1f} s a GB) and {tail['records']:,} records after it "
              f"({after['visitors'] - made['visitors']:,} visitors more)")
        parts += [
            (f"{visitors:,}: <= 5 s a GB of journal", journal <= 5),
            (f"{visitors:,}: <= 2 s a GB of snapshot", snapshot <= 2),
            (f"{visitors:,}: the snapshot and the tail give what the journal alone does",
             second == third),
            (f"{visitors:,}: only the tail was replayed", tail["records"] < replayed["records"]),
        ]
    return verdict(*parts)


def seed_after(server, visitors):
    kept = server.folder / "kept"
    shutil.move(server.data / "snapshots", kept)
    made = seed(server.data, visitors, "--append")
    shutil.move(kept, server.data / "snapshots")
    return made


class Taking:
    """One snapshot after the other, until it is told to stop."""

    def __init__(self, server):
        self.server, self.taken, self.over = server, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.is_set():
            self.taken.append(take(self.server))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def page_views(server, folder, rate, seconds, seed):
    """The page views of 12,000 people who come back, on a schedule; what the client reports."""
    people, report = folder / "people.toml", folder / "report.json"
    people.write_text(PEOPLE)
    command = loadtest(
        "run", "--url", f"http://127.0.0.1:{server.port}", "--scenario", people, "--quiet",
        "--load", f"{rate} for {seconds}s", "--warm", "4s", "--connections", 64, "--threads", 1,
        "--seed", seed, "--json", report)
    done = subprocess.run(pinned(1, command), stdout=subprocess.DEVNULL, timeout=900)
    if done.returncode not in (0, INVALID):
        raise CannotMeasure(f"the load client ended with {done.returncode}")
    return json.loads(report.read_text())


def snapshot(options):
    """what taking snapshots costs whoever sends hits meanwhile, at half of the full load"""
    visitors, rounds, seconds = (200_000, 2, 5) if options.short else (5_000_000, 5, 20)
    # All of a snapshot is to lie within: whom to write, the writing, what followers know, the
    # reading back.
    longer = seconds * 2
    build("benches/seed", "collector", "loadtest")
    found, taken = {"without": [], "with": []}, []
    with work_folder() as folder:
        # The server on one processor, whoever loads it on the other: what is slow is the server.
        server = Server(folder, BY_HAND, core=0)
        # The first start replays the whole journal on that one processor.
        server.patience_s = 600
        seed(server.data, visitors)
        cookies = folder / "cookies"
        with server:
            load(server.port, "visitors", "--count", 12_000, "--out", cookies)
            full = load(server.port, "hits", "--cookies", cookies, "--connections", 64,
                        "--warm-ms", 1_000, "--count-ms", 4_000, core=1)["hits_per_s"]
            rate = int(full / 2)
            # The first one of a folder replays the whole journal for those who follow it.
            take(server)
            print(f"         {visitors:,} visitors; full load {full:,.0f} hits/s, half is {rate:,}")
            runs, set_aside = [], 0
            while len(found["with"]) < rounds and set_aside <= 2 * rounds:
                number = len(found["with"]) + set_aside
                calm = page_views(server, folder, rate, seconds, SEED + 2 * number)
                with Taking(server) as taking:
                    busy = page_views(server, folder, rate, longer, SEED + 2 * number + 1)
                runs += [calm, busy]
                # Where the client itself was late, nobody knows whose the wait was.
                if calm["invalid"] or busy["invalid"]:
                    set_aside += 1
                    continue
                found["without"].append(calm)
                found["with"].append(busy)
                taken += taking.taken
    if len(found["with"]) < rounds:
        print(f"         the client could not keep its schedule: {set_aside} rounds set aside")
        return UNCLEAR
    print(f"         {set_aside} rounds set aside, in which the client was late")
    for name, runs in found.items():
        shown = {it: statistics.median(each["response"][f"{it}_us"] for each in runs) / 1000
                 for it in ("p50", "p99", "p999")}
        lag = statistics.median(each["generator"]["lag"]["p99_us"] for each in runs) / 1000
        print(f"         {name:8} p50 {shown['p50']:.2f}, p99 {shown['p99']:.2f}, p99.9 "
              f"{shown['p999']:.2f} ms; the client was late at p99 by {lag:.2f} ms")
    ratios = sorted(busy["response"]["p999_us"] / calm["response"]["p999_us"]
                    for calm, busy in zip(found["without"], found["with"]))
    ratio = statistics.median(ratios)
    print(f"figure   {len(taken)} snapshots of {taken[0]['bytes'] / GB:.3f} GB in "
          f"{statistics.median(it['took_ms'] for it in taken) / 1000:.1f} s each; p99.9 with / "
          f"without: {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return verdict(
        ("every hit was acknowledged", all(it["requests"]["errors"] == 0 for it in runs)),
        ("snapshots were taken meanwhile", len(taken) >= rounds),
        ("p99.9 at most 2.0 times that without", ratio <= 2.0),
    )
