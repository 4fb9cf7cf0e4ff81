"""Fetching one file over HTTP: resumable, bounded, and never over a weaker connection than was asked for."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from violence_ops.errors import ServiceUnavailable, UserError

Progress = Callable[[str, int, int], None]
"""Called with what is fetched, how much of it is there and how much there is in all (MiB)."""

_REDIRECTS: Final = 5
_WORTH_ANOTHER_TRY: Final = 1 << 20
"""Bytes that a cut connection must have brought for its failure not to count."""
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)")


class DownloadError(UserError):
    """What the server offers is not taken: not there, too large, over a weaker connection, or there is no room for it."""


class _Interrupted(Exception):
    """The server did not deliver; asking again may help."""


def shown(address: str) -> str:
    """An address without the credentials and the query that it may carry, to be printed and written down."""
    return str(_parsed(address).copy_with(userinfo=b"", query=None, fragment=None))


def fetch(
    address: str,
    part: Path,
    *,
    limit: int,
    attempts: int = 4,
    pause_s: float = 1.0,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> None:
    """Fetch `address` (http or https) into the file `part`, going on where an earlier call stopped.

    A resumed file belongs together only if the server names its version (ETag); check a digest afterwards in any case.
    `limit`: bytes that the file may have at most. `attempts`: raising it bears with worse connections; the pause between
    them begins at `pause_s` and doubles; one that brought a MiB does not count. `timeout_s`: longest silence of the server.

    Raises:
        DownloadError: the address or what it leads to is refused, or the environment's proxy or certificates cannot be used; what
            was fetched before stays for another try.
        ServiceUnavailable: the server was not reached, or cut the connection, `attempts` times in a row.
        OSError: `part` cannot be written; it has been removed.
    """
    failures = 0
    with _client(timeout_s) as client:
        while True:
            before = _size(part)
            try:
                _attempt(client, address, part, limit, progress)
            except (httpx.TransportError, _Interrupted) as error:
                failures = 1 if _size(part) - before >= _WORTH_ANOTHER_TRY else failures + 1
                if failures >= attempts:
                    raise _gave_up(address, part, error) from error
                time.sleep(pause_s * 2 ** (failures - 1))
            else:
                _version_file(part).unlink(missing_ok=True)
                return


def _client(timeout_s: float) -> httpx.Client:
    """Asks as the environment says: through its proxy, with its certificates."""
    timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0))
    try:
        return httpx.Client(timeout=timeout, headers={"Accept-Encoding": "identity"}, follow_redirects=False)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        # its text may hold the proxy's password
        raise DownloadError(
            f"Nothing can be fetched with this environment's proxy or certificates ({type(error).__name__}): mend or unset HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY (SOCKS is not supported), NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
        ) from None


def discard(part: Path) -> None:
    """Remove what was fetched, and what is remembered of it."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _attempt(client: httpx.Client, address: str, part: Path, limit: int, progress: Progress | None) -> None:
    """Ask once for what is missing, and append it."""
    have = _size(part)
    with _response(client, address, _asking_from(have, part)) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _content_range(response)[1] == have:
                return
            discard(part)
            raise _Interrupted("what was fetched before is not the beginning of what it has now")
        _check_status(response, address)
        start, total = _extent(response, have, part)
        _check_size(address, part, start, total, limit)
        try:
            _remember_version(response, part)
            end = _append(response, address, part, start, total, limit, progress)
        except OSError:
            discard(part)
            raise
    if total is not None and end != total:
        raise _Interrupted(f"{end:,} of {total:,} bytes came")


def _append(
    response: httpx.Response,
    address: str,
    part: Path,
    start: int,
    total: int | None,
    limit: int,
    progress: Progress | None,
) -> int:
    """Write the answer's body from byte `start` on; returns the size reached."""
    end, name = start, f"{Path(address).name} (MiB)"
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for piece in response.iter_raw():
            end += len(piece)
            if end > limit:
                break
            file.write(piece)
            if progress is not None:
                progress(name, end >> 20, (total or end) >> 20)
    if end > limit:
        discard(part)
        raise _too_large(address, limit)
    return end


def _asking_from(have: int, part: Path) -> dict[str, str]:
    if not have:
        return {}
    version = _version_file(part)
    guard = {"If-Range": version.read_text("utf-8")} if version.is_file() else {}
    return {"Range": f"bytes={have}-"} | guard


@contextmanager
def _response(client: httpx.Client, address: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """The answer that `address` leads to; a redirect may not lead from https to http."""
    url = _parsed(address)
    for _ in range(_REDIRECTS + 1):
        with client.stream("GET", url, headers=headers) as response:
            if not response.has_redirect_location:
                yield response
                return
            onward = _parsed(str(url.join(response.headers["location"])))
        if url.scheme == "https" and onward.scheme == "http":
            raise DownloadError(
                f"{shown(address)} leads from https to {onward.host} over plain http, which is refused."
            )
        url = onward
    raise DownloadError(f"{shown(address)} redirects more than {_REDIRECTS} times: see that the address is right.")


def _parsed(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise DownloadError(f"{address!r} is not an address ({error}).") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise DownloadError(f"{address!r} is not an http or https address.")
    return url


def _check_status(response: httpx.Response, address: str) -> None:
    code = response.status_code
    said = f"{code} {response.reason_phrase}".strip()
    if code == httpx.codes.TOO_MANY_REQUESTS or code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise _Interrupted(f"it answered {said}")
    if code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        raise DownloadError(f"{shown(address)} answered {said}: see that the address is right and may be read.")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DownloadError(f"{shown(address)} sends the file in another encoding, though it was asked not to.")


def _extent(response: httpx.Response, have: int, part: Path) -> tuple[int, int | None]:
    """Where the body begins in the file, and the size of the whole file if the server says it."""
    if response.status_code == httpx.codes.OK:
        length = response.headers.get("content-length", "")
        return 0, int(length) if length.isdecimal() else None
    start, total = _content_range(response)
    if start != have:
        discard(part)
        raise _Interrupted("it sent another part of the file than it was asked for")
    return start, total


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and whole size that a Content-Range header names."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total and total != "*" else None


def _check_size(address: str, part: Path, start: int, total: int | None, limit: int) -> None:
    if total is None:
        return
    if total > limit:
        raise _too_large(address, limit)
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise DownloadError(
            f"{shown(address)} needs {(total - start) / 2**20:.0f} MiB more, and {part.parent} has {free / 2**20:.0f} MiB "
            "free: make room, or give another folder."
        )


def _too_large(address: str, limit: int) -> DownloadError:
    return DownloadError(
        f"{shown(address)} has more than the {limit / 2**20:.0f} MiB that are taken: it is another file."
    )


def _remember_version(response: httpx.Response, part: Path) -> None:
    """Keep the strong ETag, which guards the next attempt's range."""
    version = response.headers.get("etag", "")
    if version.startswith('"') and version.isascii():
        _version_file(part).write_text(version, "utf-8")
    else:
        _version_file(part).unlink(missing_ok=True)


def _gave_up(address: str, part: Path, error: Exception) -> ServiceUnavailable:
    reason = str(error) or type(error).__name__
    kept = _size(part)
    stays = f" {kept / 2**20:.1f} MiB are there and stay: the same command goes on from them." if kept else ""
    return ServiceUnavailable(f"{shown(address)} could not be fetched ({reason}): try again, or use a mirror.{stays}")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
