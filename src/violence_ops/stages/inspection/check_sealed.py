"""What `check` asks of a sealed batch: videos and rows against its clips, files against the hashes it was sealed with, and what
it was made with against the parameters and weights in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from violence_ops.files import sha256_file
from violence_ops.folders import Batch
from violence_ops.records import ClipRecord
from violence_ops.stages.inspection.findings import (
    DAMAGED,
    Finding,
    Kind,
    Look,
    Recipe,
    changes,
    command,
    compare,
    influences,
    unreadable,
)
from violence_ops.stages.nightly import annotate, extract_poses
from violence_ops.store import batches
from violence_ops.workspace import Workspace

_ANNOTATIONS: Final = ("poses", "tracks", "predictions")


def look(workspace: Workspace, batch: Batch, recipe: Recipe, *, content: bool, as_sealed: bool) -> Look:
    """Look at one sealed batch; `content` reads every video's bytes, `as_sealed` does not ask what it was made with."""
    findings = _Findings(workspace, batch)
    findings.files()
    manifest = findings.manifest()
    ids = {name: found for name in _ANNOTATIONS if (found := findings.table_ids(name, manifest)) is not None}
    clips = findings.clips(manifest)
    named = {clip.clip_id for clip in clips or ()}.union(*ids.values(), (path.stem for path in batch.videos.glob("*")))
    if clips is not None:
        accepted = {clip.clip_id: clip for clip in clips if clip.status == "accepted"}
        findings.videos(accepted, content)
        for name in ids:
            findings.strangers(name, ids[name], accepted)
        if {"poses", "tracks"} <= ids.keys():
            findings.strangers("tracks", ids["tracks"] & accepted.keys(), ids["poses"], "that have no poses")
        if manifest and accepted and not as_sealed:
            findings.outdated(manifest, recipe, next(iter(accepted.values())))
        return Look(accepted, findings.found, frozenset(named))
    return Look(None, findings.found, frozenset(named))


def not_pulled(workspace: Workspace, batch: Batch) -> Finding:
    """A batch of which only git's part is here."""
    pointer = str(batch.pointer.relative_to(workspace.root))
    return Finding(
        "not pulled", "data", batch.batch_id, (pointer,), "Its data is in DVC's cache or remote only, so nothing of it was checked.",
        f"violence-ops dvc pull {pointer}",
    )  # fmt: skip


class _Findings:
    """The findings of one batch as they come together."""

    def __init__(self, workspace: Workspace, batch: Batch) -> None:
        self.workspace, self.batch = workspace, batch
        self.found: list[Finding] = []
        if not batch.pointer.is_file():
            self._add("missing", "version", (batch.batch_id,), "It was sealed and not put under version control.",
                      f"violence-ops seal --batch {batch.batch_id}")  # fmt: skip

    def manifest(self) -> dict[str, Any]:
        """The facts of `batch.json`; empty if it cannot be read."""
        if not self._is_there(self.batch.manifest):
            return {}
        try:
            return batches.read_manifest(self.batch).facts
        except (*DAMAGED, AttributeError) as error:
            self._damaged(self.batch.manifest, unreadable(error))
            return {}

    def table_ids(self, name: str, manifest: dict[str, Any]) -> set[str] | None:
        """The clips that have rows in a table; None if it is missing or cannot be read."""
        path = self.batch.table(name)
        if not self._is_there(path):
            return None
        try:
            with pq.ParquetFile(path) as file:
                found = set(batches.row_groups(file))
        except DAMAGED as error:
            self._damaged(path, unreadable(error))
            return None
        self._as_sealed(path, manifest)
        return found

    def clips(self, manifest: dict[str, Any]) -> list[ClipRecord] | None:
        """The clips table; None if it is missing or cannot be read."""
        path = self.batch.table("clips")
        if not self._is_there(path):
            return None
        try:
            clips = batches.read_clips(self.batch)
        except DAMAGED as error:
            self._damaged(path, unreadable(error))
            return None
        self._as_sealed(path, manifest)
        return clips

    def videos(self, accepted: dict[str, ClipRecord], content: bool) -> None:
        """Videos and accepted clips, one to one; the right size, and with `content` the right bytes."""
        folder = self.batch.videos
        wanted = {batches.video_of(self.batch, clip).name: clip for clip in accepted.values()}
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        missing, strangers = compare(wanted, there)
        if missing:
            self._add("missing", "videos", tuple(wanted[name].clip_id for name in missing),
                      "Clips in the clips table without their original.", self._pull())  # fmt: skip
        if strangers:
            paths = tuple(self._shown(folder / name) for name in strangers)
            self._add(
                "orphaned", "videos", paths, "Files that belong to no accepted clip.", command("rm", "-rf", *paths)
            )
        for name in sorted(there & wanted.keys()):
            path, clip = folder / name, wanted[name]
            if path.stat().st_size != clip.size_bytes or (content and sha256_file(path) != clip.sha256):
                self._damaged(path, "Its bytes are not those that were sealed.")

    def files(self) -> None:
        """Files in the batch's folder that are no part of a batch."""
        names = {"batch.json", "clips.parquet", "videos", *(f"{name}.parquet" for name in _ANNOTATIONS)}
        _, strangers = compare(names, (path.name for path in self.batch.sealed.iterdir()))
        if strangers:
            paths = tuple(self._shown(self.batch.sealed / name) for name in strangers)
            self._add("orphaned", "files", paths, "No part of a sealed batch.", command("rm", "-rf", *paths))

    def strangers(self, name: str, ids: set[str], known: dict[str, ClipRecord] | set[str], who: str = "") -> None:
        """Rows of clips that are not among `known`."""
        _, strangers = compare(known, ids)
        if strangers:
            why = f"Rows of clips {who or 'that the clips table does not know as accepted'}."
            self._add("orphaned", f"rows of {name}", strangers, why, self._remedy(self.batch.table(name)))

    def outdated(self, manifest: dict[str, Any], recipe: Recipe, clip: ClipRecord) -> None:
        """What the batch was made with, against what is in use."""
        then, now = manifest.get("params", {}), recipe.params.model_dump(mode="json")
        weights = manifest.get("pose_weights", {})
        poses = influences(recipe.params, lambda p: extract_poses.expected(clip, "", p.pose))
        tracks = influences(recipe.params, lambda p: annotate.expected(self.batch, clip, p))
        reasons = {"poses": changes(poses, then, now), "tracks": changes(tracks, then, now)}
        if weights.get("sha256") != recipe.weights_sha256:
            name = extract_poses.source_name(recipe.params.pose)
            old = f"{weights.get('name')} {str(weights.get('sha256'))[:12]}"
            reasons["poses"].insert(0, f"weights {old}, now {name} {recipe.weights_sha256[:12]}")
        for what, differing in reasons.items():
            if differing:
                why = f"Made with other settings: {'; '.join(differing)}. Sealed data stays; set these back, or accept it:"
                self._add("stale", what, (self.batch.batch_id,), why, "violence-ops check --as-sealed")

    def _is_there(self, path: Path) -> bool:
        if not path.is_file():
            self._add("missing", "file", (self._shown(path),), "A sealed batch has this file.", self._pull())
        return path.is_file()

    def _as_sealed(self, path: Path, manifest: dict[str, Any]) -> None:
        known = manifest.get("tables", {}).get(path.stem, {}).get("sha256")
        if known and sha256_file(path) != known:
            self._damaged(path, "Its bytes are not those whose SHA-256 batch.json holds.")

    def _damaged(self, path: Path, why: str) -> None:
        self._add("damaged", "file", (self._shown(path),), why, self._remedy(path))

    def _pull(self) -> str:
        return f"violence-ops dvc pull --force {self._shown(self.batch.pointer)}"

    def _remedy(self, path: Path) -> str:
        """Fetch one file anew. What lies in DVC's cache may be the same file on disk, and so is not trusted either."""
        shown = self._shown(path)
        return f"find .dvc/cache -samefile {shown} -delete && rm -f {shown} && {self._pull()}"

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.workspace.root))

    def _add(self, kind: Kind, what: str, items: tuple[str, ...], why: str, remedy: str) -> None:
        self.found.append(Finding(kind, what, self.batch.batch_id, items, why, remedy))
