"""Trouble with the disk: full, failing, without power. Nothing acknowledged may be lost by it."""

import collections
import contextlib
import json
import os
import signal
import subprocess
import time

from .common import (
    MET, MISSED, NO_RATES, ROOT, UNCLEAR, CannotMeasure, Server, build, free_port, verdict,
    work_folder)
from .kills import found_in, judge_kills, witness, witnessed_by

MIB = 1024 * 1024
# Small, so that a full disk is met soon after it is full.
SMALL = {"MIKOMI__journal__segment_bytes": str(MIB), "MIKOMI__journal__reserve_bytes": str(4 * MIB)}
CALLS = ("fdatasync", "fsync", "pwrite", "write", "pread", "read")
EXIT_POISONED = 70
PRESSED = "/pressed"


# ---------------------------------------------------------------- powerloss


# The one test of the fault bench that goes by seed.
TOLD_BY_SEED = ("through_any_fault_of_the_disk_acknowledged_hits_count_once_and_alerts_have_"
                "one_effect")
# The one that tries whether it can fail.
PLANTED_BUGS = ("each_planted_bug_makes_the_bench_fail_by_name_and_without_it_the_same_seed_"
                "passes")


def powerloss(options):
    """what a simulated disk loses, tears and refuses, of hits and of alerts, by seed"""
    seeds = 1_200 if options.short else 100_000
    command = ["cargo", "test", "--locked", "--quiet", "-p", "collector", "--test", "faults"]
    if subprocess.run(command + ["--no-run"], cwd=ROOT).returncode != 0:
        raise CannotMeasure("cargo could not build the fault bench")
    cores = len(os.sched_getaffinity(0))
    share = -(-seeds // cores)
    running = [
        subprocess.Popen(
            command + ["--", "--exact", TOLD_BY_SEED, "--nocapture"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "MIKOMI_FAULT_FIRST": str(core * share),
                 "MIKOMI_FAULT_SEEDS": str(share)})
        for core in range(cores)]
    sums, failures = collections.Counter(), []
    for process in running:
        told, _ = process.communicate()
        if process.returncode != 0:
            failures += [line for line in told.splitlines() if "seed" in line][:3] or [told[-500:]]
            continue
        found = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
        sums.update({**{name: found[name] for name in ("seeds", "acknowledged", "effects", "told")},
                     **{f"ended: {end}": times for end, times in found["ends"].items()}})
    print(f"figure   {sums['seeds']:,} seeds; {sums['acknowledged']:,} hits acknowledged, "
          f"{sums['effects']:,} alerts with one effect each, told {sums['told']:,} times")
    print("         lives ended: " + ", ".join(
        f"{name.removeprefix('ended: ')} {times:,}" for name, times in sorted(sums.items())
        if name.startswith("ended: ")))
    for failure in failures:
        print(f"         {failure.strip()}")
    return verdict(
        (f"{seeds:,} seeds were tried", sums["seeds"] >= seeds),
        ("acknowledged and lost = 0, doubled = 0, invented = 0, told without cause = 0",
         not failures),
        ("the power went, syncs failed and the disk was full",
         all(sums[f"ended: {end}"] > 0 for end in ("power", "poisoned", "full"))),
    )


# ---------------------------------------------------------------- mutants


def mutants(options):
    """whether the fault bench can fail: a bug planted in what surrounds the program, by seed"""
    seeds = 100 if options.short else 2_000
    command = ["cargo", "test", "--locked", "--quiet", "-p", "collector", "--test", "faults"]
    if subprocess.run(command + ["--no-run"], cwd=ROOT).returncode != 0:
        raise CannotMeasure("cargo could not build the fault bench")
    done = subprocess.run(
        command + ["--", "--exact", PLANTED_BUGS, "--nocapture"],
        cwd=ROOT, capture_output=True, text=True,
        # What the bench says is wanted, and not from where.
        env={**os.environ, "MIKOMI_PLANTED_SEEDS": str(seeds), "RUST_BACKTRACE": "0"})
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(f"figure   {len(found)} bugs found; each tried with {seeds:,} seeds:")
    for bug in found:
        print(f"         {bug['planted']}: by seed {bug['first']}, {bug['found']:,} seeds of "
              f"{bug['of']:,}; the bench says: {bug['said'][:100]}")
    if done.returncode != 0:
        print("         " + (done.stdout + done.stderr)[-500:].strip())
    return verdict(
        ("each planted bug makes the bench fail, by name", done.returncode == 0 and found),
        ("without it the same seed passes", done.returncode == 0),
        ("it does so by the 200 seeds of ./test", all(bug["first"] <= 200 for bug in found)),
    )


# ---------------------------------------------------------------- disk-full


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of its own, in memory: it needs no device, and is really full when it is."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"mount refuses a tmpfs ({done.stderr.strip()}): it needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(path):
    with open(path, "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"\0" * MIB) > 0:
            pass
    with open(path, "ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"\0" * 4096) > 0:
            pass


def until(what, holds, seconds=60):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if holds():
            return
        time.sleep(0.02)
    raise CannotMeasure(f"{what}: not within {seconds} s")


def press(server):
    """Hits that nobody counts, until the segment in use is full: browsers that wait for a key of
    somebody new, which has no space either, send none."""
    hits = [{"s": "demo", "u": f"https://www.vendor.example{PRESSED}"}] * 400
    with contextlib.suppress(OSError):
        server.ask(server.port, "/b", body=json.dumps(hits))
    return is_full(server)


def is_full(server):
    return server.metrics()["mikomi_disk_full"] == 1


def refused(server):
    return sum(value for name, value in server.metrics().items()
               if name.startswith("mikomi_rejected_hits_total") and '"disk_full"' in name)


def asked_while_full(server):
    """What a browser, a load balancer and a person get then: whether it is as documented."""
    hit = json.dumps({"s": "demo", "u": f"https://www.vendor.example{PRESSED}"})
    status, _ = server.ask(server.port, "/b", body=hit)
    ready, why = server.ask(server.port, "/readyz")
    healthy, _ = server.ask(server.port, "/healthz")
    leads = json.loads(server.admin("/api/hot"))
    return (status == 503 and ready == 503 and b"the disk is full" in why and healthy == 200
            and "leads" in leads)


def disk_full(options):
    """a disk that fills under load and is emptied again, and a stop while it is full"""
    rounds = 3 if options.short else 20
    build("collector", "loadtest")
    with work_folder() as folder:
        receiver = free_port()
        server = Server(folder / "server", {**NO_RATES, **SMALL}, receiver)
        account = folder / "account.tsv"
        with small_disk(server.data, "384m"):
            filler = server.data / "filler"
            resumed, as_documented, took = 0, 0, None
            with server, witness(server, receiver, account, 2_000) as browsers:
                server.metrics()  # with a token made while there is space for it
                time.sleep(1)
                for _ in range(rounds):
                    fill(filler)
                    until("the disk is met full", lambda: press(server))
                    as_documented += asked_while_full(server)
                    before = server.metrics()["mikomi_journal_durable_position"]
                    filler.unlink()
                    until("it goes on", lambda: server.metrics()[
                        "mikomi_journal_durable_position"] > before + 100 and not is_full(server))
                    resumed += 1
                refusals = refused(server)
                fill(filler)
                until("the disk is met full", lambda: press(server))
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                try:
                    code = server.process.wait(timeout=60)
                    took = time.monotonic() - began
                except subprocess.TimeoutExpired:
                    code = None
                    server.kill()
                released = not (server.data / "journal" / "reserve").exists()
                filler.unlink()
                server.start()
                again = server.metrics()["mikomi_journal_reserve_bytes"]
                time.sleep(1)
                witnessed, known, exported, *rest = found_in(
                    server, account, witnessed_by(browsers))
    exported = [line for line in exported if json.loads(line)["path"] != PRESSED]
    found = (witnessed, known, exported, *rest)
    outcome = judge_kills(rounds, *found, what="times full")
    print(f"         refused with disk_full {refusals:,.0f} times; the stop on the full disk took "
          f"{'for ever' if took is None else f'{took:.1f} s'} and ended with {code}")
    also = verdict(
        (f"503, not ready, alive and readable each time ({as_documented} of {rounds})",
         as_documented == rounds and refusals >= rounds),
        (f"went on by itself each time ({resumed} of {rounds})", resumed == rounds),
        ("a stop on a full disk ends with 0, by giving back the reserve", code == 0 and released),
        ("the reserve is made again", again == 4 * MIB),
    )
    return MISSED if MISSED in (outcome, also) else outcome


# ---------------------------------------------------------------- bad-fsync


def shim(folder):
    """The library that makes one call fail."""
    library = folder / "fault.so"
    source = ROOT / "loadtest" / "measure" / "fault.c"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise CannotMeasure("cc is missing: install gcc") from missing
    if done.returncode != 0:
        raise CannotMeasure(f"cc could not make the shim: {done.stderr}")
    return library


def one_fault(server, folder, library, call, nth):
    """Runs until the call fails or for a while; whether it failed, whether the process was ready
    before, and how it ended."""
    note = folder / f"{call}-{nth}"
    calm = server.environment
    server.environment = {**calm, "LD_PRELOAD": str(library), "FAULT_CALL": call,
                          "FAULT_NTH": str(nth), "FAULT_UNDER": f"{server.data}/",
                          "FAULT_NOTE": str(note)}
    ready = False
    try:
        with contextlib.suppress(CannotMeasure):
            server.start()
            ready = True
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends and server.process.poll() is None:
            time.sleep(0.02)
    finally:
        server.environment = calm
    code = server.process.poll()
    if code is None:
        server.kill()
    return note.exists(), ready, code


def bad_fsync(options):
    """a system call on the data folder that fails, and what was acknowledged before it"""
    places = (1, 5, 25) if options.short else (
        *range(1, 31), 40, 50, 75, 100, 125, 150, 175, 200, 300, 400)
    build("collector", "loadtest")
    with work_folder() as folder:
        library, receiver = shim(folder), free_port()
        server = Server(folder / "server", {**NO_RATES, **SMALL}, receiver)
        account, codes, wrong = folder / "account.tsv", collections.Counter(), []
        server.start()
        with witness(server, receiver, account, 3_000) as browsers:
            time.sleep(1)
            server.kill()
            for call in CALLS:
                for nth in places:
                    failed, ready, code = one_fault(server, folder, library, call, nth)
                    if not failed:
                        codes[call, "not reached"] += 1
                        continue
                    codes[call, "lives" if code is None else code] += 1
                    # A failed sync of data always ends the process; what else fails may be a file
                    # that can be made again, or a read that is tried again.
                    ends = code == EXIT_POISONED or code == 1 and not ready
                    lives = code is None and ready and call != "fdatasync"
                    if not (ends or lives):
                        wrong.append((call, nth, ready, code))
            server.start()
            time.sleep(1)
            found = found_in(server, account, witnessed_by(browsers))
    outcome = judge_kills(len(CALLS) * len(places), *found, what="starts with a fault")
    for call in CALLS:
        print(f"         {call:10} " + ", ".join(
            f"{end}: {times}" for (name, end), times in codes.items() if name == call))
    if wrong:
        print(f"         ended otherwise than documented: {wrong[:5]}")
    poisoned = sum(times for (_, end), times in codes.items() if end == EXIT_POISONED)
    if poisoned == 0:
        print("         no call failed while it ran: nothing was tested")
        return UNCLEAR if outcome == MET else outcome
    also = verdict((f"it ends with {EXIT_POISONED}, or 1 at a start, or goes on", not wrong))
    return MISSED if MISSED in (outcome, also) else outcome
