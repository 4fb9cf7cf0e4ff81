"""A real file server on loopback whose faults a test can switch on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class FileServer:
    """Serves `files` by path. The lists are used up, an entry a request; the rest are ways to misbehave."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True  # honours Range and If-Range
    version: str = '"1"'  # the ETag
    lengths: bool = True  # says how long the body is
    cut_after: list[int] = field(default_factory=list)  # bytes of a body that are sent before the connection is cut
    statuses: list[int] = field(default_factory=list)  # answered instead of the file
    redirects: dict[str, str] = field(default_factory=dict)
    silence_s: float = 0.0  # before the body
    requests: list[dict[str, str]] = field(default_factory=list)  # the headers that came, `path` among them
    sent: int = 0  # bytes of bodies


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        state = self.server.state
        state.requests.append({"path": self.path} | {key.lower(): value for key, value in self.headers.items()})
        if state.statuses:
            self._head(state.statuses.pop(0), {"Content-Length": "0"})
        elif self.path in state.redirects:
            self._head(302, {"Location": state.redirects[self.path], "Content-Length": "0"})
        elif self.path in state.files:
            self._send(state, state.files[self.path])
        else:
            self._head(404, {"Content-Length": "0"})

    def _send(self, state: FileServer, content: bytes) -> None:
        headers = {"ETag": state.version} if state.version else {}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if state.ranges else None
        start, code = int(wanted[1]) if wanted else 0, 206 if wanted else 200
        if self.headers.get("If-Range", state.version) != state.version:
            start, code = 0, 200
        if start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = memoryview(content)[start:]
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if state.lengths:
            headers["Content-Length"] = str(len(body))
        self._head(code, headers)
        time.sleep(state.silence_s)
        if state.cut_after:
            body = body[: state.cut_after.pop(0)]
        self.wfile.write(body)
        state.sent += len(body)

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    def __init__(self, state: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state

    def handle_error(self, *_: object) -> None:
        return  # a client that hung up


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    state = FileServer()
    server = _Server(state)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
