"""Acknowledged hits and alerts survive kill -9 under load, each once."""

import collections
import contextlib
import json
import random
import subprocess
import time

from .common import (
    MET, MISSED, NO_RATES, SEED, UNCLEAR, CannotMeasure, Server, build, free_port, probe, verdict,
    work_folder)

KILLS, HITS = 500, 10_000_000
# A journal grows until its folder is left: each start reads all of it.
KILLS_A_FOLDER = 25
# So that half a million hits of a folder meet no limit on what is kept.
ROOM = {"MIKOMI__limits__leads_max": "2000000", "MIKOMI__limits__visitors_max": "4000000"}


@contextlib.contextmanager
def witness(server, receiver, account, rate):
    """Browsers that send each hit until it is acknowledged, and the receiver of alerts."""
    process = subprocess.Popen(
        probe(server.port, "--seed", SEED, "browse", "--receiver", f"127.0.0.1:{receiver}",
              "--out", account, "--rate", rate),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()


def witnessed_by(process):
    """Lets it end; what it counted."""
    found, _ = process.communicate(timeout=180)
    if process.returncode != 0:
        raise CannotMeasure("the witness failed")
    return json.loads(found)


def found_in(server, account, witnessed):
    """What the client knows, and what the server and its replay say."""
    state = json.loads(server.admin("/api/state"))
    exported = server.admin("/api/export/hits").splitlines()
    hot = json.loads(server.admin("/api/hot"))["leads"]
    server.stop()
    replay = subprocess.run(
        server.command("replay", "--now", str(state["now_ms"])), capture_output=True, text=True)
    if replay.returncode != 0:
        raise CannotMeasure(f"replay failed: {replay.stderr}")
    return witnessed, read_account(account), exported, hot, state, json.loads(replay.stdout)


def kills(options):
    """acknowledged hits and alerts survive kill -9 under load, each once"""
    build("collector", "loadtest")
    chance = random.Random(SEED)
    if options.short:
        return judge_kills(5, *one_folder(5, chance, (0.3, 1.5), 3_000))
    done = acknowledged = 0
    outcome = MET
    while done < KILLS or acknowledged < HITS:
        print(f"folder   {done // KILLS_A_FOLDER + 1}: {done} kills and {acknowledged:,} hits "
              "so far", flush=True)
        found = one_folder(KILLS_A_FOLDER, chance, (1.0, 6.0), 6_000)
        verdict_here = judge_kills(KILLS_A_FOLDER, *found)
        if verdict_here == MISSED:
            return MISSED
        if verdict_here == UNCLEAR:
            outcome = UNCLEAR
        done += KILLS_A_FOLDER
        acknowledged += found[0]["acknowledged"]
    print(f"figure   {done} kills and {acknowledged:,} hits in all")
    return outcome


def one_folder(rounds, chance, pause, rate):
    with work_folder() as folder:
        receiver = free_port()
        server = Server(folder, {**NO_RATES, **ROOM}, receiver)
        account = folder / "account.tsv"
        with server, witness(server, receiver, account, rate) as browsers:
            for _ in range(rounds):
                time.sleep(chance.uniform(*pause))
                server.kill()
                server.start()
            time.sleep(1)
            return found_in(server, account, witnessed_by(browsers))


def read_account(path):
    rows = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        kind, *fields = line.split("\t")
        rows[kind].append(fields)
    return rows


def judge_kills(rounds, witnessed, account, exported, hot, state, replay, what="kills"):
    recorded = collections.Counter(json.loads(line)["path"] for line in exported)
    hits = [(path, cookie == "1", acknowledged == "1")
            for path, cookie, _, acknowledged in account["hit"]]
    missing = [path for path, _, acknowledged in hits if acknowledged and not recorded[path]]
    doubled = [path for path, cookie, _ in hits if cookie and recorded[path] > 1]
    doubled_first = sum(1 for path, cookie, _ in hits if not cookie and recorded[path] > 1)
    strangers = set(recorded) - {path for path, _, _ in hits}

    ids, causes = collections.defaultdict(set), collections.defaultdict(set)
    for alert, kind, lead, threshold, number, _ in account["told"]:
        ids[(kind, lead, threshold, number)].add(alert)
        causes[alert].add((kind, lead, threshold, number))
    told = {row[5] for row in account["told"] if row[1] == "lead.hot"}
    expected = {row[0] for row in account["expected"]}
    hot_mails = {lead["email"] for lead in hot}
    many_ids = [cause for cause, those in ids.items() if len(those) > 1]
    many_causes = [alert for alert, those in causes.items() if len(those) > 1]

    print(f"figure   {witnessed['acknowledged']:,} hits acknowledged in "
          f"{witnessed['seconds']:.0f} s, {rounds} {what}, "
          f"{witnessed['sent_again']} hits sent again after a lost answer")
    print(f"         missing {len(missing)}, recorded twice {len(doubled)} "
          f"(of visitors without a cookie yet, where nothing is promised: {doubled_first})")
    print(f"         {len(expected)} alerts expected by the client, {len(hot_mails)} leads hot, "
          f"{len(account['told'])} webhooks read, {len(causes)} ids for {len(ids)} crossings")
    print(f"         state hash {state['hash']} live, {replay['hash']} replayed "
          f"({replay['records']:,} records)")
    if what == "kills":
        print("         kill -9 ends the process, not the machine: what the kernel holds survives "
              "it")
    for what, those in (("missing", missing), ("twice", doubled), ("many ids", many_ids),
                        ("untold", expected - told), ("not hot", expected - hot_mails)):
        if those:
            print(f"         {what}: {sorted(map(str, those))[:5]}")
    if witnessed["sent_again"] == 0 or not expected:
        print("         nothing had to be sent again, or nobody became hot: nothing was tested")
        return UNCLEAR
    return verdict(
        ("acknowledged hits missing = 0", not missing),
        ("hits of visitors with a cookie recorded twice = 0", not doubled),
        ("hits recorded that nobody sent = 0", not strangers),
        ("hits refused or never acknowledged = 0",
         not witnessed["refused"] and witnessed["unacknowledged"] == 0),
        ("every crossing under exactly one id, every id for one crossing",
         not many_ids and not many_causes),
        ("whoever must be hot is hot and was told", expected <= told and expected <= hot_mails),
        ("whoever is hot was told", hot_mails <= told),
        ("state after the last restart equals its replay", state["hash"] == replay["hash"]),
    )
