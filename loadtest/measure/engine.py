"""The engine alone, in process: what a hit costs, how it grows, and what a visitor takes."""

import json
import statistics
import subprocess

from measure.common import CannotMeasure, binary, build, verdict

# With the shipped ones this makes 200.
MORE_RULES = 182


def hits(visitors, threads, more_rules, seconds, batch=1):
    """One round of the benchmark of this name."""
    case = (visitors, threads, more_rules, seconds, batch)
    command = [binary("hits"), *(str(it) for it in case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800)
    if done.returncode != 0:
        raise CannotMeasure("the engine could not be driven")
    return json.loads(done.stdout)


def engine(options):
    """hits a second of the engine alone, of visitors who come back: with few and 200 rules, batched"""
    visitors, seconds, rounds = (500_000, 2, 1) if options.short else (20_000_000, 5, 3)
    build("benches/hits")
    cases = {"200 rules": (visitors, 1, MORE_RULES, seconds),
             "shipped rules": (visitors, 1, 0, seconds),
             "200 rules, batches of 100": (visitors, 1, MORE_RULES, seconds, 100),
             "200 rules, 2 threads": (visitors, 2, MORE_RULES, seconds),
             "200 rules, 10,000 visitors": (10_000, 1, MORE_RULES, seconds)}
    found = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(hits(*case))
    rate = {name: statistics.median(it["hits_per_s"] for it in runs)
            for name, runs in found.items()}
    print(f"figure   {visitors:,} visitors, records encoded, no disk; median of {rounds}:")
    for name, runs in found.items():
        low, high = min(it["hits_per_s"] for it in runs), max(it["hits_per_s"] for it in runs)
        print(f"         {name:27} {rate[name]:12,.0f} hits/s, {1e6 / rate[name]:.2f} us a hit "
              f"({low:,.0f} to {high:,.0f})")
    one = found["200 rules"][0]
    print(f"         a visitor with two rows takes {one['memory_bytes']:.0f} bytes, a hit "
          f"{one['record_bytes']:.0f} bytes of the journal")
    return verdict(
        (">= 1.3 million hits/s with 200 rules, one thread", rate["200 rules"] >= 1.3e6),
        (">= 2.5 million without them", rate["shipped rules"] >= 2.5e6),
        ("batches of 100 hits of one visitor are at least twice as fast",
         rate["200 rules, batches of 100"] >= 2 * rate["200 rules"]),
        ("two threads do at least 1.8 times as much",
         rate["200 rules, 2 threads"] >= 1.8 * rate["200 rules"]),
        ("at most 1.5 times as dear as with 10,000 visitors",
         rate["200 rules"] * 1.5 >= rate["200 rules, 10,000 visitors"]),
    )


def memory(options):
    """what anonymous visitors with two rows take in memory, full tables and just doubled ones"""
    # A table of 2^k places is full at seven of eight; one visitor more in each shard doubles it.
    places = 2 ** 20 if options.short else 2 ** 24
    full, doubled = int(places * 7 / 8 * 0.97), int(places * 7 / 8 * 1.1)
    build("benches/hits")
    found = {visitors: hits(visitors, 1, 0, 1)["memory_bytes"] for visitors in (full, doubled)}
    for visitors, bytes_each in found.items():
        print(f"figure   {visitors:,} visitors: {bytes_each:.0f} bytes each, by resident memory")
    return verdict(
        ("<= 128 bytes where tables are nearly full", found[full] <= 128),
        ("<= 176 bytes just after a doubling", found[doubled] <= 176),
    )
