"""`weights pull` and `weights list`: official pose weights, and what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UsageError

if TYPE_CHECKING:
    from violence_ops.pose.download import Progress
    from violence_ops.pose.official import Checkpoint

_HEADINGS = ("name", "state", "network", "input", "size", "licence", "sha256")


@dataclass(frozen=True)
class Row:
    """One set of pose weights; `input` is the long side in px, `size` in bytes, exact only where a file is."""

    name: str
    state: str  # shipped, pulled, damaged, or available (to pull)
    network: str
    input: int | None
    size: int
    licence: str
    sha256: str | None
    origin: str
    path: str | None

    def cells(self) -> tuple[str, ...]:
        size = f"{'' if self.path else 'about '}{self.size / 2**20:.1f} MiB"
        side = f"{self.input} px" if self.input else "?"
        digits = f"{self.sha256[:16]}…" if self.sha256 else "-"
        return self.name, self.state, self.network, side, size, self.licence, digits


@dataclass(frozen=True)
class Listing:
    """What `weights list` shows."""

    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        return {row.name: {key: value for key, value in asdict(row).items() if key != "name"} for row in self.rows}

    def lines(self) -> Iterator[str]:
        table = [_HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for cells, row in zip(table, (None, *self.rows), strict=True):
            yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            if row is not None:
                yield f"    {row.origin}{f'; {row.path}' if row.path else ''}"


def run(
    name: str,
    *,
    source: str | None = None,
    to: Path | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fetch official weights, check them, and convert them to what `pose.weights` takes.

    `source`: a mirror: an address or a folder that holds the published file. `to`: a folder; default: the user's cache,
    where `pose.weights` finds them by name.
    """
    from violence_ops.pose import official

    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256!r} is no SHA-256: give its 64 hex digits.")
    return fetch(_named(name), source=source or official.ADDRESS, to=to, sha256=sha256, progress=progress)


def fetch(
    checkpoint: Checkpoint, *, source: str, to: Path | None, sha256: str | None, progress: Progress | None = None
) -> dict[str, Any]:
    """As `run`, for any published checkpoint."""
    from violence_ops.pose import official, weights

    pulled = official.pull(checkpoint, to or weights.cache_folder(), source=source, sha256=sha256, progress=progress)
    path = pulled.weights.path.absolute()
    return {
        "name": checkpoint.network,
        "path": str(path),
        "size": path.stat().st_size,
        "sha256": pulled.weights.sha256,
        "checkpoint_sha256": pulled.checkpoint_sha256,
        "fetched": pulled.fetched,
        "use": f"pose.weights: {checkpoint.network if to is None else path}",
    }


def _named(name: str) -> Checkpoint:
    from violence_ops.pose.official import CHECKPOINTS

    network = name.replace("-", "_")
    if network not in CHECKPOINTS:
        known = ", ".join(each.replace("_", "-") for each in CHECKPOINTS)
        raise UsageError(f"There are no official weights called {name!r}: choose one of {known}.")
    return CHECKPOINTS[network]


def available() -> Listing:
    """The shipped weights, the pulled ones, and the official ones that can be pulled."""
    from violence_ops.pose import weights
    from violence_ops.pose.official import CHECKPOINTS

    folders = {"shipped": weights.FOLDER, "pulled": weights.cache_folder()}
    rows = [_lying(file, state) for state, folder in folders.items() for file in sorted(folder.glob("*.safetensors"))]
    there = {row.name for row in rows}
    return Listing((*rows, *(_published(each) for each in CHECKPOINTS.values() if each.network not in there)))


def _lying(file: Path, state: str) -> Row:
    """The row of weights that are there."""
    from violence_ops.pose import weights
    from violence_ops.pose.config import NETWORKS

    size, path = file.stat().st_size, str(file)
    try:
        found = weights.find(file)
    except weights.WeightsError as error:
        return Row(file.stem, "damaged", "?", None, size, "?", None, str(error), path)
    card = weights.read_card(file)
    origin, licence = str(card.get("origin", "see its model card")), str(card.get("licence", "?"))
    side = NETWORKS[found.network].long_side
    return Row(file.stem, state, found.network, side, size, licence, found.sha256, origin, path)


def _published(checkpoint: Checkpoint) -> Row:
    """The row of weights that can be pulled; their size is that of the network's tensors in fp16."""
    from violence_ops.pose import official
    from violence_ops.pose.config import NETWORKS

    network = checkpoint.network
    return Row(
        name=network,
        state="available",
        network=network,
        input=NETWORKS[network].long_side,
        size=checkpoint.converted_bytes,
        licence=official.LICENCE,
        sha256=None,
        origin=f"{official.ADDRESS}/{checkpoint.file}",
        path=None,
    )
