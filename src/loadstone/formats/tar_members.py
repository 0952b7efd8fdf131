"""The members of a tar archive as places in the file: nothing is extracted, and no name is trusted.

Source: POSIX.1-2017 `pax`, "ustar Interchange Format"; the GNU tar manual for base-256 numbers and long names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loadstone.errors import Diagnostic, FormatError, IntegrityError, UnsafeError
from loadstone.io.limits import Limits
from loadstone.io.sources import ByteSource, SliceSource

BLOCK_NBYTES = 512
_ZERO_BLOCK = bytes(BLOCK_NBYTES)
_MAX_NAME_NBYTES = 4096
_MAX_EXTENDED_NBYTES = 1 << 20
_CHECKSUM = slice(148, 156)
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]{1,256})=")
_PLAIN_FILE = (b"0", b"\0", b"7")


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: its name without a leading `./`, where its data begins, and how long it is."""

    name: str
    offset: int
    nbytes: int
    is_file: bool  # False: a directory, a link or a device, none of which is ever followed

    def open(self, source: ByteSource) -> SliceSource:
        """Its data as a source of its own."""
        return SliceSource(source, self.offset, self.nbytes, f"{source.name}/{self.name}")


def is_header(block: bytes) -> bool:
    """Whether a block is a member's header: its checksum is right, and it is not all zeros."""
    if len(block) < BLOCK_NBYTES or block == _ZERO_BLOCK:
        return False
    claimed = _octal(block[_CHECKSUM])
    blank = block[:148] + b" " * 8 + block[156:]
    return claimed == sum(blank[:BLOCK_NBYTES])


def members(source: ByteSource, limits: Limits) -> tuple[dict[str, Member], int]:
    """Members by name, and where the archive ends.

    Raises UnsafeError (unsafe-path, ambiguous-archive) for a name that leaves the archive or stands twice, FormatError
    (header-invalid) for a damaged header, IntegrityError (truncated-file) where the file ends inside a member.
    """
    found: dict[str, Member] = {}
    end = 0
    for member in _walk(source):
        if member.name in found:
            raise UnsafeError(
                Diagnostic("ambiguous-archive", f"`{source.name}` has two members called {member.name!r:.80}")
            )
        found[member.name] = member
        limits.check("nodes", len(found), f"the members of `{source.name}`")
        end = member.offset + _padded(member.nbytes)
    while end + BLOCK_NBYTES <= source.size and source.read(end, BLOCK_NBYTES) == _ZERO_BLOCK:
        end += BLOCK_NBYTES
    return found, end


def _walk(source: ByteSource) -> Iterator[Member]:
    position = 0
    extended: dict[bytes, bytes] = {}  # what pax and GNU headers say about the next member
    while position + BLOCK_NBYTES <= source.size:
        block = source.read(position, BLOCK_NBYTES)
        if block == _ZERO_BLOCK:
            return
        if not is_header(block):
            raise _invalid(source, f"the block at {position:,} is no header")
        kind, position = block[156:157], position + BLOCK_NBYTES
        nbytes = _number(source, block[124:136])
        if kind in (b"x", b"L"):
            _check_inside(source, position, nbytes)
            if nbytes > _MAX_EXTENDED_NBYTES:
                raise _invalid(source, f"an extended header of {nbytes:,} bytes")
            extended |= _extended(source, kind, source.read(position, nbytes))
            position += _padded(nbytes)
            continue
        name = extended.get(b"path") or _name_of(block)
        if b"size" in extended:
            nbytes = _number(source, extended[b"size"])
        extended = {}
        if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            nbytes = 0  # links, devices and directories have no data
        _check_inside(source, position, nbytes)
        if kind != b"g":
            yield Member(_checked(source, name), position, nbytes, kind in _PLAIN_FILE)
        position += _padded(nbytes)
    if position != source.size:
        raise _ends_early(source, position)


def _extended(source: ByteSource, kind: bytes, data: bytes) -> dict[bytes, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header, or the long name of a GNU one."""
    if kind == b"L":
        return {b"path": data.rstrip(b"\0")}
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        length = int(match[1]) if match else 0
        if match is None or position + length > len(data) or match.end() >= position + length:
            raise _invalid(source, "an extended header is malformed")
        records[match[2]] = data[match.end() : position + length - 1]
        position += length
    if any(key.startswith(b"GNU.sparse") for key in records):
        raise FormatError(Diagnostic("unsupported-feature", f"`{source.name}` has a sparse member"))
    return records


def _name_of(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _checked(source: ByteSource, raw: bytes) -> str:
    """The name as text without `./`; raises UnsafeError where it leads out of the archive."""
    name = raw[:_MAX_NAME_NBYTES].decode("utf-8", "backslashreplace")
    pieces = name.split("/")
    odd = len(raw) > _MAX_NAME_NBYTES or any(ord(sign) < 32 or sign == "\\" for sign in name)
    if odd or ".." in pieces or name.startswith("/") or re.match("[A-Za-z]:", name):
        raise UnsafeError(
            Diagnostic("unsafe-path", f"`{source.name}` has a member called {name!r:.120}, a path outside itself")
        )
    return "/".join(piece for piece in pieces if piece not in ("", "."))


def _number(source: ByteSource, digits: bytes) -> int:
    """A size: octal, or with the first bit set base 256 (GNU); in pax headers decimal."""
    if digits[:1] == b"\x80":
        return int.from_bytes(digits[1:], "big")
    number = _octal(digits) if len(digits) == 12 else int(digits) if digits.isdigit() and len(digits) < 20 else None
    if number is None:
        raise _invalid(source, f"a member has the size {digits[:20]!r}")
    return number


def _octal(digits: bytes) -> int | None:
    text = digits.strip(b" \0")
    return int(text or b"0", 8) if re.fullmatch(rb"[0-7]*", text) else None


def _padded(nbytes: int) -> int:
    return -(-nbytes // BLOCK_NBYTES) * BLOCK_NBYTES


def _check_inside(source: ByteSource, position: int, nbytes: int) -> None:
    if nbytes > source.size - position:
        raise _ends_early(source, position + nbytes)


def _ends_early(source: ByteSource, expected: int) -> IntegrityError:
    return IntegrityError(
        Diagnostic(
            "truncated-file",
            f"`{source.name}` ends inside a member of the archive",
            evidence=(("expected", f"{expected:,} bytes or more"), ("found", f"{source.size:,} bytes")),
        )
    )


def _invalid(source: ByteSource, why: str) -> FormatError:
    return FormatError(Diagnostic("header-invalid", f"the tar archive `{source.name}` is damaged: {why}"))
