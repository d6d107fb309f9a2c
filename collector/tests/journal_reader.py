#!/usr/bin/env python3
"""journal_reader.py FOLDER [MILLISECONDS]: reads a journal by FORMAT.md alone and works out every
score anew, in whole numbers, as it was known at that moment (now, if left out). Prints a line of
JSON for each person, then for each visitor, by id: the id; "exact", the score in thousandths; a
person's "stage"; "rows", each with when, position, order, rule, category, source, origin, version,
base, granted, cut, withdrawn plus twice folded. Damage elsewhere than at the end is refused."""
import bisect, collections, functools, itertools, json, math, os, re, struct, sys, time

HEADER, BATCH = struct.Struct("<8sHHI16sIIQQII"), struct.Struct("<4sIIIQQIHH")
LIFE, VERSIONS_MAX = 400 * 86_400_000, 1_000  # a visitor silent for so long is forgotten
# Fields in order, a letter each: Bytes. [..] is a list, (..) an option: a list of none or one.
ROW, FIRST_ROW = "tvvvbSOrppbb", "tvvvbSppb"
LEDGER, FIRST_LEDGER = (f"[{row}][vvpb](v[{row}])" for row in (ROW, FIRST_ROW))
LINK, FIRST_LINK = "(Vb[vObvvttvvv[SOvttvvvv]])", "(Vb(vvtttvvv))"
CROSSED, FIRST_CROSSED = "(t[bbt])[bbttvbb(t)]", "[bbtvbb(t)(vpppppbbbb[bp][vvpt](vpt))]"
SAID, ANSWER = "[SOvbbttvvvvv][tvS(v)ObbbbxLx]", "LtvtbLb(t)(pt)(tt)[VLv]x"  # ties and words
PARCEL = f"Lvb(Lbb)[Lb(L)bbtvb][{ROW}]{SAID}[SOvttvvvv]{SAID}[bbtvbb(t)(t)(p)[t]][vvLb(x)tD]"
STEPS = {4: "Lbb", 5: PARCEL, 8: "L", 9: "[vtSOb]", 10: f"v[{ROW}]", 13: ANSWER,
         14: f"{PARCEL}[{ANSWER}]"}
LINES = "[v(v)(v)(vv)(p)[T](v)(x)b][bxppvv[b](v)(p)(x)(p(vv))]"  # rules, then thresholds
TERMS, FIRST_TERMS = "[bvx]vtp(p)(p)v[bv(p)b]" + LINES, "v[bvx][bvb]"  # as far as is needed
STAGES = "anonymous known warm hot accepted working won rejected lost recycled".split()
NOBODY, GRANTED, FLAGS = "L" + "0" * 16, 9, 11  # no origin; places in a row
TABLE = list(range(256))
for _ in range(8): TABLE = [c >> 1 ^ (0x82F63B78 if c & 1 else 0) for c in TABLE]
ROOTS = [2 << 62]  # of 2, with 62 bits after the point: the square root, the fourth, ...
for _ in range(32): ROOTS.append(math.isqrt(ROOTS[-1] << 62))

def crc32c(data):
    step = lambda crc, byte: TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return functools.reduce(step, data, 0xFFFFFFFF) ^ 0xFFFFFFFF

def nested(letters):  # each list in it is a list that begins with what opens it
    own = itertools.takewhile(lambda letter: letter not in "])", letters)
    return [[it, *nested(letters)] if it in "[(" else it for it in own]
parsed = functools.cache(lambda layout: nested(iter(layout)))

class Bytes:
    """Bytes being read. Some fields are relative to the record's time and version, its visitor
    and the name under which a lead's part is. A method of one letter reads one field."""
    def __init__(self, data, when=0, version=0):
        self.data, self.at, self.when, self.version = data, 0, when, version
        self.visitor, self.own = None, NOBODY
    def take(self, count):
        self.at += count
        if self.at > len(self.data): raise ValueError("a record ends inside a field")
        return self.data[self.at - count:self.at]
    def fixed(self, count): return int.from_bytes(self.take(count), "little")
    def one_of(self, *kinds): return kinds[self.b()]()
    def b(self): return self.fixed(1)
    def v(self, shift=0):
        byte = self.b()
        return (byte & 127) << shift | (self.v(shift + 7) if byte > 127 else 0)
    def p(self): return (lambda value: value >> 1 ^ -(value & 1))(self.v())  # points, any signed
    def t(self): return (self.when - self.p()) % 2**64
    def r(self): return self.version - self.p()  # the version of a row
    def x(self): return self.take(self.v())  # bytes, or a text
    def V(self): return "V%032x" % self.fixed(16)
    def L(self): return "L%016x" % self.fixed(8)
    def S(self): return self.one_of(lambda: "server", lambda: self.visitor, self.V)
    def O(self): return self.one_of(lambda: NOBODY, lambda: self.own, self.L)
    def B(self): self.one_of(int, lambda: self.read("Lbb(L)(L)(L)"), int)  # a binding
    def D(self): self.one_of(self.b, lambda: self.read("vv"))  # what a message is about
    def T(self): self.x(), self.one_of(*[lambda: self.read("[x]")] * 3, lambda: self.read("(p)(p)"))
    def read(self, layout): return [self.one(kind) for kind in parsed(layout)]
    def one(self, kind):
        if isinstance(kind, str): return getattr(self, kind)()
        items, kinds = range(self.v() if kind[0] == "[" else self.b()), kind[1:]
        return [[self.one(it) for it in kinds] if kinds[1:] else self.one(*kinds) for _ in items]
    def first_ledger(self, origin):  # as evolve version 1 wrote it
        rows, regrants, fold = self.read(FIRST_LEDGER)
        row = lambda it: [*it[:6], origin, self.version, *it[6:], 2 if it[8] == 7 else 0]
        return [*map(row, rows)], regrants, [(n, [*map(row, into)]) for n, into in fold]
    def hit(self):  # whose it is and when it was received: no more is needed
        flags, _, _, received, _ = self.read("vbvtt")
        return self.V() if flags & 1 else None, received

def batch_at(data, at, seed):
    """The sound batch that begins there: its fields, its records, where it ends; or nothing."""
    if data[at:at + 4] != b"mkbt" or at + BATCH.size > len(data): return
    fields = BATCH.unpack_from(data, at)
    end = at + BATCH.size + (fields[1] + 7) // 8 * 8
    if end > len(data) or crc32c(seed + data[at:at + 8] + data[at + 12:end]) != fields[2]: return
    payload = Bytes(data[at + BATCH.size:at + BATCH.size + fields[1]])
    records = [payload.x() for _ in range(fields[6])]
    return (fields, records, end) if payload.at == fields[1] else None

def journal(folder):
    """Every record that counts, with its position."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
    files = [open(os.path.join(folder, name), "rb").read() for name in names]
    heads = [HEADER.unpack_from(data) for data in files]  # fields by number, as in FORMAT.md
    expected, chain = heads[0][7], 0 if heads[0][7] % 2**48 == 1 else None
    for name, data, head, following in zip(names, files, heads, heads[1:] + [None]):
        known = head[:2] + head[3:5] == (b"mikomijr", 1, 0x01020304, heads[0][4])
        named = name == "segment-%016x.log" % (head[7] % 2**48)
        if not known or head[2] not in (1, 2) or not named or crc32c(data[:60]) != head[10]:
            raise ValueError(f"{name}: the header is damaged, foreign or of another version")
        limit, seed, at = following[9] if following else len(data), head[4] + data[40:48], 64
        while at < limit:
            batch = batch_at(data, at, seed)
            if not batch or batch[0][4] != expected or chain not in (None, batch[0][3]): break
            (_, _, chain, *_), records, at = batch
            for record in records:
                yield expected, record
                expected += 1
        places = (it.start() for it in re.compile(b"mkbt").finditer(data, at))
        later = (batch_at(data, place, seed) for place in places if place % 8 == 0)
        proof = (it for it in later if it and it[0][4] >= expected and it[0][5] + 1 >= expected)
        if (at, expected) != (limit, following[7]) if following else at < head[6] or any(proof):
            raise ValueError(f"{name}: damaged at byte {at}")

class Entry:
    """A visitor's or a lead's: the ledger, and for a lead its names and whose name it is."""
    def __init__(self):
        self.rows, self.names, self.arriving, self.of = [], {}, [], None
        self.answers, self.sides, self.seen, self.rescored = [], {}, 0, 0
    def insert(self, row):
        place = bisect.bisect_left(self.rows, row[:3])
        if [it[:3] for it in self.rows[place:place + 1]] != [row[:3]]: self.rows.insert(place, row)
    def keep(self, which): self.rows = [row for row in self.rows if which(row)]
    def apply(self, position, rows, regrants, fold):
        """The fold, new rows unless they are there already, new grants."""
        for count, into in fold:
            del self.rows[:count]
            for row in into: self.insert(row)
        for row in rows: self.insert([row[0], row[1] or position, *row[2:]])
        for *place, granted, cut in regrants:
            for row in [row for row in self.rows if row[1:3] == place][:1]:
                row[GRANTED:FLAGS] = granted, cut
    def step(self, kind, fields, lead=None):
        """What a step does to a visitor or a lead, before its part is applied."""
        if kind == 4: self.of, self.names, self.rows, self.answers = fields[0], {}, [], []
        if kind == 13: self.answers.append(fields)
        if kind in (5, 14):  # a parcel: nothing of it counts before the last one is there
            self.arriving = [*(self.arriving if fields[1] else []), fields]
            for sender, _, _, joint, members, rows, *rest in self.arriving if fields[2] else []:
                for id, _, parent, *_ in members:
                    self.names[id] = ([it[0] for it in joint if id == sender] + parent + [None])[0]
                for row in rows: self.insert(row)
                for line, inside, since, *_ in rest[5]:  # in if either is
                    if inside > self.sides.get(line, [-1])[0]: self.sides[line] = [inside, since]
                for answers in rest[7:]: self.answers += answers
            if fields[2]: self.arriving = []
        if kind == 7: self.of = None
        if kind == 8:
            gone = {fields[0]}
            for _ in self.names: gone |= {id for id, of in self.names.items() if of in gone}
            self.names = {id: of for id, of in self.names.items() if id not in gone}
            self.keep(lambda row: row[6] not in gone)
            self.answers = [answer for answer in self.answers if answer[5] not in gone]
        for *hit, _, flags in fields[0] if kind == 9 else []:
            for row in self.rows:
                if [row[1], row[0], row[5]] == hit: row[FLAGS] = row[FLAGS] & 2 | flags >> 1
        if kind == 10: self.rescored, self.rows = fields
    def lead_part(self, position, part, is_first, lead):
        """A lead's part: names, what goes, the ledger's changes."""
        if is_first:
            previous, _, _ = part.read("vb" + FIRST_LINK)
            names, under, drops, ledger = [(lead, 0)][:not previous], 0, [], part.first_ledger(lead)
            crossed = [[*it[:3], *it[2:]] for it in part.read(FIRST_CROSSED)[0]]
        else:
            part.own = part.O()
            layout = f"vbbbv[bLb]O{LINK}[Svv]{LEDGER}{CROSSED}"
            names, under, _, drops, *ledger, _, crossed = part.read(layout)[5:]
        for *_, name, _ in names: self.names[name] = {under: lead, lead: None}.get(name, under)
        for source, after, until in drops:
            self.keep(lambda row: row[5] != source or not after < row[1] <= until)
        self.apply(position, *ledger)
        for line, way, _, since, *_ in crossed:  # in, out, told, or the same side since then
            inside = self.sides.get(line, [0])[0] if way == 3 else 1 - way
            if way != 2: self.sides[line] = [inside, since]
    def stage(self, lines):
        """Where sales left them, if it decides or they were not hot since; or by the lines."""
        sides = {name: self.sides.get(line, [0, 0]) for line, name, *_ in lines}
        said = max(([*it[1:3], it[0], it[6]] for it in self.answers if it[4] != 10), default=None)
        hot, since = sides.get(b"hot", [0, 0])
        if said and (4 <= said[3] <= 6 or not hot and since <= said[0]): return STAGES[said[3]]
        return "hot" if hot else "warm" if sides.get(b"warm", [0])[0] else "known"

def in_force(versions, at, rescored):
    """Categories and lines of the version in force then, of whoever was rescored under one."""
    begun = [place for place, it in enumerate(versions) if it[1] <= at or it[0] <= rescored]
    versions = versions[max(begun, default=0):]
    return next((it[2:] for it in versions if it[3]), versions[0][2:] if versions else ([], []))

def exp2(part, whole):
    bits, power = (part << 32) // whole, 2 << 62 if part == whole else 1 << 62
    for index in range(32):
        if bits >> 31 - index & 1: power = power * ROOTS[index + 1] >> 62
    return power

def value(rows, half, at):
    """What rows of one category are worth together at a moment, rounded once."""
    rows = [row for row in rows if row[GRANTED]]
    base = (latest := max((row[0] for row in rows), default=0)) // half
    weights = (row[GRANTED] * (exp2(row[0] % half, half) >> 32) << 32 - (base - row[0] // half)
               for row in rows if base - row[0] // half <= 32)
    whole, part = divmod(max(at, latest) - base * half, half)
    factor, shift = exp2(half - part, half) >> 12, 87 + min(whole, 64)
    return (sum(weights) >> 26) * factor + (1 << shift - 1) >> shift if shift <= 126 else 0

def main(folder, at):
    entries, versions = collections.defaultdict(Entry), []
    for position, data in journal(folder):
        record, parts, step = Bytes(data), {}, (0, [])
        kind, time, version = record.read("bvv")
        while record.at < len(data):
            tag = record.b()
            parts[tag] = Bytes(record.x(), time, version)
        if not (1 <= kind <= 6 and all(1 <= tag <= 14 for tag in parts)):
            raise ValueError(f"the record at {position} is of a newer version")
        if kind == 3:  # a version of the scoring counts whatever moment is asked for
            head = parts[10].read(TERMS) if 10 in parts else parts[5].read(FIRST_TERMS)
            new = (*head[1:3], head[7], head[9]) if 10 in parts else (head[0], time, head[2], [])
            versions = [*(it for it in versions if it[0] != new[0]), new][-VERSIONS_MAX:]
        if time > at: continue
        visitor, received = parts[1].hit() if kind == 1 else (None, 0)
        if 13 in parts: visitor, *_, regrants = parts[13].read("Vv[v(L)]Bv[v(L)][vvpb]")
        for part in parts.values(): part.visitor = visitor
        if kind == 6:
            *_, number = parts[12].read("xxvvb")
            step = number, parts[12].read(STEPS.get(number, ""))
            if number == 13: step[1][1:3] = time, position
        if 13 in parts:
            entries[visitor].step(*step)
            entries[visitor].apply(position, [], regrants, [])
        for tag in {3, 8} & parts.keys():
            if time - entries[visitor].seen >= LIFE: entries[visitor] = Entry()
            first = parts[2].v() and parts[2].hit()[1] if 2 in parts else 0
            entries[visitor].seen = max(entries[visitor].seen, first, received)
            _ = parts[tag].v() if tag == 3 else parts[tag].read("vbB")
            ledger = parts[3].first_ledger(NOBODY) if tag == 3 else parts[8].read(LEDGER)
            entries[visitor].apply(position, *ledger)
        for tag in {4, 9} & parts.keys():
            lead = parts[tag].own = parts[tag].L()
            entries[lead].step(*step, lead)
            entries[lead].lead_part(position, parts[tag], tag == 4, lead)
    for id, entry in sorted(entries.items()):
        categories, lines = in_force(versions, at, entry.rescored)
        exact = sum(value([row for row in entry.rows if row[4] == it[0]], it[1], at)
                    for it in categories if it[-1])
        if entry.names and not entry.of if id[0] == "L" else at - entry.seen < LIFE:
            line = {"lead": id, "stage": entry.stage(lines)} if id[0] == "L" else {"visitor": id}
            print(json.dumps({**line, "exact": exact, "rows": entry.rows}))

main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 1_000_000)
