"""One request for a file, through redirects, and what its failures mean.

urllib with nothing in it but http, https and the proxies of the environment: no other scheme can be reached, and
redirects are followed here, where each step is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, final

from loadstone.errors import Diagnostic, Fix, IntegrityError
from loadstone.io.addresses import Address, is_same_origin, redirected

if TYPE_CHECKING:
    from http.client import HTTPResponse

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))  # statuses that may be another one soon
_LONGEST_PAUSE = 30.0  # seconds, whatever the server asks for

# fmt: off
_ADVICE = {  # status: what to do
    401: ("the server asks for a login", "https://USER:PASSWORD@HOST/..."),
    403: ("accept the terms or ask for access on the server's own pages; a signed link may have expired", ""),
    404: ("copy the address again from the page that gives it", ""),
    410: ("copy the address again from the page that gives it", ""),
}
# fmt: on


@final
@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout_seconds: of silence, while connecting and while reading.
        attempts: that may fail one after the other; one that brought a megabyte starts the count again.
        pause_seconds: before the second attempt; twice as long before each further one.
        redirects: that are followed.
        slowest: bytes a second that an attempt must bring, over each `timeout_seconds`.
    """

    timeout_seconds: float = 30.0
    attempts: int = 5
    pause_seconds: float = 0.5
    redirects: int = 10
    slowest: int = 100


class PassingError(Exception):
    """Something that another attempt may not meet: a cut connection, a server that is busy."""

    def __init__(self, why: str, pause_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.pause_seconds = pause_seconds


def request(address: Address, headers: Mapping[str, str], patience: Patience) -> HTTPResponse:
    """The server's answer, its status 200, 206 or 416; the caller closes it.

    Raises PassingError where another attempt may help, else IntegrityError (download-failed) or, for a redirect that
    is not followed, FormatError (address-refused).
    """
    url = address.url
    for _ in range(patience.redirects + 1):
        sent = {"User-Agent": "loadstone", "Accept-Encoding": "identity", **headers}
        if address.authorization and is_same_origin(url, address.url):
            sent["Authorization"] = address.authorization
        response = _ask(address, url, sent, patience)
        if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            return response
        with response:
            if response.status not in _REDIRECTS:
                raise _refusal(address, response)
            location = response.headers.get("Location")
        if not location:
            raise failed(address, "the server redirects to nowhere")
        url = redirected(url, location)
    raise failed(address, f"the server redirects more than {patience.redirects} times, in a circle perhaps")


def failed(address: Address, why: str, *fixes: Fix) -> IntegrityError:
    """The error for a download that cannot be made."""
    return IntegrityError(Diagnostic("download-failed", f"downloading `{address.shown}`: {why}", fixes=fixes))


def _ask(address: Address, url: str, headers: dict[str, str], patience: Patience) -> HTTPResponse:
    import socket
    import ssl
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=patience.timeout_seconds)  # type: ignore[no-any-return]
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, socket.gaierror):
            why = "the host's name is not known here; is this machine offline?"
            raise failed(address, why, _by_hand(address)) from error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise failed(address, f"the server's certificate is not trusted ({reason.verify_message})") from error
        raise PassingError(named(reason)) from error


def named(error: object) -> str:
    """A failure of the network in a few words."""
    if isinstance(error, TimeoutError):
        return "the server is silent"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the server closed the connection" if isinstance(error, OSError) else "the server does not speak HTTP"


def _refusal(address: Address, response: HTTPResponse) -> PassingError | IntegrityError:
    """What a status that brings no file means."""
    status = response.status
    phrase = HTTPStatus(status).phrase.lower() if status in HTTPStatus._value2member_map_ else "unknown status"
    why = f"the server answers {status} ({phrase})"
    if status in _PASSING:
        after = response.headers.get("Retry-After", "")
        return PassingError(why, min(float(after), _LONGEST_PAUSE) if after.isdecimal() else 0.0)
    does, paste = _ADVICE.get(status, ("", ""))
    return failed(address, why, *((Fix(does, paste),) if does else ()))


def _by_hand(address: Address) -> Fix:
    return Fix("download it on another machine and give the path of the file", f"curl -LO {address.shown}")
