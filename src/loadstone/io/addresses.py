"""Addresses of files on the web: what is asked for, what may be printed, and the name the file gets on disk.

The name of the file may carry the start of its SHA-256, as torchvision's do: `resnet18-f37072fd.pth`
(https://docs.pytorch.org/docs/stable/hub.html, `check_hash`).  `urllib` is imported in functions: most files are local.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import final

from loadstone.errors import Diagnostic, FormatError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: `C://` is a drive
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[0-9a-z.]+$", re.IGNORECASE)
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")  # `model-20240115.pth` says when, not what
_UNWANTED = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")  # no URL has them (RFC 3986), some clients drop them
_NAME_NBYTES = 200  # file systems allow 255; the endings of what stands beside the file need some
_KEPT = "!#$%&'()*+,/:;=?@[]~"  # what `quote` leaves alone: all that RFC 3986 reserves, and what is quoted already


@final
@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address of one file.

    Attributes:
        url: what is asked for, without user and fragment.
        shown: what messages say, without user, query and fragment: those may be secrets.
        name: the last part of the path, which is the file's name in the cache, as in torch.hub.
        sha256_prefix: the start of the file's SHA-256 that the name carries, lower case, if it does.
        authorization: the header that stands for `user:password@`, if there was one.
    """

    url: str = field(repr=False)
    shown: str
    name: str
    sha256_prefix: str | None
    authorization: str | None = field(repr=False)


def is_address(text: str) -> bool:
    """Whether it starts as an address does: `scheme://`."""
    return _ADDRESS.match(text) is not None


def parse_address(text: str) -> Address:
    """The address in its parts.

    Raises FormatError (address-refused) where it is not http or https, or names no host or no file.
    """
    from base64 import b64encode
    from urllib.parse import quote, unquote, urlsplit, urlunsplit

    if _UNWANTED.search(text):
        raise refused("the address has spaces, control characters or backslashes in it")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:  # UnicodeError is one: a label of the host is empty or too long
        raise refused("the address is malformed") from error
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise refused(f"addresses of the kind `{scheme}:` are not opened, only http and https")
    if not host:
        raise refused("the address names no host")
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    shown = f"{scheme}://{place}{parts.path}"
    name = parts.path.rpartition("/")[2]
    if name in ("", ".", "..") or len(name.encode()) > _NAME_NBYTES:
        raise refused(f"`{shown}` names no file")
    user = None
    if parts.username is not None:
        user = b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode()
    return Address(
        url=urlunsplit((scheme, place, quote(parts.path, safe=_KEPT), quote(parts.query, safe=_KEPT), "")),
        shown=shown,
        name=name,
        sha256_prefix=_sha256_prefix(name),
        authorization=None if user is None else f"Basic {user}",
    )


def shown(text: str) -> str:
    """A path or an address as messages may say it: without user and query."""
    if not is_address(text):
        return text
    try:
        return parse_address(text).shown
    except FormatError:
        return "the address"


def redirected(url: str, location: str) -> str:
    """Where a redirect from `url` to `location` leads.

    Raises FormatError (address-refused) where it leaves http and https, or goes from https back to http.
    """
    from urllib.parse import quote, urljoin, urlsplit

    try:
        target = urljoin(url, quote(location, safe=_KEPT, encoding="latin-1", errors="replace"))  # as headers are read
        scheme, host = urlsplit(target).scheme.lower(), urlsplit(target).hostname
    except ValueError as error:
        raise refused("the server redirects to a malformed address") from error
    if scheme not in ("http", "https") or not host:
        raise refused("the server redirects to something that is no http or https address")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise refused(f"the server redirects from https to http, at `{host}`, where anyone may change the file")
    return target


def is_same_origin(url: str, other: str) -> bool:
    """Whether two addresses are of one server, so that both may see the password."""
    from urllib.parse import urlsplit

    return urlsplit(url)[:2] == urlsplit(other)[:2]


def refused(message: str) -> FormatError:
    """The error for an address that is not opened."""
    return FormatError(Diagnostic("address-refused", message))


def _sha256_prefix(name: str) -> str | None:
    match = _HASH.search(name)
    return None if match is None or _DATE.fullmatch(match[1]) else match[1].lower()
