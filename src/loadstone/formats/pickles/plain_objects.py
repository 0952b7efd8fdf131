"""Calls of Python's own and torch's small value types, as plain values.

A pickle writes a complex number, a set or a torch.Size as a call of its class.  Each row of PLAIN says what the value
of such a call is; NAMES are globals that are values themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from loadstone.dtypes import DTYPES
from loadstone.formats.pickles.call_site import CallSite, Table
from loadstone.values import Opaque, Value

SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
MAX_KEY_ITEMS: Final = 64  # of a tuple that is kept as a dict key
_MAX_KEY_DEPTH: Final = 4
_MAX_SAME_HASH: Final = 64  # keys; chance does not come near it

_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged", "_mkldnn")
_MEMORY_FORMATS = ("preserve_format", "contiguous_format", "channels_last", "channels_last_3d")
_QSCHEMES = (
    "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)  # fmt: skip

NAMES: Final = frozenset(f"torch.{name}" for name in (*DTYPES, *_LAYOUTS, *_MEMORY_FORMATS, *_QSCHEMES))


def is_key(value: Value, depth: int = _MAX_KEY_DEPTH) -> bool:
    """Whether hashing the value is cheap and safe: a scalar, or a small tuple of them."""
    if type(value) is tuple:
        return depth > 0 and len(value) <= MAX_KEY_ITEMS and all(is_key(item, depth - 1) for item in value)
    return type(value) in SCALARS


def is_hash_attack(keys: Collection[Value]) -> bool:
    """Whether so many keys share a hash that a dict of them would take quadratic time.

    Text and bytes are hashed with a secret of the process; numbers, and tuples of numbers, are not.
    """
    if len(keys) <= _MAX_SAME_HASH:
        return False
    hashes = Counter(hash(key) for key in keys if type(key) is not str and type(key) is not bytes)
    return any(count > _MAX_SAME_HASH for count in hashes.values())


def as_set(members: Iterable[Value], class_name: str = "builtins.set") -> Value:
    """A Python set where every member can be hashed safely, else a record with the members as items."""
    items = list(members)
    if all(map(is_key, items)) and not is_hash_attack(items):
        return set(items)
    return Opaque(class_name, items=items)


def _set(site: CallSite) -> Value:
    match site.args:
        case ():
            members: Sequence[Value] = ()
        case (list() | tuple() as members,):
            pass
        case (set() | frozenset() as known,):
            return set(known)
        case _:
            raise site.malformed()
    return as_set([*members, *site.items], site.path)


def _complex(site: CallSite) -> Value:
    match site.args:
        case (int() | float() as real, int() | float() as imaginary):
            try:
                return complex(real, imaginary)
            except OverflowError:  # an int beyond the largest float
                raise site.malformed() from None
    raise site.malformed()


def _encode(site: CallSite) -> Value:
    """`_codecs.encode(text, "latin1")`: how protocols 0 to 2 write bytes."""
    match site.args:
        case (str() as text, "latin1" | "latin-1"):
            return _latin1(site, text)
    return site.unbuilt()


def _bytes(site: CallSite) -> Value:
    """bytes and bytearray: of nothing, of bytes, of text with its encoding, or of a list of numbers."""
    match site.args:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str() as text, "latin1" | "latin-1"):
            return _latin1(site, text)
        case (list() as numbers,) if all(type(number) is int and 0 <= number < 256 for number in numbers):
            return bytes(numbers)
    raise site.malformed()


def _latin1(site: CallSite, text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise site.malformed() from None


def _tuple(site: CallSite) -> Value:
    match site.args:
        case ():
            return ()
        case (tuple() | list() as items,):
            return tuple(items)
    raise site.malformed()


def _list(site: CallSite) -> Value:
    match site.args:
        case ():
            return list(site.items)
        case (list() | tuple() as items, *_):  # the second argument of a deque is its greatest length
            return [*items, *site.items]
    raise site.malformed()


def _device(site: CallSite) -> Value:
    match site.args:
        case (str() as kind,):
            return kind
        case (str() as kind, int() as index):
            return f"{kind}:{index}"
    raise site.malformed()


def _same_text(site: CallSite) -> Value:
    match site.args:
        case (str() as text,):
            return text
    raise site.malformed()


PLAIN: Final[Table] = {
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.tuple": _tuple,
    "builtins.list": _list,
    "collections.deque": _list,
    "_codecs.encode": _encode,
    "torch.Size": _tuple,
    "torch.device": _device,
    "torch.serialization._get_layout": _same_text,  # torch/serialization.py: layouts are pickled by their repr
}
