"""The structure of an HDF5 file without the HDF5 library: groups, the shapes of datasets, text attributes.

Neither data nor links are followed, so nothing outside the file is read. Groups are read as h5py writes them by default
(symbol tables) and as small groups of newer files (link messages).

Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html (the file format, version 3)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89HDF\r\n\x1a\n"
OBJECTS_LIMIT = 100_000  # groups, datasets and nodes of their trees; a layer of a model has a few
MESSAGES_LIMIT = 10_000  # of one object
TEXT_LIMIT_BYTES = 64 << 20
UNDEFINED = (1 << 64) - 1
SPACE, LINKS, TYPE, LINK, ATTRIBUTE, CONTINUATION, TABLE = 1, 2, 3, 6, 12, 16, 17  # numbers of header messages
NUMBERS = {0: "int", 1: "float"}  # classes of datatypes
STRING, LIST = 3, 9
SOFT = 2  # cache type of a symbolic link

Message = tuple[int, memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`name` is the path from the root without the leading slash."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(slots=True, kw_only=True)
class Hdf5File:
    """`attributes` are the root's that are text; `groups` the names of the root's own groups; datasets in the order of
    the file's trees, which is alphabetical."""

    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)


def read_hdf5(data: memoryview) -> Hdf5File:
    """Read the structure.

    Raises:
        ValueError: Damaged, over a limit, or a structure that h5py does not write by default.
        struct.error: An address outside the file.
    """
    reader, found = _Reader(data), Hdf5File()
    root = reader.messages(reader.root())
    found.attributes = reader.texts(root)
    left = [("", root)]
    while left:
        path, messages = left.pop()
        below = []
        for name, address in reader.children(messages):
            inner, whole = reader.messages(address), f"{path}/{name}" if path else name
            space = [body for kind, body in inner if kind == SPACE]
            if space:
                dtype = _dtype(next((body for kind, body in inner if kind == TYPE), memoryview(b"")))
                found.datasets.append(Dataset(name=whole, shape=_sizes(space[0]), dtype=dtype))
            else:
                below.append((whole, inner))
                found.groups += [name] * (not path)
        left += reversed(below)
    return found


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.seen = data, set[int]()

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from("<" + form, self.data, _inside(at))

    def root(self) -> int:
        version = self.data[8]
        places = {0: (13, 64), 1: (13, 68), 2: (9, 36), 3: (9, 36)}
        if version not in places or bytes(self.data[:8]) != SIGNATURE:
            raise ValueError(f"no HDF5 superblock of a known version ({version})")
        widths, where = places[version]
        if tuple(self.data[widths : widths + 2]) != (8, 8):
            raise ValueError("offsets of another width than 8 bytes")
        return self.unpack("Q", where)[0]

    def visit(self, address: int) -> bool:
        """Whether an address is new: a damaged file leads in circles."""
        new = address not in self.seen
        self.seen.add(address)
        if len(self.seen) > OBJECTS_LIMIT:
            raise ValueError(f"more than {OBJECTS_LIMIT} objects")
        return new

    def messages(self, address: int) -> list[Message]:
        """Of an object's header; none where it was read before, as a group may hold itself."""
        if not self.visit(address):
            return []
        newer = self.signed(b"OHDR", address)
        found, blocks = [], [self._first_newer(address) if newer else (address + 16, self.unpack("I", address + 8)[0])]
        order = 2 * bool(newer and self.data[address + 5] & 4)
        while blocks:
            at, length = blocks.pop()
            if not self.visit(at):
                continue
            if newer and self.signed(b"OCHK", at):
                at, length = at + 4, length - 8
            end = at + length
            while at + (4 if newer else 8) <= end:
                kind, size = self.unpack("BH" if newer else "HH", at)
                body = at + (4 + order if newer else 8)
                found.append((kind, self.data[body : body + size]))
                if kind == CONTINUATION:
                    where, size_there = self.unpack("QQ", body)
                    blocks.append((where, size_there))
                if len(found) > MESSAGES_LIMIT:
                    raise ValueError(f"an object with more than {MESSAGES_LIMIT} header messages")
                at = body + size
        return found

    def _first_newer(self, address: int) -> tuple[int, int]:
        flags = self.data[address + 5]
        at = address + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        return at + width, int.from_bytes(self.data[at : at + width], "little")

    def children(self, messages: list[Message]) -> Iterator[tuple[str, int]]:
        for kind, body in messages:
            if kind == TABLE:
                yield from self._table(*struct.unpack_from("<QQ", body))
            elif kind == LINK:
                yield from _link(body)
            elif kind == LINKS and struct.unpack_from("<Q", body, 2 + 8 * (body[1] & 1))[0] != UNDEFINED:
                raise ValueError("a group in the dense form of newer files, which is not read")

    def _table(self, tree: int, heap: int) -> Iterator[tuple[str, int]]:
        if not self.signed(b"HEAP", heap):
            raise ValueError(f"no heap of names at byte {heap}")
        names, left = self.unpack("Q", heap + 24)[0], [tree]
        while left:
            at = left.pop()
            if not self.visit(at):
                continue
            if self.signed(b"TREE", at):
                count = self.unpack("H", at + 6)[0]
                left += [self.unpack("Q", at + 32 + 16 * k)[0] for k in reversed(range(count))]
            elif self.signed(b"SNOD", at):
                for k in range(self.unpack("H", at + 6)[0]):
                    name, header, cache = self.unpack("QQI", at + 8 + 40 * k)
                    if cache != SOFT:
                        yield self.text(names + name), header
            else:
                raise ValueError(f"no group at byte {at}")

    def signed(self, signature: bytes, at: int) -> bool:
        return bytes(self.data[_inside(at) : at + 4]) == signature

    def text(self, at: int) -> str:
        return bytes(self.data[_inside(at) : at + 1024]).split(b"\0")[0].decode("utf-8", "replace")

    def texts(self, messages: list[Message]) -> dict[str, str]:
        """The attributes that hold one text each."""
        found = {}
        for body in (body for kind, body in messages if kind == ATTRIBUTE):
            sizes = struct.unpack_from("<HHH", body, 2)
            at, places = 9 if body[0] == 3 else 8, []
            for size in sizes:
                places.append(at)
                at += -(-size // 8) * 8 if body[0] == 1 else size
            kind = body[places[1]] & 15
            if kind == STRING:
                value: bytes | memoryview = body[at:]
            elif kind == LIST:
                value = self._from_heap(*struct.unpack_from("<IQI", body, at))
            else:
                continue
            name = bytes(body[places[0] : places[0] + sizes[0]]).split(b"\0")[0]
            found[name.decode("utf-8", "replace")] = bytes(value).rstrip(b"\0").decode("utf-8", "replace")
        return found

    def _from_heap(self, length: int, heap: int, index: int) -> memoryview:
        if not self.signed(b"GCOL", heap) or length > TEXT_LIMIT_BYTES:
            raise ValueError(f"no text of at most {TEXT_LIMIT_BYTES} bytes at byte {heap}")
        at, end = heap + 16, heap + self.unpack("Q", heap + 8)[0]
        while at < end:
            number, _, size = self.unpack("HH4xQ", at)
            if number == index:
                return self.data[at + 16 : at + 16 + length]
            if number == 0:
                break
            at += 16 + -(-size // 8) * 8
        raise ValueError(f"a heap without its object {index}")


def _inside(at: int) -> int:
    if at > 1 << 62:  # an undefined address; Python would count it from the end
        raise ValueError("an address outside the file")
    return at


def _link(body: memoryview) -> Iterator[tuple[str, int]]:
    """A hard link; others lead elsewhere."""
    flags, at = body[1], 2
    kind = body[at] if flags & 8 else 0
    at += bool(flags & 8) + 8 * bool(flags & 4) + bool(flags & 16)
    width = 1 << (flags & 3)
    length = int.from_bytes(body[at : at + width], "little")
    name = bytes(body[at + width : at + width + length]).decode("utf-8", "replace")
    if kind == 0:
        yield name, struct.unpack_from("<Q", body, at + width + length)[0]


def _sizes(space: memoryview) -> tuple[int, ...]:
    return struct.unpack_from(f"<{space[1]}Q", space, 8 if space[0] == 1 else 4)


def _dtype(body: memoryview) -> str:
    kind, size = body[0] & 15, struct.unpack_from("<I", body, 4)[0]
    if kind in (STRING, LIST):
        return "string"
    unsigned = "u" if kind == 0 and not body[1] & 8 else ""
    return f"{unsigned}{NUMBERS[kind]}{8 * size}" if kind in NUMBERS else f"HDF5 class {kind}"
