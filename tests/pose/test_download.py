"""A fetched file is whole or is refused, whatever the server, the connection and the disk do."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from violence_ops.errors import ServiceUnavailable
from violence_ops.pose.download import DownloadError, fetch, shown

CONTENT = bytes(range(251)) * 8000  # 2 MB
LIMIT = 1 << 24


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


@pytest.fixture
def address(file_server: Any) -> str:
    file_server.files["/file"] = CONTENT
    return f"{file_server.address}/file"


def get(address: str, part: Path, **settings: Any) -> None:
    fetch(address, part, **{"limit": LIMIT, "pause_s": 0.01} | settings)


def test_a_file_is_fetched_and_its_progress_told(file_server: Any, address: str, part: Path) -> None:
    told: list[tuple[str, int, int]] = []
    get(address, part, progress=lambda *what: told.append(what))
    assert part.read_bytes() == CONTENT
    assert told[-1] == ("file (MiB)", 1, 1)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert list(part.parent.iterdir()) == [part]


def test_a_cut_connection_goes_on_where_it_was_cut(file_server: Any, address: str, part: Path) -> None:
    file_server.cut_after = [600_000, 5_000]
    get(address, part)
    assert part.read_bytes() == CONTENT
    assert [request.get("range") for request in file_server.requests] == [None, "bytes=600000-", "bytes=605000-"]
    assert {request.get("if-range") for request in file_server.requests[1:]} == {'"1"'}
    assert file_server.sent == len(CONTENT)  # nothing was sent twice


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(file_server: Any, address: str, part: Path) -> None:
    file_server.cut_after = [600_000]
    with pytest.raises(ServiceUnavailable, match=r"0\.6 MiB are there and stay"):
        get(address, part, attempts=1)
    get(address, part)
    assert part.read_bytes() == CONTENT
    assert file_server.sent == len(CONTENT)


@pytest.mark.parametrize("lengths", [True, False], ids=["with a length", "without"])
def test_a_server_without_ranges_starts_again(file_server: Any, address: str, part: Path, lengths: bool) -> None:
    part.write_bytes(CONTENT[:1000])
    file_server.ranges, file_server.lengths = False, lengths
    get(address, part)
    assert part.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(file_server: Any, address: str, part: Path) -> None:
    file_server.cut_after = [600_000]
    with pytest.raises(ServiceUnavailable):
        get(address, part, attempts=1)
    file_server.files["/file"], file_server.version = CONTENT[::-1], '"2"'
    get(address, part)
    assert part.read_bytes() == CONTENT[::-1]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(file_server: Any, address: str, part: Path) -> None:
    part.write_bytes(CONTENT + b"more")
    get(address, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://u:hunter2@h:abc"),
        ("HTTPS_PROXY", "ftp://u:hunter2@h"),
        ("SSL_CERT_FILE", "/nowhere.pem"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_said_in_a_sentence(
    address: str, part: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DownloadError, match=rf"environment's proxy or certificates \(\w+\): .*{name}") as refusal:
        get(address, part)
    assert "hunter2" not in str(refusal.value)


def test_a_part_that_is_whole_costs_one_question(file_server: Any, address: str, part: Path) -> None:
    part.write_bytes(CONTENT)
    get(address, part)
    assert (part.read_bytes(), file_server.sent) == (CONTENT, 0)


@pytest.mark.parametrize("lengths", [True, False], ids=["announced", "unannounced"])
def test_a_file_beyond_the_limit_is_refused(file_server: Any, address: str, part: Path, lengths: bool) -> None:
    file_server.lengths = lengths
    with pytest.raises(DownloadError, match="more than the 1 MiB"):
        get(address, part, limit=1 << 20)
    assert not part.exists()


def test_what_is_not_there_is_not_asked_for_twice(file_server: Any, address: str, part: Path) -> None:
    with pytest.raises(DownloadError, match="answered 404"):
        get(f"{address}-not", part)
    assert len(file_server.requests) == 1


def test_a_server_that_is_busy_is_asked_again(file_server: Any, address: str, part: Path) -> None:
    file_server.statuses = [503, 429]
    get(address, part)
    assert part.read_bytes() == CONTENT


def test_a_silent_server_is_given_up(file_server: Any, address: str, part: Path) -> None:
    file_server.silence_s = 3.0
    with pytest.raises(ServiceUnavailable, match="could not be fetched"):
        get(address, part, attempts=2, timeout_s=1.0)
    assert len(file_server.requests) == 2


def test_no_server_at_all_is_one_sentence(part: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="use a mirror"):
        get("http://127.0.0.1:9/file", part, attempts=2)


@pytest.mark.parametrize("address", ["ftp://host/file", "http://", "https://host:port/file", "file:///etc/passwd"])
def test_other_addresses_are_refused(address: str, part: Path) -> None:
    with pytest.raises(DownloadError, match="address"):
        get(address, part)


def test_redirects_are_followed_but_not_for_ever(file_server: Any, address: str, part: Path) -> None:
    file_server.redirects = {"/moved": "/file", "/round": "/round"}
    get(f"{file_server.address}/moved", part)
    assert part.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="redirects more than"):
        get(f"{file_server.address}/round", part.with_name("other"))


@pytest.fixture
def tls_redirect(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An https server, trusted here, that redirects to the plain one."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    class Onward(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", address)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Onward)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/file"
    server.shutdown()
    thread.join()
    server.server_close()


def test_https_never_leads_to_plain_http(file_server: Any, tls_redirect: str, part: Path) -> None:
    with pytest.raises(DownloadError, match="from https to"):
        get(tls_redirect, part)
    assert file_server.requests == []


def test_credentials_and_tokens_are_not_printed(file_server: Any, part: Path) -> None:
    assert shown("https://user:secret@host/a/file?token=secret") == "https://host/a/file"
    with pytest.raises(DownloadError) as refused:
        get(file_server.address.replace("//", "//user:secret@") + "/none", part)
    assert "secret" not in str(refused.value)
    assert "authorization" in file_server.requests[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_that_finds_no_room_is_not_begun(file_server: Any, address: str, small_disk: Path) -> None:
    with pytest.raises(DownloadError, match="make room"):
        get(address, small_disk / "part")
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_is_left_as_it_was(file_server: Any, address: str, small_disk: Path) -> None:
    file_server.lengths = False
    with pytest.raises(OSError, match="No space left"):
        get(address, small_disk / "part")
    assert list(small_disk.iterdir()) == []
