"""Where the parts of one batch and of one evaluation lie in their folders, and what a clip's id is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from violence_ops.errors import UsageError

_CLIP_ID: Final = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Batch:
    """Where the parts of one batch lie: `open` while stages work on it, `sealed` afterwards."""

    batch_id: str
    open: Path
    sealed: Path

    @property
    def night(self) -> str:
        """The date of the night that made it, ISO 8601."""
        return self.batch_id[:10]

    @property
    def is_sealed(self) -> bool:
        return self.sealed.is_dir()

    @property
    def folder(self) -> Path:
        return self.sealed if self.is_sealed else self.open

    @property
    def pointer(self) -> Path:
        """What git keeps of a sealed batch: DVC's file with the hash of its data."""
        return self.sealed.with_name(f"{self.batch_id}.dvc")

    @property
    def manifest(self) -> Path:
        return self.folder / "batch.json"

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    def part(self, table: str, clip_id: str) -> Path:
        """One clip's rows of `clips`, `poses`, `tracks` or `predictions` while the batch is open."""
        return self.open / table / f"{check_clip_id(clip_id)}.parquet"

    def cost(self, clip_id: str) -> Path:
        """What finding the poses of a clip cost, while the batch is open."""
        return self.open / "costs" / f"{check_clip_id(clip_id)}.json"

    @property
    def pinned_champion(self) -> Path:
        """Which champion judges all clips of the batch, while it is open."""
        return self.open / "champion.json"

    def table(self, name: str) -> Path:
        """A whole table of the sealed batch."""
        return self.sealed / f"{name}.parquet"


@dataclass(frozen=True)
class ReportFolder:
    """The files of one evaluation: its figures, the page made of them, and the gate's verdict on them."""

    name: str
    folder: Path

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def gate(self) -> Path:
        return self.folder / "gate.json"


def check_clip_id(clip_id: str) -> str:
    """`clip_id`, or UsageError if it is not 20 hex digits (so that it can never name another folder)."""
    if not _CLIP_ID.fullmatch(clip_id):
        raise UsageError(
            f"{clip_id!r} is not a clip id: give its 20 hex digits, which `violence-ops explain PATH` shows."
        )
    return clip_id


def clip_id_of(sha256: str) -> str:
    """The id of a clip: the first 20 hex digits of the SHA-256 of its bytes."""
    return sha256[:20]
