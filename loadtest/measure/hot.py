"""The hot path: what a hit costs from the first byte to the answer, beside servers that do less.

All of a server's threads have the first core, whoever loads it the other. What counts is the CPU
time of the server's threads by the scheduler, and hits a second where the server's core is full.
"""

import contextlib
import dataclasses
import statistics

from measure.common import Goals, build, load, need, spread, work_folder
from measure.rivals import alone, hyper, mikomi, nginx

# Measured on a machine like this one, with 64 connections: PostHog's capture (hog-rs of June 2024)
# into a sink that does nothing, in microseconds of CPU: a single event, and one of a batch of 100.
POSTHOG_US, POSTHOG_BATCH_US = 48.2, 4.13
# And what nginx cost there with cookie and log: other machines are told from it by that.
NGINX_THEN_US = 10.39


@dataclasses.dataclass
class Size:
    """How much of it."""
    rounds: int
    visitors: int
    warm_ms: int
    count_ms: int

    @classmethod
    def of(cls, options):
        return cls(3, 12_000, 300, 1_200) if options.short else cls(5, 50_000, 500, 3_000)


@contextlib.contextmanager
def measuring(options):
    """The folder, and what is left at its end."""
    need("taskset", "util-linux", options.install)
    build("collector", "loadtest")
    with work_folder() as folder, contextlib.ExitStack() as stack:
        yield folder, stack.enter_context


def play(size, targets, form, connections, other_cookie):
    """Rounds of all of them in turn, the others still; each target's own."""
    any_cookies = next(target.cookies for target in targets if target.cookies)
    found = {target.name: [] for target in targets}
    for number in range(size.rounds):
        for target in targets if number % 2 == 0 else targets[::-1]:
            with alone(target, targets):
                # nginx knows no bodies: it is only ever asked for its GIF.
                one = load(
                    target.port, "--seed", len(target.rounds) + 1, "hits",
                    "--form", form if target.server else "pixel",
                    "--cookies", target.cookies or any_cookies, "--other-cookie", other_cookie,
                    "--connections", connections, "--warm-ms", size.warm_ms,
                    "--count-ms", size.count_ms, "--pids", ",".join(map(str, target.pids)), core=1)
            target.rounds.append(one)
            found[target.name].append(one)
    show(found, connections)
    return found


def show(found, connections):
    print(f"figure   {connections:,} connections")
    for name, rounds in found.items():
        values = lambda key: [one[key] for one in rounds]
        answered = lambda key: [one["answered_ms"][key] for one in rounds]
        print(f"         {name:12} {spread(values('hits_per_s'), ',.0f')} hits/s, "
              f"{spread(values('cpu_us_per_hit'), '.2f')} us CPU a hit, "
              f"{spread(values('cpu_share'), '.2f')} of its core")
        print(f"         {'':12} answered in p50 {spread(answered('p50'), '.2f')}, p99 "
              f"{spread(answered('p99'), '.2f')} ms; the client took "
              f"{statistics.median(values('client_us_per_hit')):.2f} us a hit, "
              f"{statistics.median(values('client_share')):.2f} of its core", flush=True)


def tell(size, what):
    print(f"         {size.rounds} interleaved rounds of {size.count_ms / 1000:.1f} s each, "
          f"{size.visitors:,} returning visitors, 200 rules, heads of 660 bytes;")
    print(f"         {what}; medians, and from where to where", flush=True)


def ratios(found, ours, theirs, key):
    """Of each round."""
    return [one[key] / other[key] for one, other in zip(found[ours], found[theirs])]


def real(goals, targets):
    """That the figures are of real work."""
    for target in targets:
        if not target.server:
            goals.sure(f"{target.name}: every answer is 200, none is lost", target.is_clean("200"))
            continue
        taken = any(target.is_clean(status) for status in ("200", "204"))
        goals.sure(f"{target.name}: every answer is 2xx, none is lost, no hit is left out", taken)
        kept, answered, nobody_new = target.kept()
        goals.sure(f"{target.name}: recorded hits = answered hits ({kept:,}, {answered:,}), none "
                   "of a new visitor", kept == answered and nobody_new)


def pixel(options):
    """the whole way of a pixel hit, acknowledged when it is on the disk, beside nginx"""
    size, goals = Size.of(options), Goals()
    with measuring(options) as (folder, enter):
        ours = enter(mikomi("mikomi", folder / "mikomi", size.visitors))
        theirs, bare, uid = enter(nginx(folder / "nginx", options.install))
        tell(size, "mikomi answers after fdatasync, nginx gives cookies and writes its log")
        ours.begin()
        for connections in (256, 1_024):
            found = play(size, [theirs, bare, ours], "pixel", connections, uid)
            cpu = ratios(found, "mikomi", "nginx", "cpu_us_per_hit")
            speed = ratios(found, "mikomi", "nginx", "hits_per_s")
            beside_bare = ratios(found, "mikomi", "nginx bare", "hits_per_s")
            print(f"         mikomi / nginx: CPU {spread(cpu, '.2f')}, hits/s "
                  f"{spread(speed, '.2f')}; hits/s / bare {spread(beside_bare, '.2f')} "
                  f"({'' if statistics.median(beside_bare) >= 0.85 else 'not '}"
                  "beyond 0.85)", flush=True)
            goals.at_most(f"{connections:,} connections: CPU a hit / nginx's", cpu, 1.15, 1.0)
            goals.at_least(f"{connections:,} connections: hits/s / nginx's", speed, 0.85, 1.0)
        real(goals, [theirs, bare, ours])
    return goals.outcome()


def durable(options):
    """what waiting for the disk costs: acknowledged and lossy, beside nginx and hyper, bare"""
    size, goals = Size.of(options), Goals()
    with measuring(options) as (folder, enter):
        ours = enter(mikomi("acknowledged", folder / "acknowledged", size.visitors))
        lossy = enter(mikomi("lossy", folder / "lossy", size.visitors,
                             {"MIKOMI__journal__durability": "lossy"}))
        _, bare, uid = enter(nginx(folder / "nginx", options.install))
        stub = enter(hyper())
        targets = [bare, stub, lossy, ours]
        tell(size, "lossy answers before fdatasync; nginx and hyper answer with a GIF, no more")
        for target in (ours, lossy):
            target.begin()
        found = {connections: play(size, targets, "pixel", connections, uid)
                 for connections in (256, 1_024)}
        speed = ratios(found[1_024], "acknowledged", "lossy", "hits_per_s")
        goals.at_least("1,024 connections: acknowledged hits/s / lossy", speed, 0.85, 0.9)
        goals.at_most("256 connections: acknowledged in p50 ms",
                      [one["answered_ms"]["p50"] for one in found[256]["acknowledged"]], 4)
        for connections, them in found.items():
            goals.at_least(f"{connections:,} connections: lossy hits/s / bare nginx's",
                           ratios(them, "lossy", "nginx bare", "hits_per_s"), 0.9)
            cpu = ratios(them, "lossy", "hyper", "cpu_us_per_hit")
            print(f"         {connections:,} connections: lossy CPU a hit / bare hyper's "
                  f"{spread(cpu, '.2f')} (beyond the goals: 1.2)")
        real(goals, targets)
    return goals.outcome()


def beacon(options):
    """a single JSON hit as the page script sends it, beside what PostHog's capture took"""
    size, goals = Size.of(options), Goals()
    with measuring(options) as (folder, enter):
        ours = enter(mikomi("mikomi", folder / "mikomi", size.visitors))
        theirs, _, uid = enter(nginx(folder / "nginx", options.install))
        tell(size, "bodies of 270 bytes, answered after fdatasync; nginx answers its GIF")
        ours.begin()
        found = play(size, [theirs, ours], "beacon", 256, uid)
        posthog = [one["cpu_us_per_hit"] * POSTHOG_US / NGINX_THEN_US for one in found["nginx"]]
        times = [other / one["cpu_us_per_hit"] for one, other in zip(found["mikomi"], posthog)]
        print(f"         PostHog took {POSTHOG_US} us a request where nginx took {NGINX_THEN_US}; "
              f"by nginx's figure of each round that is {spread(posthog, '.1f')} us here")
        goals.at_least("times as cheap as PostHog's capture, by CPU a hit", times, 4)
        real(goals, [theirs, ours])
    return goals.outcome()


def batch(options):
    """batches of 100 JSON hits, each batch of one visitor"""
    size, goals = Size.of(options), Goals()
    with measuring(options) as (folder, enter):
        ours = enter(mikomi("mikomi", folder / "mikomi", size.visitors))
        theirs, _, uid = enter(nginx(folder / "nginx", options.install))
        tell(size, "bodies of 27 KB, answered after fdatasync; nginx answers its GIF")
        ours.begin()
        found = play(size, [theirs, ours], "batch", 64, uid)
        # Where the client is the slower one, the core has time left.
        a_core = [1e6 / one["cpu_us_per_hit"] for one in found["mikomi"]]
        print(f"         hits a second of the server's CPU: {spread(a_core, ',.0f')}")
        scaled = [one["cpu_us_per_hit"] / NGINX_THEN_US for one in found["nginx"]]
        posthog = [1e6 / (POSTHOG_BATCH_US * slow) for slow in scaled]
        print("         PostHog took 243,000 of such a second in batches of 100; by nginx's figure "
              f"of each round that is {spread(posthog, ',.0f')} here")
        goals.at_least("hits/s a core", a_core, 700_000, 1_000_000)
        real(goals, [theirs, ours])
    return goals.outcome()
