"""Web servers on loopback, and a wire to them that can be cut.

Each test of `web` runs against Python's own server, a process, and against nginx too where it is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")  # Debian's place for it
SERVERS = ["http.server", *(["nginx"] if NGINX else [])]

Connect = Callable[[], socket.socket]


@dataclass
class Wire:
    """A forwarder to a web server: it sees what is asked, and spoils what is answered."""

    connect: Connect
    folder: Path  # what the server serves
    port: int = 0
    asked: list[str] = field(default_factory=list)  # heads of requests
    cuts: list[int] = field(default_factory=list)  # bytes of the next answers, one each, that come through
    canned: list[bytes] = field(default_factory=list)  # answers that are given instead of the server's
    is_silent_after: bool = False  # a cut says nothing more, instead of closing
    pause_seconds: float = 0.0  # before each piece of an answer
    piece_nbytes: int = 1 << 16
    is_over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}/{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        lines = [head.split("\r\n") for head in self.asked]
        return [next((line[7:] for line in each if line.lower().startswith("range: ")), None) for each in lines]

    def carry(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = client.recv(1 << 16)
            if not piece:
                return
            head += piece
        self.asked.append(head.decode("latin-1"))
        if self.canned:
            client.sendall(self.canned.pop(0))
            return
        left = self.cuts.pop(0) if self.cuts else None
        with self.connect() as server:
            server.sendall(head)
            while left != 0 and (piece := server.recv(self.piece_nbytes)):
                piece = piece if left is None else piece[:left]
                left = left if left is None else left - len(piece)
                self.is_over.wait(self.pause_seconds)
                client.sendall(piece)
        if left == 0 and self.is_silent_after:
            self.is_over.wait(20)


class _Forwarder(socketserver.ThreadingTCPServer):
    daemon_threads = True
    wire: Wire

    def handle_error(self, *_: object) -> None:
        """The client went away: the tests see to that."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Forwarder

    def handle(self) -> None:
        self.server.wire.carry(self.request)


@contextlib.contextmanager
def wired(connect: Connect, folder: Path) -> Iterator[Wire]:
    wire = Wire(connect, folder)
    with _Forwarder(("127.0.0.1", 0), _Handler) as forwarder:
        forwarder.wire, wire.port = wire, forwarder.server_address[1]
        thread = threading.Thread(target=forwarder.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield wire
        finally:
            wire.is_over.set()
            forwarder.shutdown()
            thread.join()


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Connect, Path]]:
    """How to connect to a running server, and the folder it serves."""
    folder = Path(tempfile.mkdtemp(prefix="web"))  # a short path: that of a socket may have 108 bytes
    (folder / "served").mkdir()
    process, connect = _nginx(folder) if request.param == "nginx" else _python(folder)
    try:
        yield connect, folder / "served"
    finally:
        process.terminate()
        process.communicate(timeout=10)
        shutil.rmtree(folder)


def _python(folder: Path) -> tuple[subprocess.Popen[str], Connect]:
    command = [sys.executable, "-S", str(HERE / "web_server.py"), str(folder / "served")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    return process, lambda: socket.create_connection(("127.0.0.1", port), timeout=10)


def _nginx(folder: Path) -> tuple[subprocess.Popen[str], Connect]:
    user = "user root;" if os.geteuid() == 0 else ""  # or its workers could not see the folder
    text = (HERE / "nginx.conf").read_text(encoding="utf-8").replace("FOLDER", str(folder)).replace("USER", user)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    (folder / "users").write_text("alice:{PLAIN}s3cret\n", encoding="utf-8")
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        try:
            client.connect(str(folder / "socket"))
        except OSError:
            client.close()
            raise
        return client

    until = time.monotonic() + 10
    while True:
        try:
            connect().close()
            return process, connect
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.02)


@pytest.fixture
def web(server: tuple[Connect, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A wire to the server; what is downloaded goes to `tmp_path/torch/hub/checkpoints`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    connect, folder = server
    with wired(connect, folder) as wire:
        yield wire
    for file in folder.iterdir():
        file.unlink()


@pytest.fixture
def other_web(server: tuple[Connect, Path], web: Wire) -> Iterator[Wire]:
    """A second wire: to a client, another server."""
    with wired(*server) as wire:
        yield wire


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"web servers that downloads were tested against: {', '.join(SERVERS)}")
