"""What all measurements share: building, running mikomi, loading it, and the verdict."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MET, MISSED, UNCLEAR, FAILED = 0, 1, 2, 3
SEED = 20261122
DAY_MS = 86_400_000

# Rates and quotas are for strangers; a measurement is one sender who sends all it can.
NO_RATES = {
    "MIKOMI__limits__address_hits_per_s_max": "0",
    "MIKOMI__limits__site_hits_per_s_max": "0",
    "MIKOMI__limits__claims_per_hour_max": "0",
    "MIKOMI__collector__connections_per_address_max": "0",
}

# Of the one endpoint that a server has here, where a receiver is named.
SECRET = "whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="


class CannotMeasure(Exception):
    """Something is missing or broke; the message says what."""


def build(*packages):
    """Packages, or `package/program` where one of its programs is enough: each is linked alone."""
    # One by one: the features of one package then never change what another is built from.
    for name in packages:
        package, _, program = name.partition("/")
        one = ["--bin", program] if program else []
        command = ["cargo", "build", "--release", "--quiet", "-p", package, *one]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise CannotMeasure(f"cargo could not build {name}")


def binary(name):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "release" / name)


def need(program, package, install):
    """The path of a program that is not ours."""
    folders = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    if found := shutil.which(program, path=folders):
        return found
    if not install:
        raise CannotMeasure(f"{program} is missing: install {package}, or say --install")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    if subprocess.run(prefix + ["apt-get", "install", "-y", package]).returncode != 0:
        raise CannotMeasure(f"apt could not install {package}")
    return need(program, package, False)


@contextlib.contextmanager
def work_folder():
    """On the same disk as the repository: a folder in memory would make fdatasync cost nothing."""
    parent = ROOT / ".measure"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield pathlib.Path(folder)
    with contextlib.suppress(OSError):
        parent.rmdir()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    """A core's number, or none where there is only one core."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] + command if len(cores) > 1 else command


def loadtest(*arguments):
    """The command line of the load client."""
    return [binary("mikomi-loadtest"), *(str(argument) for argument in arguments)]


def probe(server_port, *arguments):
    """The command line of one of its probes."""
    return loadtest("probe", "--target", f"127.0.0.1:{server_port}", *arguments)


def load(server_port, *arguments, core=None, **options):
    """Runs a probe of the load client; its line of JSON."""
    command = probe(server_port, *arguments)
    if core is not None:
        command = pinned(core, command)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, **options)
    if done.returncode != 0:
        raise CannotMeasure(f"the load client failed: {arguments[0]}")
    return json.loads(done.stdout)


def endpoint_text(name, port, secret):
    """An entry of endpoints.toml for a receiver here."""
    return f"""[[endpoint]]
id = "{name}"
url = "http://127.0.0.1:{port}/hook"
secrets = ["{secret}"]
mode = "live"
audience = ["sales"]
allow_http = true
allow_private = ["127.0.0.0/8"]
allow_ports = [{port}]
"""


class Server:
    """mikomi on ports of its own, with a data folder that outlives it."""

    def __init__(self, folder, environment=None, receiver=None, core=None, clock_ms=None):
        self.folder, self.core, self.clock_ms = folder, core, clock_ms
        self.data = folder / "data"
        self.port, self.admin_port = free_port(), free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MIKOMI")},
            "MIKOMI__collector__listen": f"127.0.0.1:{self.port}",
            "MIKOMI__admin__listen": f"127.0.0.1:{self.admin_port}",
            "RUST_LOG": "error",
            **(environment or {}),
        }
        self.config = folder / "config"
        self.config.mkdir(parents=True)
        for name in ("mikomi.toml", "scoring.toml"):
            shutil.copy(ROOT / "config" / name, self.config / name)
        shutil.copytree(ROOT / "config" / "lists", self.config / "lists")
        endpoint = endpoint_text("measure", receiver, SECRET) if receiver else ""
        (self.config / "endpoints.toml").write_text(endpoint)
        self.process, self.token = None, None
        # Until it is ready: it reads its journal first.
        self.patience_s = 60

    def command(self, *arguments):
        folders = ["--config", str(self.config), "--data", str(self.data)]
        return [binary("mikomi"), *folders, *arguments]

    def start(self):
        clock = [] if self.clock_ms is None else ["--test-clock", str(self.clock_ms)]
        command = self.command("serve", *clock)
        if self.core is not None:
            command = pinned(self.core, command)
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + self.patience_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask(self.port, "/readyz")[0] == 200:
                    return self
            time.sleep(0.02)
        log = (self.folder / "server.log").read_text(errors="replace")
        raise CannotMeasure(f"mikomi did not start:\n{log[-2000:]}")

    def ask(self, port, path, headers=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            connection.request("POST" if body else "GET", path, body and body.encode(),
                               headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def admin(self, path, body=None):
        if not self.token:
            done = subprocess.run(self.command("token"), capture_output=True, text=True, check=True)
            self.token = done.stdout.split()[-1]
        headers = {"Authorization": f"Bearer {self.token}"}
        status, answer = self.ask(self.admin_port, path, headers, body)
        if status != 200:
            raise CannotMeasure(f"{path} answers {status}")
        return answer.decode()

    def move_clock(self, ms):
        self.clock_ms += ms
        self.admin("/api/test-clock", json.dumps({"now_ms": self.clock_ms}))

    def metrics(self):
        lines = self.admin("/metrics").splitlines()
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))}

    def memory_mib(self, line="VmRSS"):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{line}:\s+(\d+) kB", status).group(1)) / 1024

    def forget_peak(self):
        """From here on VmHWM is the most that was resident since."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def drained(server):
    """Waits until every message is delivered."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if server.metrics().get("mikomi_deliveries_pending") == 0:
            return
        time.sleep(0.1)
    raise CannotMeasure("messages are still waiting")


def verdict(*parts):
    """All parts must be met: (what, whether)."""
    for what, met in parts:
        print(f"  {'met   ' if met else 'MISSED'}  {what}")
    return MET if all(met for _, met in parts) else MISSED


def quartiles(values):
    values = sorted(values)
    return values[len(values) // 4], statistics.median(values), values[-1 - len(values) // 4]


def spread(values, form):
    """The median, and from where to where."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


class Goals:
    """What was held against what. A figure of several rounds is judged by its median; where the
    middle half of the rounds lies on both sides of the goal, noise straddles it."""

    def __init__(self):
        self.parts, self.straddled = [], []

    def sure(self, what, met):
        """What has no noise."""
        self.parts.append((what, met))

    def at_most(self, what, values, must, stretch=None):
        self.judge(what, values, must, stretch, ("<=", lambda value, goal: value <= goal))

    def at_least(self, what, values, must, stretch=None):
        self.judge(what, values, must, stretch, (">=", lambda value, goal: value >= goal))

    def judge(self, what, values, must, stretch, relation):
        sign, holds = relation
        low, middle, high = quartiles(values)
        said = f"{what} {sign} {must:,} ({middle:,.4g})"
        if stretch is not None:
            reached = "reached" if holds(middle, stretch) else "not reached"
            said += f"; beyond it {sign} {stretch:,}: {reached}"
        self.parts.append((said, holds(middle, must)))
        if holds(low, must) != holds(high, must):
            self.straddled.append(len(self.parts) - 1)

    def outcome(self):
        """Prints them. Missed is what misses a goal clearly."""
        outcome = verdict(*self.parts)
        clearly = [met for place, (_, met) in enumerate(self.parts) if place not in self.straddled]
        if self.straddled and all(clearly):
            print("         the middle half of the rounds lies on both sides of a goal: "
                  + "; ".join(self.parts[place][0] for place in self.straddled))
            return UNCLEAR
        return outcome
