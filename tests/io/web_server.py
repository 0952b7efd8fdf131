"""A small file server, run as a process of its own: `python web_server.py FOLDER`; prints its port.

It does what nginx.conf says nginx to do, so that the same tests run against both.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])
ALICE = "Basic " + base64.b64encode(b"alice:s3cret").decode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        _, kind, name = path.split("/", 2)
        if kind == "redirect":
            self.answer(302, Location=query.removeprefix("to="))
        elif kind == "loop":
            self.answer(302, Location=self.path)
        elif kind == "forbidden":
            self.answer(403)
        elif kind == "private" and self.headers.get("Authorization") != ALICE:
            self.answer(401)
        elif (FOLDER / name).is_file():
            self.file(FOLDER / name, takes_ranges=kind != "noranges")
        else:
            self.answer(404)

    def file(self, path: Path, *, takes_ranges: bool) -> None:
        status = path.stat()
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        headers = {"ETag": etag, "Content-Disposition": 'attachment; filename="../../../evil.pth"'}
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if takes_ranges and asked and self.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            if start >= status.st_size:
                self.answer(416, **{"Content-Range": f"bytes */{status.st_size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{status.st_size - 1}/{status.st_size}"
        self.answer(206 if start else 200, status.st_size - start, **headers)
        with path.open("rb") as file:
            os.lseek(file.fileno(), start, os.SEEK_SET)
            while piece := os.read(file.fileno(), 1 << 16):
                self.wfile.write(piece)

    def answer(self, status: int, nbytes: int = 0, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(nbytes))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """The client went away: the tests see to that."""


with Server(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
