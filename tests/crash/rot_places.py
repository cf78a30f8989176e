"""Where what stands in a data folder: every byte of its files, by the kind of structure it is part of.

    for place in places(folder):
        place.kind, place.path, place.start, place.end, place.meaning

Reads the files by docs/formats.md and LMDB's by its header `struct MDB_page`, apart from the product's
own code, so that the two can be held against each other. `meaning` is one of

    True    somebody reads it: a flip there is to be found
    "end"   the journal's last write: damage there cannot be told from a torn write
    False   nobody ever reads it (free pages, remains behind the journal's end): a flip changes nothing
    None    some of its bits matter (where two keys part); a flip is found, or changes nothing
"""

import collections
import pathlib
import struct

Place = collections.namedtuple("Place", "kind path start end meaning")

PAGE = 4096
SECTOR = 512  # where frames begin
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIG_VALUE = 1
PAGE_HEADER, NODE_HEADER = 16, 8
NONE = (1 << 64) - 1


class Lmdb:
    """One LMDB file of 4 KiB pages: the pages in use and the rows."""

    def __init__(self, path):
        self.path = path
        self.data = pathlib.Path(path).read_bytes()
        self.metas = [self._meta(0), self._meta(1)]
        self.newest = max((0, 1), key=lambda i: self.metas[i]["txn"])
        meta = self.metas[self.newest]
        self.pages = {}  # number: kind of the page
        self.places = []
        self.rows = {}
        self._walk(meta["free"], "free list", None)
        self._walk(meta["main"], "", self.rows)
        self._metas_place()
        self._unused_place(meta["last"])

    def _meta(self, number):
        at = number * PAGE + PAGE_HEADER
        main = struct.unpack_from("<IHHQQQQQ", self.data, at + 24 + 48)
        free = struct.unpack_from("<IHHQQQQQ", self.data, at + 24)
        last, txn = struct.unpack_from("<QQ", self.data, at + 120)
        return {"free": free[7], "main": main[7], "last": last, "txn": txn}

    def _place(self, kind, start, end, meaning=True):
        if end > start:
            self.places.append(Place(f"state: {kind}", self.path, start, end, meaning))

    def _metas_place(self):
        for number in (0, 1):
            at = number * PAGE
            newest = number == self.newest
            name = "meta page" if newest else "older meta page"
            tree = True if newest else None
            self._place(name, at, at + 8)                       # page number
            self._place(f"{name}, spare", at + 8, at + 10, False)
            self._place(name, at + 10, at + 12)                 # flags
            self._place(f"{name}, spare", at + 12, at + 16, False)
            at += PAGE_HEADER
            self._place(name, at, at + 8)                       # magic, version
            self._place(f"{name}, spare", at + 8, at + 24, False)  # address, map size
            self._place(name, at + 24, at + 28)                 # page size
            self._place(name, at + 28, at + 24 + 48, tree)      # the free list's tree
            self._place(f"{name}, spare", at + 72, at + 76, False)
            self._place(name, at + 76, at + 24 + 96, tree)      # the rows' tree
            self._place(name, at + 120, at + 128, tree)         # last page
            self._place(name, at + 128, at + 136)               # transaction
            self._place(f"{name}, spare", at + 136, number * PAGE + PAGE, False)

    def _unused_place(self, last):
        for number in range(2, len(self.data) // PAGE):
            if number not in self.pages:
                self._place("free page" if number <= last else "page behind the last",
                            number * PAGE, number * PAGE + PAGE, False)

    def _walk(self, number, tree, rows):
        if number == NONE:
            return
        at = number * PAGE
        _, _, flags, lower, upper = struct.unpack_from("<QHHHH", self.data, at)
        name = (tree + " " if tree else "") + ("branch page" if flags & BRANCH else "leaf page")
        self.pages[number] = name
        self._place(f"{name}, header", at, at + 8)
        self._place(f"{name}, spare", at + 8, at + 10, False)
        self._place(f"{name}, header", at + 10, at + PAGE_HEADER)
        self._place(f"{name}, pointers", at + PAGE_HEADER, at + lower)
        self._place(f"{name}, unused", at + lower, at + upper, False)
        for i in range((lower - PAGE_HEADER) // 2):
            offset = struct.unpack_from("<H", self.data, at + PAGE_HEADER + 2 * i)[0]
            self._node(name, tree, at + offset, flags, i, rows)

    def _node(self, name, tree, at, flags, index, rows):
        low, high, node_flags, key_size = struct.unpack_from("<HHHH", self.data, at)
        key = self.data[at + NODE_HEADER:at + NODE_HEADER + key_size]
        key_end = at + NODE_HEADER + key_size
        self._place(f"{name}, node header", at, at + NODE_HEADER)
        if flags & BRANCH:
            # The first key of a branch page is never looked at.
            self._place(f"{name}, separators", at + NODE_HEADER, key_end, index > 0 and None)
            self._walk(low | high << 16 | node_flags << 32, tree, rows)
            return
        size = low | high << 16
        table = name
        if rows is not None:
            table = f"row {chr(key[0])}"
        self._place(f"{table}, key", at + NODE_HEADER, key_end)
        if node_flags & BIG_VALUE:
            self._place(f"{name}, number of an overflow page", key_end, key_end + 8)
            first = struct.unpack_from("<Q", self.data, key_end)[0]
            self._overflow(first, size, table)
            start = first * PAGE + PAGE_HEADER
            value = self.data[start:start + size]
            key_end, size = key_end + 8, 0
        else:
            value = self.data[key_end:key_end + size]
            self._place(f"{table}, value", key_end, key_end + size)
        if (key_end + size - at) % 2:
            self._place(f"{name}, spare", key_end + size, key_end + size + 1, False)
        if rows is not None:
            rows[key] = value

    def _overflow(self, first, size, table):
        at = first * PAGE
        count = struct.unpack_from("<I", self.data, at + 12)[0]
        for number in range(first, first + count):
            self.pages[number] = "overflow page"
        self._place("overflow page, header", at, at + 8)
        self._place("overflow page, spare", at + 8, at + 10, False)
        self._place("overflow page, header", at + 10, at + PAGE_HEADER)
        self._place("overflow page, value", at + PAGE_HEADER, at + PAGE_HEADER + size)
        self._place("overflow page, unused", at + PAGE_HEADER + size, at + count * PAGE, False)


def extent_places(path, data, rows):
    """rows: {byte of a block: it is still pointed to}."""
    def place(kind, start, end, meaning=True):
        if end > start:
            found.append(Place(f"extent: {kind}", path, start, end, meaning))

    found = []
    place("file header", 0, 64)
    at = 64
    while data[at:at + 4] == b"WBLK":
        body = struct.unpack_from("<I", data, at + 52)[0]
        end = at + 64 + body
        kind = "block" if at in rows else "dead block"
        place(f"{kind} header", at, at + 64)
        entry = at + 64
        while entry < end:
            size = struct.unpack_from("<I", data, entry + 8)[0]
            place(f"{kind} entry header", entry, entry + 12)
            place(f"{kind} entry", entry + 12, entry + 12 + size)
            entry += 12 + size
        place(f"{kind} padding", end, (end + 7) & ~7)
        at = (end + 7) & ~7
    place("end mark", at, at + 64)
    assert at + 64 == len(data), (path, at, len(data))
    return found


def kept_places(path, data, entries):
    """entries: (byte, length) of what is still needed of a journal file that became an extent."""
    at = 0
    for start, size in sorted(entries):
        yield Place("kept file: nothing", path, at, start, False)
        yield Place("kept file: entry", path, start, start + size, True)
        at = start + size
    yield Place("kept file: nothing", path, at, len(data), False)


def frames_of(data, mark):
    """The frames of one file that continue the journal at `mark`, (position, index, chain): each (byte,
    body, durable); and the mark behind them."""
    first = struct.unpack_from("<Q", data, 16)[0]
    position, index, chain = mark
    at = 4096 + max(position - first, 0)
    frames = []
    while at + 64 <= len(data) and data[at:at + 4] == b"WFRM":
        crc, body, before = struct.unpack_from("<III", data, at + 4)
        own_position, _, own_index = struct.unpack_from("<QQQ", data, at + 16)
        if (own_position, own_index, before) != (first + at - 4096, index, chain):
            break
        frames.append((at, body, struct.unpack_from("<Q", data, at + 48)[0]))
        chain, index = crc, index + 1
        at += -(-(64 + body) // SECTOR) * SECTOR
        position = first + at - 4096
    return frames, (position, index, chain)


def journal_places(paths, mark):
    """mark: where a start begins to replay."""
    def place(kind, start, end, meaning=True):
        if end > start:
            found.append(Place(f"journal: {kind}", path, start, end, meaning))

    found, files = [], []
    begin = mark[0]
    for path in paths:
        data = path.read_bytes()
        frames, mark = frames_of(data, mark)
        files.append((path, data, frames))
    every = [frame for _, _, frames in files for frame in frames]
    proved = every[-1][2] if every else 0  # this much was synced when the last frame was written
    for path, data, frames in files:
        first = struct.unpack_from("<Q", data, 16)[0]
        at = 4096 + min(max(begin - first, 0), len(data) - 4096)
        place("file header", 0, 4096)
        place("before the checkpoint", 4096, at, False)
        for start, body, _ in frames:
            meaning = True if first + start - 4096 < proved else "end"
            name = "frame" if meaning is True else "last write's frame"
            at = start - (-(64 + body) // SECTOR) * SECTOR
            place(f"{name} header", start, start + 64, meaning)
            place(f"{name} payload", start + 64, start + 64 + body, meaning)
            place(f"{name} trailer", start + 64 + body, at, meaning)
        place("behind the end", at, len(data), False)
    return found


def cell_places(folder):
    state = folder / "state"
    meta, live, kept = (0, 1, 0), collections.defaultdict(set), collections.defaultdict(list)
    if state.exists():
        lmdb = Lmdb(state)
        yield from lmdb.places
        position, index = struct.unpack_from("<QQ", lmdb.rows[b"M"], 8)
        meta = position, index, struct.unpack_from("<I", lmdb.rows[b"M"], 40)[0]
        for key, value in lmdb.rows.items():
            if key[:1] == b"E":
                extent, offset, body = struct.unpack_from("<QQI", value, 8)
                live[extent].add(offset)
                if struct.unpack_from("<I", value, 64)[0]:
                    kept[extent].append((offset, body))
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        number = int(path.name[7:], 16) if path.name.startswith("extent-") else None
        if number in kept:
            yield from kept_places(path, data, kept[number])
        elif number is not None and number in live:
            yield from extent_places(path, data, live[number])
        elif path.name == "journal-spare":
            yield Place("journal: spare file", path, 0, len(data), False)
        elif path.name == "state-lock":
            yield Place("state: lock file", path, 0, len(data), False)
    yield from journal_places(sorted(folder.glob("journal-0*")), meta)


def places(folder):
    folder = pathlib.Path(folder)
    data = (folder / "weir").read_bytes()
    yield Place("the file weir", folder / "weir", 0, len(data), True)
    for cell in sorted((folder / "cells").iterdir()):
        yield from cell_places(cell)
