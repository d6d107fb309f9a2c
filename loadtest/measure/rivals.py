"""Who is measured on the hot path: mikomi, nginx and a bare hyper server, each on one core."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from measure.common import (
    NO_RATES, ROOT, CannotMeasure, Server, free_port, load, loadtest, need, pinned)

# With the shipped ones.
RULES = 200

NGINX = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{tracking};
    access_log {folder}/access.log combined buffer=256k flush=5s;
    userid on; userid_name uid; userid_expires 365d;
    location = /p.gif {{ empty_gif; add_header Cache-Control no-store; }}
  }}
  server {{
    listen 127.0.0.1:{bare};
    access_log off;
    location = /p.gif {{ empty_gif; }}
  }}
}}
"""


def rules_text():
    """The shipped rules and so many more that there are 200, as the benchmarks in process have."""
    shipped = (ROOT / "config" / "scoring.toml").read_text()
    behaviour = shipped[shipped.index("[behaviour]"):shipped.index("[fit]")]
    more = []
    for number in range(RULES - len(re.findall(r"^  \{ id = ", behaviour, re.MULTILINE))):
        topic, kind = number // 4, number % 20
        when = (f'path = "/column/topic-{topic}/**"' if kind < 8 else
                f'path = "/product/*/item-{topic}"' if kind < 13 else
                f'path = "/library/to*-{topic}/*-{topic % 7}"' if kind < 16 else
                f'event = "event_{number}"')
        more.append(f'  {{ id = "more_{number}", points = 1, ja = "規則", en = "Rule", '
                    f'category = "interest", max = 6, when = {{ {when} }} }},\n')
    if shipped.count("\n]\n\n[fit]") != 1:
        raise CannotMeasure("the shipped rules do not end where they did")
    return shipped.replace("\n]\n\n[fit]", "\n" + "".join(more) + "]\n\n[fit]")


def site(folder, environment=None, **how):
    """mikomi with 200 rules and no rates, on the first core."""
    server = Server(folder, {**NO_RATES, **(environment or {})}, core=0, **how)
    (server.config / "scoring.toml").write_text(rules_text())
    return server


class Target:
    """Somebody who answers: where, by which processes, and with whose cookies it is asked."""

    def __init__(self, name, port, pids, cookies=None, server=None):
        self.name, self.port, self.pids = name, port, pids
        self.cookies, self.server = cookies, server
        self.rounds, self.before = [], None

    def begin(self):
        """Notes what its server has counted."""
        self.before = self.server.metrics()

    def kept(self):
        """What its server counted since, and what it was answered; and whether nobody was new."""
        after, before = self.server.metrics(), self.before
        gained = {name: int(after[name] - before[name])
                  for name in ("mikomi_hits_total", "mikomi_first_hits_total",
                               "mikomi_visitors_admitted_total")}
        answered = sum(one["all_hits"] for one in self.rounds)
        return gained["mikomi_hits_total"], answered, not any(list(gained.values())[1:])

    def is_clean(self, status):
        """Whether every answer had this status and nothing to say about hits not kept."""
        return all(set(one["all"]["statuses"]) == {status} and one["all"]["broken"] == 0
                   and one["remarks"] == 0 for one in self.rounds)


@contextlib.contextmanager
def mikomi(name, folder, visitors, environment=None):
    """A site that knows so many visitors."""
    with site(folder, environment) as server:
        if json.loads(server.admin("/api/rules"))["text"] != rules_text():
            raise CannotMeasure("the rules in force are others")
        cookies = folder / "cookies"
        load(server.port, "visitors", "--count", visitors, "--out", cookies, core=1)
        yield Target(name, server.port, [server.process.pid], cookies, server)


@contextlib.contextmanager
def nginx(folder, install):
    """Two of it in one process: with cookie and log, as a tracker, and bare; and the cookie."""
    program = need("nginx", "nginx-light", install)
    folder.mkdir()
    ports = {"tracking": free_port(), "bare": free_port()}
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, **ports))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e",
               str(folder / "error.log")]
    process = subprocess.Popen(pinned(0, command))
    try:
        cookie = first_answer(ports["tracking"]).headers["Set-Cookie"].split(";")[0]
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = [process.pid, *map(int, children.read_text().split())]
        yield (Target("nginx", ports["tracking"], pids),
               Target("nginx bare", ports["bare"], pids), cookie)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def hyper():
    """The same framework with nothing in it."""
    port = free_port()
    process = subprocess.Popen(
        pinned(0, loadtest("probe", "gif", "--listen", f"127.0.0.1:{port}")),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        first_answer(port)
        yield Target("hyper", port, [process.pid])
    finally:
        process.kill()
        process.wait()


def first_answer(port):
    """As soon as it answers."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/p.gif")
            return connection.getresponse()
        time.sleep(0.05)
    raise CannotMeasure("a server that is measured beside mikomi did not start")


@contextlib.contextmanager
def alone(target, targets):
    """The others hold still: what one does of its own accord is not counted against another."""
    others = {pid for other in targets for pid in other.pids} - set(target.pids)
    try:
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)
