"""Whether the load harness itself can be believed: against stubs whose times are known."""

import contextlib
import json
import os
import re
import subprocess

from measure.common import (
    CannotMeasure, build, free_port, loadtest, need, verdict, work_folder)

# Of the load on the stub that stalls, and of the stub that cannot do more.
RATE = 1_000
CAPACITY = 5_000
BUSY = "while True: pass"
NAMES = {"p50": "p50_us", "p95": "p95_us", "p99": "p99_us", "p99.9": "p999_us", "max": "max_us"}


@contextlib.contextmanager
def stub(*manner):
    """A server of known times; its port."""
    port = free_port()
    process = subprocess.Popen(
        loadtest("probe", "stub", "--listen", f"127.0.0.1:{port}", *manner),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        # It listens once it takes a request.
        for _ in range(200):
            if ran(port, "run", "--load", "100 for 10ms", "--warm", "0s", "--connections", 1,
                   "--lag-max", "1h").returncode == 0:
                break
        else:
            raise CannotMeasure("the stub does not listen")
        yield port
    finally:
        process.kill()
        process.wait()


def ran(port, verb, *arguments, before=()):
    command = loadtest(verb, "--quiet", "--url", f"http://127.0.0.1:{port}", *arguments)
    return subprocess.run([*before, *command], capture_output=True, text=True, timeout=600)


def report(port, folder, verb, *arguments, valid=True):
    """What came of it."""
    path = folder / "report.json"
    path.unlink(missing_ok=True)
    done = ran(port, verb, *arguments, "--json", path)
    if not path.exists():
        raise CannotMeasure(f"the harness failed: {done.stderr[-500:]}")
    found = json.loads(path.read_text())
    if valid and done.returncode == 3:
        raise CannotMeasure(f"this machine is too busy: {'; '.join(found['invalid'])}")
    return found


def near(value, goal, share):
    return abs(value - goal) <= goal * share


def ms(microseconds):
    return f"{microseconds / 1000:,.2f} ms"


def stalls(folder, short):
    """The stall is in response time, however many connections hide it from service time."""
    parts = []
    # A tenth of the time, whole periods.
    every_s, seconds = (5, 5) if short else (10, 30)
    with stub("--stall-ms", every_s * 100, "--every-ms", every_s * 1_000) as port:
        for connections in (2_000, 16):
            done = report(port, folder, "run", "--load", f"{RATE} for {seconds}s",
                          "--arrivals", "even", "--warm", "1s", "--connections", connections,
                          "--lag-max", "50ms")
            response, service = done["response"], done["service"]
            print(f"figure   {RATE:,}/s for {seconds} s over {connections:,} connections, a tenth "
                  f"of every {every_s} s stalled; lag p99 {ms(done['generator']['lag']['p99_us'])}")
            print("         response " + ", ".join(
                f"{name} {ms(response[key])}" for name, key in NAMES.items()))
            print("         service  " + ", ".join(
                f"{name} {ms(service[key])}" for name, key in NAMES.items()))
            for name, share in (("p95", 0.5), ("p99", 0.9), ("p99.9", 0.99)):
                goal, found = share * every_s * 100_000, response[NAMES[name]]
                parts.append((f"{connections:,} connections: response {name} {ms(goal)} within 3 % "
                              f"({ms(found)})", near(found, goal, 0.03)))
            parts.append((f"{connections:,} connections: the service time of the others stays flat "
                          f"(p50 {ms(service['p50_us'])} <= 5 ms)", service["p50_us"] <= 5_000))
            if connections == 16:
                parts.append(("few connections: service time hides it "
                              f"(p99 {ms(service['p99_us'])} <= 50 ms)",
                              service["p99_us"] <= 50_000))
    return parts


def starved(short):
    """One processor, shared with others that come first."""
    core = str(sorted(os.sched_getaffinity(0))[-1])
    pinned = ["taskset", "-c", core]
    # Two take long enough from it; with four its start alone takes many seconds.
    others = [subprocess.Popen([*pinned, "python3", "-c", BUSY]) for _ in range(2 if short else 4)]
    try:
        with stub() as port:
            done = ran(port, "run", "--load", "1000 for 1s" if short else "5000 for 5s", "--warm",
                       "100ms", "--connections", 16, before=[*pinned, "nice", "-n", "19"])
    finally:
        for other in others:
            other.kill()
            other.wait()
    line = done.stdout.splitlines()[0] if done.stdout else done.stderr
    print(f"figure   starved of its processor: exit status {done.returncode}: {line[:110]}")
    return [("starved, it ends with 3", done.returncode == 3),
            ("and says INVALID first", done.stdout.startswith("INVALID"))]


def crossed(folder, short, wrk):
    """The highest rate that it finds, and what wrk reaches."""
    with stub("--capacity", CAPACITY) as port:
        done = subprocess.run(
            [wrk, "-t1", "-c64", f"-d{2 if short else 20}s", f"http://127.0.0.1:{port}/p.gif"],
            capture_output=True, text=True, timeout=120)
        reached = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if not reached:
            raise CannotMeasure(f"wrk said nothing: {done.stderr[-300:]}")
        reached = float(reached.group(1))
        step, warm, queue = ("1500ms", "300ms", 40) if short else ("10s", "1s", 100)
        found = report(port, folder, "search", "--from", 2_500, "--max", 6_000, "--step", step,
                       "--warm", warm, "--slo", f"p99<{queue}ms", "--slo", "errors=0",
                       "--precision", 4 if short else 1,
                       "--connections", 256, "--arrivals", "even", "--lag-max", "20ms",
                       valid=False)
    tried = found["steps"]
    rate = max((one["rate"] for one in tried if one["met"] and one["valid"]), default=0)
    print(f"figure   a capacity of {CAPACITY:,}/s: wrk reaches {reached:,.0f}/s, search finds "
          f"{rate:,.0f}/s in {len(tried)} steps; ratio {rate / reached:.3f}")
    return [("search and wrk within 5 % of each other", near(rate, reached, 0.05))]


def fixed(folder, short):
    """Nothing is in the way: both times are the stub's."""
    with stub("--delay-ms", 20) as port:
        done = report(port, folder, "run", "--load", f"500 for {3 if short else 20}s", "--warm",
                      "1s", "--connections", 256, "--lag-max", "20ms")
    response, service = done["response"]["p50_us"], done["service"]["p50_us"]
    print(f"figure   20 ms each: service p50 {ms(service)}, response p50 {ms(response)}")
    return [("service p50 20 ms within 5 %", near(service, 20_000, 0.05)),
            ("response p50 within 5 % of it", near(response, service, 0.05))]


def cost(folder):
    """What the generator itself takes; no goal."""
    with stub() as port:
        found = report(port, folder, "search", "--from", 10_000, "--max", 200_000, "--step", "5s",
                       "--warm", "500ms", "--threads", 1, "--slo", "p99<1s", "--precision", 10,
                       "--connections", 64, valid=False)
    good = [one["rate"] for one in found["steps"] if one["met"] and one["valid"]]
    print(f"figure   of itself: one thread keeps its schedule up to {max(good, default=0):,.0f} "
          "requests/s of the scenario that ships (the stub on the same machine; no goal)")


def harness(options):
    """what the load harness says, against stubs whose times are known"""
    build("loadtest")
    wrk = need("wrk", "wrk", options.install)
    with work_folder() as folder:
        parts = stalls(folder, options.short)
        parts += starved(options.short)
        parts += fixed(folder, options.short)
        parts += crossed(folder, options.short, wrk)
        # It has no goal, and on a busy machine it tries many rates: not within a minute.
        if not options.short:
            cost(folder)
    return verdict(*parts)
