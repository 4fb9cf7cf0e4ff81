"""What `check` asks of an open batch: every clip's video and parts, and whether the stages would make them again."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from violence_ops.files import read_fingerprint
from violence_ops.folders import Batch
from violence_ops.records import ClipRecord
from violence_ops.stages.inspection.findings import (
    DAMAGED,
    Finding,
    Kind,
    Look,
    Recipe,
    command,
    compare,
    repair,
    unreadable,
)
from violence_ops.stages.nightly import annotate, extract_poses, score, validate
from violence_ops.store import batches
from violence_ops.store.parts import STAGES
from violence_ops.workspace import Workspace

_STAGES: Final = {table: verb for verb, table in STAGES.items()}
"""The verb that makes each table; what comes after it follows in this order."""


def look(workspace: Workspace, batch: Batch, recipe: Recipe) -> Look:
    """Look at one batch that is not sealed yet."""
    seen = _Seen(workspace, batch)
    try:
        ingested = batches.read_manifest(batch).clips
    except (*DAMAGED, AttributeError) as error:
        seen.lost_manifest(unreadable(error))
        return Look(None, seen.findings(), seen.clip_ids())
    judged = {clip.clip_id: record for clip in ingested if (record := seen.verdict(clip, recipe))}
    accepted = {clip_id: clip for clip_id, clip in judged.items() if clip.status == "accepted"}
    for clip in accepted.values():
        seen.annotations(clip, recipe)
    waiting = [clip for clip in ingested if clip.clip_id not in judged]
    seen.videos([*waiting, *accepted.values()])
    seen.stray_parts({clip.clip_id for clip in ingested}, accepted)
    return Look(accepted, seen.findings(), seen.clip_ids().union(clip.clip_id for clip in ingested))


class _Seen:
    """What was seen of one batch, by kind of finding."""

    def __init__(self, workspace: Workspace, batch: Batch) -> None:
        self.workspace, self.batch = workspace, batch
        self.lists: dict[tuple[Kind, str], list[str]] = defaultdict(list)
        self.single: list[Finding] = []

    def verdict(self, clip: ClipRecord, recipe: Recipe) -> ClipRecord | None:
        """The validated clip, or None if `validate` has not judged it, or what it wrote cannot be read."""
        part = self.batch.part("clips", clip.clip_id)
        if not part.is_file():
            self.lists["missing", "clips"].append(clip.clip_id)
            return None
        try:
            record = ClipRecord.from_dict(pq.read_table(part).to_pylist()[0])
            mark = read_fingerprint(part)
        except (*DAMAGED, IndexError):
            self.lists["damaged", "clips"].append(clip.clip_id)
            return None
        if mark != validate.expected(clip, recipe.params) and batches.video_of(self.batch, clip).is_file():
            self.lists["stale", "clips"].append(clip.clip_id)
        return record

    def annotations(self, clip: ClipRecord, recipe: Recipe) -> None:
        """Poses, tracks and predictions of an accepted clip."""
        expected = {
            "poses": lambda: extract_poses.expected(clip, recipe.weights_sha256, recipe.params.pose),
            "tracks": lambda: annotate.expected(self.batch, clip, recipe.params),
            "predictions": lambda: score.expected(self.batch, clip, recipe.champion),
        }
        for table, wanted in expected.items():
            part = self.batch.part(table, clip.clip_id)
            if not part.is_file():
                self.lists["missing", table].append(clip.clip_id)
                continue
            try:
                rows, mark = pq.read_table(part), read_fingerprint(part)
                if set(rows.column("clip_id").unique().to_pylist()) - {clip.clip_id}:
                    self.lists["orphaned", table].append(clip.clip_id)
            except DAMAGED:
                self.lists["damaged", table].append(clip.clip_id)
                return  # what was made from it cannot be judged
            if mark != wanted():
                self.lists["stale", table].append(clip.clip_id)

    def videos(self, clips: list[ClipRecord]) -> None:
        """Videos and the clips that are not refused, one to one."""
        wanted = {batches.video_of(self.batch, clip).name: clip for clip in clips}
        there = {path.name for path in self.batch.videos.iterdir()} if self.batch.videos.is_dir() else set()
        missing, strangers = compare(wanted, (name for name in there if not name.startswith(".")))
        for name in missing:
            self._lost_video(self.batch.videos / name, wanted[name], "missing", "The original is gone.")
        for name in sorted(there & wanted.keys()):
            if (self.batch.videos / name).stat().st_size != wanted[name].size_bytes:
                self._lost_video(
                    self.batch.videos / name, wanted[name], "damaged", "Its size is not the one it came with."
                )
        self._stray(tuple(self._shown(self.batch.videos / name) for name in strangers), "videos")

    def stray_parts(self, ingested: set[str], accepted: dict[str, ClipRecord]) -> None:
        """Parts of clips that the batch does not hold."""
        for table in _STAGES:
            parts = {path.stem: path for path in (self.batch.open / table).glob("[!.]*.parquet")}
            _, strangers = compare(ingested if table == "clips" else accepted, parts)
            self._stray(tuple(self._shown(parts[name]) for name in strangers), f"parts of {table}")

    def clip_ids(self) -> frozenset[str]:
        """The clips after which a file is called."""
        return frozenset(path.stem for path in self.batch.open.glob("*/[!.]*"))

    def lost_manifest(self, why: str) -> None:
        """The list of what was ingested is gone: the originals go back to the inbox."""
        self._add("damaged", "file", (self._shown(self.batch.manifest),), why, repair(self.batch))

    def findings(self) -> list[Finding]:
        """What was found: what lies where it should not, then a finding for all clips of whose parts the same is to say."""
        sentences = {
            "missing": "Clips for which the stage has not run.",
            "stale": "Made from other inputs, weights or parameters than those in use.",
            "orphaned": "Parts with rows of another clip.",
            "damaged": "Files that cannot be read.",
        }
        remedy = self._remedy()
        listed = [
            Finding(kind, table, self.batch.batch_id, tuple(sorted(ids)), sentences[kind], remedy)
            for (kind, table), ids in sorted(self.lists.items(), key=lambda item: list(_STAGES).index(item[0][1]))
        ]
        return [*self.single, *listed]

    def _remedy(self) -> str:
        """The bad parts away, then the stages from the first that has something to do."""
        bad = [
            self._shown(self.batch.part(table, clip_id))
            for (kind, table), ids in self.lists.items() if kind in ("damaged", "orphaned") for clip_id in sorted(ids)
        ]  # fmt: skip
        first = min((list(_STAGES).index(table) for _, table in self.lists), default=0)
        verbs = [f"violence-ops {verb} --batch {self.batch.batch_id}" for verb in list(_STAGES.values())[first:]]
        return " && ".join([command("rm", "-f", *bad), *verbs] if bad else verbs)

    def _lost_video(self, path: Path, clip: ClipRecord, kind: Kind, why: str) -> None:
        whence = f"{why} It came as {clip.source_path!r}, SHA-256 {clip.sha256}: put it back from there."
        self._add(kind, "video", (clip.clip_id,), whence, f"cp ORIGINAL {self._shown(path)}")

    def _stray(self, paths: tuple[str, ...], what: str) -> None:
        if paths:
            self._add("orphaned", what, paths, "They belong to no clip of the batch.", command("rm", "-rf", *paths))

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.workspace.root))

    def _add(self, kind: Kind, what: str, items: tuple[str, ...], why: str, remedy: str) -> None:
        self.single.append(Finding(kind, what, self.batch.batch_id, items, why, remedy))
