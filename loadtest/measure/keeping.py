"""What is kept, and how sure one can be of it: planted corruptions, and copies of what lives."""

import contextlib
import json
import os
import shutil
import struct
import subprocess
import threading
import time

from measure.common import (
    DAY_MS, NO_RATES, SEED, CannotMeasure, Server, binary, build, drained, load, verdict,
    work_folder)

HEADER, BATCH_HEADER, KEY_ENTRY = 64, 40, 44
# A Tuesday; every day brings the same number of visits of ten hits.
START_MS = 1_780_000_000_000
TABLE = []
# Whoever has it is told where their hits stand.
TOKEN = "load-token-of-a-measurement-0001"


def crc32c(data, crc=0):
    """The checksum of FORMAT.md, from its own words and none of our code."""
    if not TABLE:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            TABLE.append(byte)
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Segment:
    """A file of the journal, and where its batches are."""

    def __init__(self, path, end=None):
        self.path = path
        data = path.read_bytes()
        self.end = end or len(data)
        self.batches, at = [], HEADER
        while at + BATCH_HEADER <= self.end and data[at:at + 4] == b"mkbt":
            size = BATCH_HEADER + struct.unpack_from("<I", data, at + 4)[0]
            size += -size % 8
            self.batches.append((at, size))
            at += size


class Planting:
    """Changes files of a data folder, and puts them back."""

    def __init__(self, data):
        self.data, self.kept, self.made = data, {}, []
        self.logs = sorted((data / "journal").glob("segment-*.log"))
        if len(self.logs) < 4:
            raise CannotMeasure("the journal has fewer than four segments")
        middles = (Segment(path) for path in self.logs[1:-1])
        self.middle = next((it for it in middles if len(it.batches) > 3), None)
        if not self.middle:
            raise CannotMeasure("no segment in the middle has four batches")

    def keep(self, path):
        aside = path.with_name(path.name + ".aside")
        if path.exists() and path not in self.kept:
            shutil.copy(path, aside)
            self.kept[path] = aside

    def patch(self, path, at, data):
        self.keep(path)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def flip(self, path, at):
        with open(path, "rb") as file:
            file.seek(at)
            byte = file.read(1)[0]
        self.patch(path, at, bytes([byte ^ 1]))

    def header(self, path, at, data):
        """Another header with a sound checksum."""
        head = bytearray(path.read_bytes()[:HEADER])
        head[at:at + len(data)] = data
        head[60:64] = struct.pack("<I", crc32c(head[:60]))
        self.patch(path, 0, head)

    def new(self, path, data):
        self.keep(path)
        if path not in self.kept:
            self.made.append(path)
        path.write_bytes(data)

    def undo(self):
        for path, aside in self.kept.items():
            os.replace(aside, path)
        for path in self.made:
            path.unlink(missing_ok=True)
        self.kept, self.made = {}, []

    def all(self):
        """What `verify` has to call it -> how it is done."""
        middle, first = self.middle.path, self.logs[0]
        (one, one_size), (two, two_size), (three, _) = self.middle.batches[:3]
        index = first.with_suffix(".idx")
        data = self.data

        def repeated():
            batch = middle.read_bytes()[one:one + one_size]
            self.patch(middle, two, batch)

        def truncated():
            self.keep(middle)
            os.truncate(middle, three)

        def missing():
            self.keep(middle)
            middle.unlink()

        def swapped():
            other = self.logs[2] if self.logs[2] != middle else self.logs[1]
            self.keep(middle)
            self.keep(other)
            aside = middle.with_suffix(".swap")
            os.rename(middle, aside)
            os.rename(other, middle)
            os.rename(aside, other)

        def wrong_index():
            entries = bytearray(index.read_bytes()[:-4])
            offset = struct.unpack_from("<I", entries, 40)[0]
            struct.pack_into("<I", entries, 40, offset + 8)
            self.new(index, bytes(entries) + struct.pack("<I", crc32c(entries)))

        def synced():
            whole = middle.read_bytes()
            seed = whole[16:32] + whole[40:48]
            batch = bytearray(whole[two:two + two_size])
            batch[24:32] = struct.pack("<Q", struct.unpack_from("<Q", batch, 16)[0] + 5)
            batch[8:12] = struct.pack("<I", crc32c(seed + batch[:8] + batch[12:]))
            self.patch(middle, two, batch)

        erased = bytearray(struct.pack("<QQ", 1, 1))
        erased += struct.pack("<I", crc32c(erased) ^ 1)
        keys, tokens = data / "keys" / "subjects.log", data / "admin.tokens"
        accepted = data / "journal" / f"accepted-{first.stem.split('-')[1]}-0000000000000040"
        return [
            ("segment_header", lambda: self.flip(middle, 20)),
            ("segment_newer", lambda: self.header(middle, 8, b"\x09\x00")),
            ("segment_newer", lambda: self.header(middle, 10, b"\x63\x00")),
            ("segment_foreign", lambda: self.header(middle, 16, b"not this install")),
            ("segment_incarnation", lambda: self.header(first, 32, struct.pack("<I", 99))),
            ("segment_proven", lambda: self.header(middle, 36, struct.pack("<I", 71))),
            ("segment_previous", lambda: self.header(first, 56, struct.pack("<I", 512))),
            ("segment_truncated", truncated),
            ("segment_missing", missing),
            ("segment_name", swapped),
            ("batch_header", lambda: self.flip(middle, two)),
            ("batch_length", lambda: self.patch(middle, two + 7, b"\x7f")),
            ("batch_checksum", lambda: self.flip(middle, two + 8)),
            ("batch_checksum", lambda: self.flip(middle, two + BATCH_HEADER + 9)),
            ("batch_missing", lambda: self.patch(middle, two, bytes(two_size))),
            ("batch_repeated", repeated),
            ("batch_synced", synced),
            ("index_torn", lambda: self.flip(index, 14)),
            ("index_wrong", wrong_index),
            ("accepted_nothing", lambda: self.new(accepted, b"")),
            ("key_entry", lambda: self.flip(keys, KEY_ENTRY + 9)),
            ("key_missing", lambda: self.new(keys, b"")),
            ("erased_entry", lambda: self.new(data / "keys" / "erased.log", bytes(erased))),
            ("token", lambda: self.new(tokens, tokens.read_bytes() + b"no hash\n")),
        ]


def check_receipts(server, path):
    """All of them held against the disk, and then some that nobody was given."""
    _, proved = judged(server, "--no-replay", "--receipts", str(path))
    sound = path.read_text().split()[0]
    forged = path.with_name("forged")
    middle = len(sound) // 2
    other = "0" if sound[middle] != "0" else "1"
    forged.write_text("\n".join([
        sound[:middle] + other + sound[middle + 1:], sound[:-1], sound + "0", "no receipt at all"]))
    _, said = judged(server, "--no-replay", "--receipts", str(forged))
    return proved, [it["name"] for it in said["problems"] if it["name"].startswith("receipt")]


def judged(server, *arguments):
    """What `mikomi verify` says."""
    done = subprocess.run(server.command("verify", "--json", *arguments), capture_output=True,
                          text=True, env=server.environment)
    try:
        return done.returncode, json.loads(done.stdout.splitlines()[0])
    except (IndexError, json.JSONDecodeError):
        raise CannotMeasure(f"verify says: {done.stderr}") from None


def fill(server, folder, hits, visitors, days):
    known = folder / "cookies"
    load(server.port, "visitors", "--count", visitors, "--out", known)
    visits = hits // 10 // days
    for day in range(days):
        server.move_clock(DAY_MS)
        load(server.port, "--seed", SEED, "history", "--cookies", known,
             "--visits", visits, "--first", day * visits)
        # A new segment begins with every start; a long journal rolls by itself too.
        if day % 2:
            drained(server)
            server.stop()
            server.start()
    return known


def verify(options):
    """planted corruptions in a data folder, each to be found by name, and none in a healthy one"""
    hits, visitors, days = (200_000, 5_000, 8) if options.short else (5_000_000, 100_000, 30)
    count = 20_000 if options.short else 1_000_000
    build("collector", "loadtest")
    with work_folder() as folder:
        environment = {**NO_RATES, "LOAD_TOKEN": TOKEN,
                       "MIKOMI__collector__load_token_env": "LOAD_TOKEN"}
        receipts = folder / "receipts"
        with Server(folder / "server", environment, clock_ms=START_MS) as server:
            known = fill(server, folder, hits, visitors, days)
            taken = load(server.port, "--seed", SEED, "receipts", "--cookies", known,
                         "--count", count, "--token", TOKEN, "--out", receipts)["receipts"]
            drained(server)
            beside, running = judged(server, "--no-replay")
        status, healthy = judged(server)
        proved, wrong = check_receipts(server, receipts)
        planting = Planting(server.data)
        found = []
        for name, plant in planting.all():
            plant()
            code, said = judged(server, "--no-replay")
            # An index is never synced: one that is damaged is noted, and made again.
            where, expected = ("notes", 0) if name == "index_torn" else ("problems", 1)
            named = code == expected and any(it["name"] == name for it in said[where])
            found.append((name, named, [it["name"] for it in said["problems"]][:4]))
            planting.undo()
        again, after = judged(server, "--no-replay")
    print(f"figure   {healthy['records']:,} records in {healthy['segments']} segments, "
          f"{healthy['bytes'] / 1e9:.2f} GB: read and judged at {healthy['gb_per_s']:.2f} GB/s, "
          f"with everything replayed twice in {healthy['took_ms'] / 1e3:.1f} s")
    for name, named, instead in found:
        if not named:
            print(f"         {name} was not found; {instead} was")
    print(f"         {taken:,} receipts: {proved['receipts']:,} proved in "
          f"{proved['took_ms'] / 1e3:.1f} s; of 4 that are no acknowledgement of ours "
          f"{len(wrong)} named: {', '.join(sorted(wrong))}")
    named = sum(named for _, named, _ in found)
    return verdict(
        ("nothing is wrong in a healthy folder", status == 0 and healthy["wrong"] == 0),
        ("nor beside the server that runs", beside == 0 and running["wrong"] == 0),
        (f"every record was looked at ({hits:,} hits)", healthy["records"] >= hits),
        (f"every planted corruption is found by its name ({named} of {len(found)})",
         named == len(found) and named >= 20),
        (f"each of {count:,} receipts is proved on the disk",
         taken == proved["receipts"] == count and proved["wrong"] == 0),
        ("and none that was changed, cut or made up", len(wrong) == 4),
        ("and nothing once it is put back", again == 0 and after["wrong"] == 0),
    )


def backup(options):
    """a copy of a folder that is being written, put back: the same state at its last record"""
    hits, visitors, days = (200_000, 5_000, 8) if options.short else (2_000_000, 50_000, 10)
    rounds = 3
    build("collector", "loadtest")
    copies, hashes = [], []
    with work_folder() as folder:
        with Server(folder / "server", NO_RATES, clock_ms=START_MS) as server:
            known = fill(server, folder, hits, visitors, days)
            running = threading.Event()
            sent = []

            def go_on():
                first = hits // 10
                while not running.is_set():
                    load(server.port, "--seed", SEED, "history", "--cookies", known,
                         "--visits", 500, "--first", first)
                    first += 500
                    sent.append(5_000)

            loading = threading.Thread(target=go_on)
            loading.start()
            try:
                for number in range(rounds):
                    began = time.monotonic()
                    to = folder / f"copy{number}"
                    done = subprocess.run(server.command("backup", str(to)), capture_output=True,
                                          text=True, env=server.environment)
                    if done.returncode != 0:
                        raise CannotMeasure(f"backup says: {done.stderr}")
                    size = sum(it.stat().st_size for it in to.rglob("*") if it.is_file())
                    copies.append((to, time.monotonic() - began, size))
            finally:
                running.set()
                loading.join()
            now = str(server.clock_ms)
        for to, _, _ in copies:
            back = to.with_suffix(".back")
            restore = [binary("mikomi"), "--data", str(back), "restore", str(to)]
            subprocess.run(restore, check=True, capture_output=True, env=server.environment)
            said = replayed([binary("mikomi"), "--data", str(back)], now)
            live = replayed(server.command(), now, "--until", str(said["until"]))
            code = subprocess.run([binary("mikomi"), "--data", str(back), "verify", "--no-replay"],
                                  capture_output=True).returncode
            hashes.append((said, live, code))
            shutil.rmtree(back)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder / "copy0")
    print(f"figure   {rounds} copies while {sum(sent):,} hits arrived: "
          + ", ".join(f"{size / 1e6:,.0f} MB in {took:.1f} s" for _, took, size in copies))
    positions = [said["until"] for said, _, _ in hashes]
    return verdict(
        ("hits arrived all the while", len(sent) > 0 and positions[0] < positions[-1]),
        ("every copy put back is healthy", all(code == 0 for _, _, code in hashes)),
        ("its state is the live one's at its last record, to the bit",
         all(said["hash"] == live["hash"] and said["records"] == live["records"]
             for said, live, _ in hashes)),
    )


def replayed(command, now, *arguments):
    done = subprocess.run([*command, "replay", "--now", now, *arguments], capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"replay says: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
