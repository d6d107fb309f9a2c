#!/usr/bin/env python3
"""journal_reader.py FOLDER [MILLISECONDS]: reads a journal by FORMAT.md alone and works out every
score anew, in whole numbers, at that moment (now, if left out), of the records made up to then.
FOLDER holds segment-*.log. Prints one JSON object a line, the leads by id, then the visitors: the
id; "exact", the score in thousandths; "rows", each with when, position, order, rule, category,
source, base, granted, cut. A journal that is damaged, not just torn at its end, is refused."""
import bisect, json, math, os, re, struct, sys, time

HEADER, BATCH = struct.Struct("<8sHHI16sIIQQII"), struct.Struct("<4sIIIQQIHH")
LIFE = 400 * 86_400_000  # a visitor silent for so long is forgotten
TABLE = list(range(256))
for _ in range(8): TABLE = [c >> 1 ^ (0x82F63B78 if c & 1 else 0) for c in TABLE]
ROOTS = [2 << 62]  # of 2, with 62 bits after the point: the square root, the fourth, ...
for _ in range(32): ROOTS.append(math.isqrt(ROOTS[-1] << 62))

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

class Bytes:
    """Bytes being read. Times are relative to the record's; rows may name the hit's visitor."""
    def __init__(self, data, when=0):
        self.data, self.at, self.when, self.visitor = data, 0, when, None
    def take(self, count):
        self.at += count
        if self.at > len(self.data): raise ValueError("a record ends inside a field")
        return self.data[self.at - count:self.at]
    def left(self): return self.at < len(self.data)
    def fixed(self, count): return int.from_bytes(self.take(count), "little")
    def varint(self, shift=0):
        byte = self.fixed(1)
        return (byte & 127) << shift | (self.varint(shift + 7) if byte > 127 else 0)
    def signed(self): return (lambda value: value >> 1 ^ -(value & 1))(self.varint())
    def time(self): return (self.when - self.signed()) % 2**64
    def bytes(self): return self.take(self.varint())
    def list(self, read): return [read() for _ in range(self.varint())]
    def option(self, read): return read() if self.fixed(1) else None
    def visitor_id(self): return "V%032x" % self.fixed(16)
    def source(self):
        return (lambda: "server", lambda: self.visitor, self.visitor_id)[self.fixed(1)]()
    def row(self): return [self.time(), self.varint(), self.varint(), self.varint(), self.fixed(1),
                           self.source(), self.signed(), self.signed(), self.fixed(1)]
    def ledger(self):
        regrant = lambda: (self.varint(), self.varint(), self.signed(), self.fixed(1))
        fold = lambda: (self.varint(), self.list(self.row))
        return self.list(self.row), self.list(regrant), self.option(fold)
    def hit(self):  # whose it is and when it was received: no more is needed
        flags, _, _, received, _ = *(self.varint() for _ in range(3)), self.time(), self.time()
        return self.visitor_id() if flags & 1 else None, received

def batch_at(data, at, seed):
    """The sound batch that begins there: its fields, its records, where it ends; or nothing."""
    if data[at:at + 4] != b"mkbt" or at + BATCH.size > len(data): return
    fields = BATCH.unpack_from(data, at)
    end = at + BATCH.size + (fields[1] + 7) // 8 * 8
    if end > len(data) or crc32c(seed + data[at:at + 8] + data[at + 12:end]) != fields[2]: return
    payload = Bytes(data[at + BATCH.size:at + BATCH.size + fields[1]])
    records = [payload.bytes() for _ in range(fields[6])]
    return None if payload.left() else (fields, records, end)

def journal(folder):
    """Every record that counts, with its position."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
    files = [open(os.path.join(folder, name), "rb").read() for name in names]
    heads = [HEADER.unpack_from(data) for data in files]  # fields by number, as in FORMAT.md
    expected, chain = heads[0][7], 0 if heads[0][7] % 2**48 == 1 else None
    for name, data, head, following in zip(names, files, heads, heads[1:] + [None]):
        known = head[:5] == (b"mikomijr", 1, 1, 0x01020304, heads[0][4])
        named = name == "segment-%016x.log" % (head[7] % 2**48)
        if not known or not named or crc32c(data[:60]) != head[10]:
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

def evolve(ledger, part, position):
    """Applies a part: the fold, new rows unless they are there already, new grants."""
    rows, regrants, fold = part
    if fold: del ledger[:fold[0]]
    for row in (fold[1] if fold else []) + rows:
        row[1] = row[1] or position
        place = bisect.bisect_left(ledger, row[:3])
        if not any(old[:3] == row[:3] for old in ledger[place:place + 1]): ledger.insert(place, row)
    for *place, granted, cut in regrants:
        for row in [row for row in ledger if row[1:3] == place][:1]:
            row[7:] = granted, cut

def exp2(part, whole):
    bits, power = (part << 32) // whole, 2 << 62 if part == whole else 1 << 62
    for index in range(32):
        if bits >> 31 - index & 1: power = power * ROOTS[index + 1] >> 62
    return power

def value(rows, half, at):
    """What rows of one category are worth together at a moment, rounded once."""
    rows = [row for row in rows if row[7]]
    base = (latest := max((row[0] for row in rows), default=0)) // half
    weights = (row[7] * (exp2(row[0] % half, half) >> 32) << 32 - (base - row[0] // half)
               for row in rows if base - row[0] // half <= 32)
    whole, part = divmod(max(at, latest) - base * half, half)
    factor, shift = exp2(half - part, half) >> 12, 87 + min(whole, 64)
    return (sum(weights) >> 26) * factor + (1 << shift - 1) >> shift if shift <= 126 else 0

def main(folder, at):
    ledgers, seen, categories = {}, {}, []
    for position, data in journal(folder):
        record, parts = Bytes(data), {}
        kind, record.when, _ = record.fixed(1), record.varint(), record.varint()  # and a version
        while record.left():
            tag = record.fixed(1)
            parts[tag] = part = Bytes(record.bytes(), record.when)
        if not (1 <= kind <= 5 and all(1 <= tag <= 7 for tag in parts)):
            raise ValueError(f"the record at {position} is of a newer version")
        if kind == 3:  # the categories of the last published version
            part.varint(), part.list(lambda: (part.fixed(1), part.varint(), part.bytes()))
            categories = part.list(lambda: (part.fixed(1), part.varint(), part.fixed(1)))
        if record.when > at: continue
        visitor, received = parts[1].hit() if kind == 1 else (None, 0)
        for part in parts.values(): part.visitor = visitor
        if 3 in parts:
            first = (parts[2].varint(), parts[2].hit()[1])[1] if 2 in parts else 0
            if record.when - seen.get(visitor, 0) >= LIFE:
                ledgers[visitor], seen[visitor] = [], 0
            seen[visitor] = max(seen[visitor], first, received)
            parts[3].varint()
            evolve(ledgers[visitor], parts[3].ledger(), position)
        if 4 in parts:
            lead, _, _ = "L%016x" % (part := parts[4]).fixed(8), part.varint(), part.fixed(1)
            history = lambda: [part.varint() for _ in range(8)]
            part.option(lambda: (part.take(17), part.option(history)))  # the tie
            evolve(ledgers.setdefault(lead, []), part.ledger(), position)
    for id, rows in sorted(ledgers.items()):
        exact = sum(value([row for row in rows if row[4] == category], half, at)
                    for category, half, in_total in categories if in_total)
        line = {"lead" if id[0] == "L" else "visitor": id, "exact": exact, "rows": rows}
        if at - seen.get(id, at) < LIFE: print(json.dumps(line))

main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 1_000_000)
