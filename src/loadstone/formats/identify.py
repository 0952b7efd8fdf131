"""What a file is when it is no checkpoint, and what to do about it.

By content, in the order of the tables: magic numbers first, then kinds of text, then guesses from structure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from loadstone.errors import Diagnostic, Fix
from loadstone.io.sources import ByteSource

FORMATS = (
    "torch zip, TorchScript, torch.export, torch legacy, torch tar, pickle, safetensors, npz, npy, GGUF, "
    "and directories of shards, torch.distributed.checkpoint and DeepSpeed"
)


@dataclass(frozen=True, slots=True)
class _Magic:
    """Bytes at a place that name a kind of file, and the way out."""

    offset: int
    magic: bytes
    kind: str
    does: str = ""
    paste: str = ""


_UNPACK = "unpack it first"
_EXPORT = "convert it in the framework that wrote it"

# fmt: off
_MAGICS: tuple[_Magic, ...] = (
    # compressed files and archives
    _Magic(0, b"\x1f\x8b",                     "a gzip archive", _UNPACK, "gunzip FILE"),
    _Magic(0, b"\x28\xb5\x2f\xfd",             "a Zstandard archive", _UNPACK, "zstd -d FILE"),
    _Magic(0, b"\xfd7zXZ\x00",                 "an xz archive", _UNPACK, "xz -d FILE"),
    _Magic(0, b"BZh",                          "a bzip2 archive", _UNPACK, "bunzip2 FILE"),
    _Magic(0, b"7z\xbc\xaf\x27\x1c",           "a 7-Zip archive", _UNPACK, "7z x FILE"),
    _Magic(0, b"Rar!\x1a\x07",                 "a RAR archive", _UNPACK, "unrar x FILE"),
    _Magic(0, b"\x04\x22\x4d\x18",             "an LZ4 archive", _UNPACK, "lz4 -d FILE"),
    _Magic(0, b"PK\x05\x06",                   "an empty zip archive"),
    # pictures and documents
    _Magic(0, b"\x89PNG\r\n\x1a\n",            "a PNG image"),
    _Magic(0, b"\xff\xd8\xff",                 "a JPEG image"),
    _Magic(0, b"GIF8",                         "a GIF image"),
    _Magic(0, b"%PDF-",                        "a PDF document"),
    _Magic(8, b"WEBP",                         "a WebP image"),
    # other models and data
    _Magic(0, b"\x89HDF\r\n\x1a\n",            "an HDF5 file (Keras weights, for example)", _EXPORT,
           'torch.save({k: torch.tensor(v[()]) for k, v in ...}, "weights.pth")'),
    _Magic(4, b"TFL3",                         "a TensorFlow Lite model", _EXPORT),
    _Magic(4, b"ET12",                         "an ExecuTorch program", "use the .pth that it was exported from"),
    _Magic(0, b"ARROW1\x00\x00",               "an Arrow file"),
    _Magic(0, b"PAR1",                         "a Parquet file"),
    _Magic(0, b"lmgg",                         "an old GGML model", "convert it with llama.cpp"),
    _Magic(0, b"fmgg",                         "an old GGML model", "convert it with llama.cpp"),
    _Magic(0, b"tjgg",                         "an old GGML model (GGJT)", "convert it with llama.cpp"),
    _Magic(0, b"SQLite format 3\x00",          "an SQLite database"),
    _Magic(0, b"\x93NUMPY",                    "a numpy array of an unknown version"),
    # programs
    _Magic(0, b"\x7fELF",                      "a Linux program or library (ELF)"),
    _Magic(0, b"MZ",                           "a Windows program or library"),
    _Magic(0, b"\xcf\xfa\xed\xfe",             "a macOS program or library"),
    _Magic(0, b"\xca\xfe\xba\xbe",             "a macOS program or a Java class"),
    _Magic(0, b"#!",                           "a script"),
)
# fmt: on

# phrases that servers send in place of a file, and what they mean
_SERVER_ERRORS = (
    ("invalid username or password", "the server asks for a login: accept the model's terms and pass a token"),
    ("access to model", "access to the model is restricted: ask for it on its page, then download with a token"),
    ("repository not found", "the repository does not exist, or is private"),
    ("entry not found", "the file does not exist in the repository"),
    ("revision not found", "the revision does not exist in the repository"),
    ("accessdenied", "the storage refused the download"),
    ("quota exceeded", "the download quota is used up"),
    ("too many requests", "the server limits downloads"),
    ("not found", "the address leads to nothing"),
    ("forbidden", "the server refused the download"),
    ("unauthorized", "the server asks for a login"),
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = re.compile(rb"^size (\d{1,20})\s*$", re.MULTILINE)
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_PYTHON = re.compile(r"^\s*(import \w|from [\w.]+ import |def \w+\(|class \w+[(:])", re.MULTILINE)
_PICKLE_0 = re.compile(
    r"""\(|[\])}]|c\S+\n\S+\n|[ILFP]\S+\n|S['"]|V.*\n[p.(]|N[.\n(]"""
)  # how pickletools.dis would begin
_PROBE_NBYTES = 4096
_PROBES = 64


def identify(head: bytes, source: ByteSource | None, path: str) -> Diagnostic | None:
    """The diagnostic for a file that is something else than a checkpoint, or None where its kind is unknown.

    `head` is the first bytes (some thousand, or the whole file), `source` the file where more may be looked at, `path`
    what the message calls it.
    """
    size = source.size if source is not None else len(head)
    if size == 0:
        return Diagnostic("empty-file", f"`{path}` has no bytes")
    if head.startswith(_LFS_POINTER):
        return _lfs_pointer(head, path)
    if not head.strip(b"\0"):
        return _zeros(source, path, size)
    for row in _MAGICS:
        if row.offset and head.startswith(b"\x80"):
            continue  # a pickle, and the text of one may stand there
        if head.startswith(row.magic, row.offset):
            return _something_else(path, row.kind, row.does, row.paste.replace("FILE", path))
    kind = _binary_kind(head)
    if kind is not None:
        return _something_else(path, kind, _EXPORT)
    return _identify_text(head, path)


def unknown_format(head: bytes, path: str) -> Diagnostic:
    """The diagnostic for a file of no known kind: its first bytes, and what Loadstone reads."""
    start = head[:16]
    printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in start)
    first = (("first bytes", f"{start.hex(' ')}  {printable}"),) if start else ()
    return Diagnostic(
        "unknown-format", f"`{path}` is of no format that Loadstone reads", (*first, ("formats tried", FORMATS))
    )


def _something_else(path: str, kind: str, does: str = "", paste: str = "") -> Diagnostic:
    fixes = (Fix(does, paste),) if does else ()
    return Diagnostic("not-a-checkpoint", f"`{path}` is {kind}, not a checkpoint", fixes=fixes)


def _lfs_pointer(head: bytes, path: str) -> Diagnostic:
    match = _LFS_SIZE.search(head)
    size = f" of a file of {int(match[1]):,} bytes" if match else ""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return Diagnostic(
        "lfs-pointer",
        f"`{path}` is a Git LFS pointer{size}, not the file itself",
        fixes=(Fix("fetch the file, in its repository", f'git lfs pull --include "{name}"'),),
    )


def _zeros(source: ByteSource | None, path: str, size: int) -> Diagnostic | None:
    """A file that starts with zeros: all of it, or 64 places of a large one, are looked at."""
    step = max(_PROBE_NBYTES, -(-size // _PROBES))
    for place in range(0, size, step):
        if source is not None and source.read(place, min(_PROBE_NBYTES, size - place)).strip(b"\0"):
            return None
    what = f"`{path}` holds nothing but zeros ({size:,} bytes): space was reserved and never written"
    return Diagnostic("not-a-checkpoint", what, fixes=(Fix("copy or download it again", ""),))


def _binary_kind(head: bytes) -> str | None:
    """Protocol buffers have no magic number: field 1 is a small version number in all that matter here."""
    if head[:1] != b"\x08" or len(head) < 8 or head[1] > 0x20:
        return None
    producer = head[4 : 4 + head[3]].decode("latin-1")
    if head[2:3] == b":" or (head[2:3] == b"\x12" and 1 < head[3] <= 64 and producer.isprintable()):
        return "an ONNX model"  # ir_version, then producer_name (field 2, text) or graph (7)
    if head[:3] == b"\x08\x01\x12":
        return "a TensorFlow SavedModel"  # saved_model_schema_version is 1, then meta_graphs (2)
    return "a Core ML model" if head[2:3] == b"\x12" and b"\x0a" in head[4:16] else None


def _identify_text(head: bytes, path: str) -> Diagnostic | None:
    text = _as_text(head)
    if text is None:
        return None
    start = text.lstrip()[:512].lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")) or ("<html" in start and start[0] == "<"):
        why = _server_error(text) or "the address led to a page instead of the file"
        return _something_else(path, f"a web page (HTML; {why})", "download the file itself, not its page")
    if start.startswith("<"):
        return _something_else(path, f"XML text{_because(_server_error(text))}")
    if start.startswith(("{", "[")):
        return _something_else(path, _kind_of_json(text))
    reason = _server_error(text) if len(text) < 2000 else None
    if reason is not None:
        return _something_else(
            path,
            f"an error message of a server ({text.strip().splitlines()[0][:80]!r})",
            "download it again: " + reason,
        )
    if _PYTHON.search(text):
        return _something_else(path, "Python source text")
    if _PICKLE_0.match(text) or "\n." in text or len(text.strip()) < 8:
        return None  # a pickle of protocol 0, which is text too, or too short to say
    return _something_else(path, f"text ({text.strip().splitlines()[0][:60]!r})")


def _as_text(head: bytes) -> str | None:
    """The head as text, if nearly all of it can be shown; a character that the head cuts in two does not count."""
    encoding = "utf-16" if head[:2] in _BOMS else "utf-8-sig"
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return None
        text = head[: error.start].decode(encoding, "ignore")
    odd = sum(not (character.isprintable() or character in "\t\r\n\f") for character in text)
    return text if odd == 0 and text.strip() else None


def _kind_of_json(text: str) -> str:
    reason = _server_error(text) if '"error"' in text[:512] else None
    if reason is not None:
        return f"a JSON error message of a server ({reason})"
    if '"weight_map"' in text:
        return "the index of a checkpoint in several files (name it `*.index.json`, beside its shards)"
    if '"model_type"' in text or '"architectures"' in text:
        return "the configuration of a Hugging Face model (JSON); the weights are in another file of that directory"
    if '"added_tokens"' in text or '"vocab"' in text:
        return "a tokenizer (JSON)"
    return "JSON text"


def _server_error(text: str) -> str | None:
    lowered = text[:2000].lower()
    return next((reason for phrase, reason in _SERVER_ERRORS if phrase in lowered), None)


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
