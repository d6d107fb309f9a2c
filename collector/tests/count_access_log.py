"""An independent count of an access log: page views of each visitor, and their score under the rules
that ship. Standard library only, floating point, no code of mikomi's.

    count_access_log.py LOG.gz ROBOTS.txt NOW_MS > JSON {device: {"views": n, "score": points}}

A visitor is an address with a user agent. A page view is a GET answered 200 for what is no asset.
Only two of the rules can match such a site: "article" (a point for a page below /blog or /column, at
most 3 a day, worth 6 at any moment) and "returned" (5 points after 3 days away, once a day, worth 15).
"""
import collections
import datetime
import gzip
import hashlib
import json
import math
import re
import sys
from urllib.parse import unquote

LINE = re.compile(
    r'^(\S+) \S+ \S+ \[([^\]]+)\] "GET (\S+)[^"]*" 200 \S+ "(?:[^"\\]|\\.)*" "((?:[^"\\]|\\.)*)"$'
)
OTHER_RULES = ("/case", "/product", "/thanks", "/pricing", "/price", "/careers", "/recruit",
               "/preview", "/mypage", "/members")
DAY_MS = 86_400_000
HALF_LIFE_MS = 30 * DAY_MS
JAPAN_MS = 9 * 3_600_000


def worth(rows, now):
    """The value now of (when, points), faded, in thousandths rounded half up."""
    exact = sum(points * 2 ** (-max(0, now - when) / HALF_LIFE_MS) for when, points in rows)
    return math.floor(exact * 1000 + 0.5) / 1000


class Rule:
    def __init__(self, points, most, a_day):
        self.points, self.most, self.a_day = points, most, a_day
        self.rows, self.days = [], collections.Counter()

    def award(self, when):
        day = (when + JAPAN_MS) // DAY_MS
        if self.days[day] < self.a_day:
            self.days[day] += 1
            room = math.floor(self.most - worth(self.rows, when) + 1e-9)
            self.rows.append((when, max(0, min(self.points, room))))


def main(log, robots, now):
    words = [line.split("#")[0].strip().lower() for line in open(robots, encoding="utf-8")]
    words = [word for word in words if word]
    views = collections.defaultdict(list)
    agents = {}
    for line in gzip.open(log, "rt", encoding="utf-8", errors="replace"):
        found = LINE.match(line.rstrip("\n"))
        if not found:
            continue
        address, stamp, target, agent = found.groups()
        path = unquote(target.split("?")[0].split("#")[0])
        name = path.rsplit("/", 1)[-1]
        if "." in name and not name.endswith((".html", ".xhtml", ".php")):
            continue
        assert not path.startswith(OTHER_RULES), f"another rule may match {path}"
        time = datetime.datetime.strptime(stamp, "%d/%b/%Y:%H:%M:%S %z")
        device = hashlib.sha256(f"{address} {agent}".encode()).hexdigest()[:16]
        agents[device] = agent.lower()
        views[device].append((round(time.timestamp() * 1000), path))
    counted = {}
    for device, hits in views.items():
        article, returned = Rule(1, 6, 3), Rule(5, 15, 1)
        awards, last = [], None
        for when, path in hits:
            if last is not None and when - last >= 3 * DAY_MS:
                awards.append((when, returned))
            if path == "/blog" or path == "/column" or path.startswith(("/blog/", "/column/")):
                awards.append((when, article))
            last = max(when, last or 0)
        robot = any(word in agents[device] for word in words)
        for when, rule in sorted(awards, key=lambda award: award[0]):
            rule.award(when)
        score = 0 if robot else worth(article.rows + returned.rows, now)
        counted[device] = {"views": len(hits), "score": score}
    json.dump(counted, sys.stdout)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
