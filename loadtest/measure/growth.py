"""What grows: a hit's cost with the visitors known and with time, the journal with each hit, and
memory with each connection that is kept open."""

import collections
import gzip
import itertools
import re
import resource
import socket
import time
import urllib.parse

from measure.common import (
    ROOT, CannotMeasure, Goals, build, load, need, spread, work_folder)
from measure.hot import Size, play, real, tell
from measure.recovery import BY_HAND, GB, said, seed, started
from measure.rivals import Target, site

# ---------------------------------------------------------------- with visitors and time


def known(name, folder, visitors):
    """A site that was seeded with so many visitors: as somebody to be loaded, not yet started."""
    server = site(folder, BY_HAND)
    server.patience_s = 600
    cookies = folder / "cookies"
    made = seed(server.data, visitors, "--cookies", str(cookies))
    return Target(name, server.port, None, cookies, server), made


def growth(options):
    """a whole hit with many visitors known beside few, and over half an hour, and memory"""
    few, many = 10_000, 500_000 if options.short else 20_000_000
    size = Size(3, many, 500, 2_500) if options.short else Size(5, many, 1_000, 10_000)
    pieces, piece_s = (2, 5) if options.short else (6, 300)
    goals = Goals()
    need("taskset", "util-linux", options.install)
    build("benches/seed", "collector", "loadtest")
    with work_folder() as folder:
        small, _ = known("few", folder / "few", few)
        large, made = known("many", folder / "many", many)
        with small.server, large.server:
            for target in (small, large):
                target.pids = [target.server.process.pid]
                target.begin()
            print(f"         few: {few:,} visitors; many: {many:,} and {made['leads']:,} leads, "
                  f"{made['journal_bytes'] / GB:.2f} GB of journal, "
                  f"{large.server.memory_mib():,.0f} MiB resident")
            tell(size, "any of them as likely as another; no snapshot is taken meanwhile")
            found = play(size, [small, large], "pixel", 256, "")
            ratio = [one["cpu_us_per_hit"] / other["cpu_us_per_hit"]
                     for one, other in zip(found["many"], found["few"])]
            goals.at_most(f"CPU a hit with {many:,} visitors / with {few:,}", ratio, 1.5)
            # So few that soon they have behind them all that is kept of anybody.
            some = 1_000 if options.short else few
            over_time(goals, large, folder / "some", some, pieces, piece_s)
            real(goals, [small, large])
    return goals.outcome()


def over_time(goals, target, some, count, pieces, piece_s):
    """Piece after piece, of a few of the visitors: what grows then is not what is known of them."""
    with open(target.cookies) as cookies, open(some, "w") as file:
        file.writelines(itertools.islice(cookies, count))
    found = []
    for number in range(pieces):
        one = load(target.port, "--seed", len(target.rounds) + 1, "hits", "--cookies", some,
                   "--connections", 64, "--warm-ms", 500, "--count-ms", piece_s * 1_000,
                   "--pids", target.pids[0], core=1)
        one["memory_mib"] = target.server.memory_mib()
        target.rounds.append(one)
        found.append(one)
        print(f"figure   piece {number + 1} of {piece_s} s, {count:,} of the visitors: "
              f"{one['hits_per_s']:,.0f} hits/s, {one['cpu_us_per_hit']:.2f} us CPU a hit, p99 "
              f"{one['answered_ms']['p99']:.2f} ms; {one['memory_mib']:,.0f} MiB resident",
              flush=True)
    first, last = found[0], found[-1]
    goals.at_most("CPU a hit of the last piece / of the first",
                  [last["cpu_us_per_hit"] / first["cpu_us_per_hit"]], 1.1)
    goals.at_most("p99 of the last piece / of the first",
                  [last["answered_ms"]["p99"] / first["answered_ms"]["p99"]], 1.5)
    goals.at_most("memory after the last piece / after the first",
                  [last["memory_mib"] / first["memory_mib"]], 1.05)


# ---------------------------------------------------------------- the journal

LOG = ROOT.parent / "shared" / "data" / "apache_access_2015_elastic.log.gz"
# Address, method, path, status, referrer, agent.
COMBINED = re.compile(
    r'(\S+) \S+ \S+ \[[^]]+\] "(\S+) (\S+)[^"]*" (\d+) \S+ "([^"]*)" "([^"]*)"')
# What is no page: images, styles, scripts, files to download.
NO_PAGE = re.compile(r"\.(?!html$|xhtml$|php$)[a-z0-9]{1,6}$", re.IGNORECASE)
HOST = "https://www.site.example"


def page_views(log):
    """The page views of a log: visitor (by address and agent), query, agent."""
    visitors = collections.defaultdict(itertools.count().__next__)
    for line in log:
        found = COMBINED.match(line)
        if not found:
            continue
        address, method, path, status, referrer, agent = found.groups()
        if method != "GET" or status not in ("200", "304") or NO_PAGE.search(path.split("?")[0]):
            continue
        query = "&u=" + urllib.parse.quote(HOST + path, safe="")
        if referrer not in ("", "-"):
            query += "&r=" + urllib.parse.quote(referrer, safe="")
        yield visitors[(address, agent)], query, agent.replace("\t", " ")


def journal(options):
    """bytes of the journal a hit of a real site's access log, and the speed of its replay"""
    if not LOG.exists():
        raise CannotMeasure(f"there is no {LOG.name} in ../shared/data")
    laps, rounds = (64, 3) if options.short else (512, 5)
    goals = Goals()
    need("taskset", "util-linux", options.install)
    build("collector", "loadtest")
    with work_folder() as folder:
        with gzip.open(LOG, "rt", errors="replace") as log:
            lines = ["\t".join(map(str, view)) for view in page_views(log)]
        views = folder / "views"
        views.write_text("\n".join(lines) + "\n")
        server = site(folder / "server", BY_HAND)
        with server:
            before = server.metrics()
            sent = load(server.port, "log", "--file", views, "--laps", laps, core=1)
            after = server.metrics()
        gained = {name: after[f"mikomi_{name}"] - before[f"mikomi_{name}"] for name in (
            "hits_total", "first_hits_total", "visitors_admitted_total", "journal_bytes",
            "journal_commits_total")}
        replays = []
        for _ in range(rounds):
            started(server)
            replays.append(said(server, "replayed"))
            server.stop()
    return judge_journal(goals, sent, gained, replays, (len(lines), laps))


def judge_journal(goals, sent, gained, replays, played):
    lines, laps = played
    hits = gained["hits_total"]
    bytes_each = gained["journal_bytes"] / max(hits, 1)
    speed = [one["records"] / (one["took_ms"] / 1_000) for one in replays]
    took = [one["took_ms"] / 1_000 / (one["bytes"] / GB) for one in replays]
    print(f"figure   {lines:,} page views of the log, {laps} times, each time by new visitors: "
          f"{hits:,.0f} hits, {gained['first_hits_total']:,.0f} of them first ones, "
          f"{gained['visitors_admitted_total']:,.0f} visitors came back")
    print(f"         {bytes_each:.1f} bytes of the journal a hit, "
          f"{hits / gained['journal_commits_total']:.0f} hits a commit")
    print(f"         a start replays {replays[0]['records']:,} records, "
          f"{spread(speed, ',.0f')} a second on one core, {spread(took, '.1f')} s a GB")
    goals.sure("every answer is 200, none is lost, no hit is left out",
               set(sent["all"]["statuses"]) == {"200"} and sent["remarks"] == 0)
    goals.sure(f"recorded hits = answered hits ({hits:,.0f}, {sent['all_hits']:,})",
               hits == sent["all_hits"] == lines * laps)
    goals.sure("every hit was replayed", all(one["records"] >= hits for one in replays))
    goals.at_most("bytes of the journal a hit", [bytes_each], 150)
    goals.at_least("records/s of the replay", speed, 2_000_000)
    return goals.outcome()


# ---------------------------------------------------------------- connections


def connections(options):
    """resident memory of a connection that is kept open and says nothing"""
    first, more = (100, 1_000) if options.short else (100, 3_900)
    rounds, goals = 3 if options.short else 5, Goals()
    build("collector")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_192)), hard))
    found = []
    for _ in range(rounds):
        with work_folder() as folder, site(folder / "server") as server:
            # The first ones bring along what is there once.
            kept = [kept_open(server.port, number) for number in range(first)]
            before = at_rest(server)
            kept += [kept_open(server.port, first + number) for number in range(more)]
            found.append((at_rest(server) - before) * 1_048_576 / more)
            hits = server.metrics()["mikomi_hits_total"]
            alive = sum(1 for it in kept if is_open(it))
            for it in kept:
                it.close()
        goals.sure(f"all {first + more:,} hits were recorded, all connections are still open",
                   hits == alive == first + more)
    print(f"figure   {more:,} connections after {first} others, one page view on each: "
          f"{spread(found, ',.0f')} bytes each, {rounds} servers")
    goals.at_most("bytes of an idle connection", found, 8_192)
    return goals.outcome()


def at_rest(server):
    """Its memory, once it has given back what it does for a moment only."""
    looks = []
    for _ in range(20):
        time.sleep(0.1)
        looks.append(server.memory_mib())
    return min(looks)


def kept_open(port, number):
    """A connection after its first answer."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    page = f"/p.gif?s=demo&u=https%3A%2F%2Fwww.site.example%2F&i={number:016x}"
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    stream.sendall(f"GET {page} HTTP/1.1\r\nHost: t.site.example\r\nUser-Agent: {agent}\r\n"
                   f"Accept: image/avif,image/webp,*/*;q=0.5\r\n\r\n".encode())
    answer = stream.recv(4_096)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise CannotMeasure(f"a page view is answered {answer[:40]!r}")
    return stream


def is_open(stream):
    stream.setblocking(False)
    try:
        # Some of the answer's end may still be there; nothing at all is the end.
        return stream.recv(4_096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
