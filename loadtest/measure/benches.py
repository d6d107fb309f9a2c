"""Every benchmark of `benches/` in one table: what it costs, its budget, and what it cost before."""

import json
import os
import pathlib
import statistics
import subprocess

from measure.common import MET, MISSED, ROOT, UNCLEAR, CannotMeasure, work_folder

# Nanoseconds of one hit, record or byte, as criterion counts them, and in words.
BUDGETS = {
    "hit/returning_visitor": (1e3 / 1.3, "1.3 M/s a core"),
    "hit/returning_visitor_shipped_rules": (1e3 / 2.5, "2.5 M/s a core"),
    "growth/returning_visitor": (1e3 / 1.3, "1.3 M/s a core"),
    "ingest/batch_of_100": (1e3 / 0.7, "0.7 M/s a core"),
    "rules/remembered/200": (400, "0.4 us"),
    "rules/not_remembered/200": (400, "0.4 us"),
    "rules/remembered/1000": (1_000, "1 us"),
    "record/decode": (500, "2 M/s a core"),
    "replay/decode_and_apply": (500, "2 M/s a core"),
    "snapshot/read": (2, "2 s a GB"),
}
# Of a benchmark to another one, at most.
RATIOS = [
    ("contention/apart/2", "contention/apart/1", 1 / 1.8,
     "two threads do at least 1.8 times as much"),
    ("growth/returning_visitor/1000000", "growth/returning_visitor/10000", 1.5,
     "with a million visitors at most 1.5 times as dear as with ten thousand"),
    ("growth/returning_visitor/20000000", "growth/returning_visitor/10000", 1.5,
     "with 20 million visitors at most 1.5 times as dear as with ten thousand"),
]
# Less than this is no difference, whatever the intervals say: a machine that others are on too
# is never the same for two runs.
NOISE = 0.05
KEPT = ROOT / ".measure"


def run(home, data, visitors, short):
    """One round of all of them, into criterion's folder."""
    how = ["0.1", "0.3", "10"] if short else ["0.3", "1", "15"]
    names = ["--warm-up-time", "--measurement-time", "--sample-size"]
    words = [word for pair in zip(names, how) for word in pair]
    command = ["cargo", "bench", "--quiet", "-p", "benches", "--bench", "all", "--", *words,
               "--nresamples", "2000", "--noplot"]
    environment = {**os.environ, "CRITERION_HOME": str(home), "MIKOMI_BENCH_DATA": str(data),
                   "MIKOMI_BENCH_VISITORS": visitors}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"a benchmark failed:\n{done.stderr[-2000:]}")
    return estimates(home)


def estimates(home):
    """What criterion estimates of each: the median and its interval, in ns of one hit or byte."""
    found = {}
    for path in sorted(pathlib.Path(home).glob("**/new/estimates.json")):
        about = json.loads((path.parent / "benchmark.json").read_text())
        median = json.loads(path.read_text())["median"]
        kind, count = next(iter((about["throughput"] or {"Times": 1}).items()))
        interval = median["confidence_interval"]
        found[about["full_id"]] = {
            "of": {"Elements": "one", "Bytes": "a byte"}.get(kind, "one"),
            "median_ns": median["point_estimate"] / count,
            "low_ns": interval["lower_bound"] / count, "high_ns": interval["upper_bound"] / count}
    if not found:
        raise CannotMeasure("criterion left no estimates")
    return found


def together(rounds):
    """Several rounds as one: the median of their medians, and all that their intervals span."""
    return {name: {
        "of": rounds[0][name]["of"],
        "median_ns": statistics.median(one[name]["median_ns"] for one in rounds),
        "low_ns": min(one[name]["low_ns"] for one in rounds),
        "high_ns": max(one[name]["high_ns"] for one in rounds),
    } for name in rounds[0]}


def shown(ns):
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= size:
            return f"{ns / size:.4g} {unit}"
    return f"{ns:.3g} ns"


def budget_of(name):
    # With how many visitors or threads is no other budget.
    return BUDGETS.get(name) or BUDGETS.get(name.rpartition("/")[0])


def judged(low, middle, high, limit):
    if low <= limit < high:
        return UNCLEAR
    return MET if middle <= limit else MISSED


WORDS = {MET: "met", MISSED: "MISSED", UNCLEAR: "unclear"}


def change(now, before):
    """How it differs from a run that was kept: a word only where it is more than chance."""
    if before is None:
        return "new"
    by = now["median_ns"] / before["median_ns"]
    words = f"{(by - 1) * 100:+.0f} %"
    if abs(by - 1) <= NOISE:
        return words
    if now["low_ns"] > before["high_ns"]:
        return f"{words} SLOWER"
    return f"{words} faster" if now["high_ns"] < before["low_ns"] else words


def in_order(item):
    """By name, and numbers in it by their size."""
    return [(part.isdigit() and int(part), part) for part in item[0].split("/")]


def table(found, before):
    """Prints all of them; what the budgets say."""
    outcomes = []
    head = f"{'':37} {'median':>9}  {'spread':21} {'budget':16} {'':8}"
    print(f"figure   {head}{'since' if before else ''}".rstrip())
    for name, one in sorted(found.items(), key=in_order):
        spread = f"{shown(one['low_ns'])} to {shown(one['high_ns'])}"
        words, outcome = "", None
        if budget := budget_of(name):
            words = budget[1]
            outcome = judged(one["low_ns"], one["median_ns"], one["high_ns"], budget[0])
            outcomes.append(outcome)
        since = change(one, before.get(name)) if before else ""
        label = name if one["of"] == "one" else f"{name}, {one['of']}"
        print(f"         {label:37} {shown(one['median_ns']):>9}  {spread:21} {words:16} "
              f"{WORDS.get(outcome, ''):8}{since}".rstrip())
    for name in sorted(set(before or {}) - set(found)):
        print(f"         {name:37} was measured before, and is not now")
    return outcomes


def ratios(rounds):
    """Between benchmarks of the same round, since a machine has its moods."""
    outcomes = []
    for name, other, limit, words in RATIOS:
        if name not in rounds[0] or other not in rounds[0]:
            continue
        each = sorted(one[name]["median_ns"] / one[other]["median_ns"] for one in rounds)
        outcomes.append(judged(each[0], statistics.median(each), each[-1], limit))
        more = " to ".join(f"{it:.2f}" for it in (each[0], each[-1]))
        print(f"  {WORDS[outcomes[-1]]:7} {words} (a hit takes {more} times as long)")
    return outcomes


def read(path):
    try:
        return json.loads(pathlib.Path(path).read_text())["benches"]
    except (OSError, ValueError, KeyError) as failure:
        raise CannotMeasure(f"{path} is no run that was kept: {failure}") from failure


def benches(options):
    """what each part costs by itself: hits, rules, fading, parsing, records, commits, snapshots"""
    # Before it is overwritten.
    before = read(options.against) if options.against else None
    visitors = options.visitors or ("10000,100000" if options.short else "10000,1000000")
    command = ["cargo", "bench", "--quiet", "--no-run", "-p", "benches", "--bench", "all"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise CannotMeasure("cargo could not build the benchmarks")
    with work_folder() as folder:
        (folder / "data").mkdir()
        rounds = [run(folder / f"round-{number}", folder / "data", visitors, options.short)
                  for number in range(1 if options.short else 3)]
    found = together(rounds)
    print(f"         {len(rounds)} rounds; the median of their medians, and what the 95 % intervals "
          "of all of them span; of one hit, record or byte")
    outcomes = table(found, before) + ratios(rounds)
    kept = pathlib.Path(options.save or KEPT / ("short.json" if options.short else "benches.json"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"facts": options.facts, "rounds": len(rounds), "benches": found},
                               indent=1) + "\n")
    print(f"         kept as {kept}; --against {kept} compares with it")
    return max((MET, *outcomes), key=(MET, UNCLEAR, MISSED).index)
