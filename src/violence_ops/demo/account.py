"""The demo's account of a night, read back from the workspace, and whether every promised thing is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from violence_ops import ledger, services, versioning
from violence_ops.demo.drops import Drop
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.stages.releasing import reports
from violence_ops.store import batches, quarantine, releases
from violence_ops.wording import counted
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Night(Jsonable):
    """What one night brought. F1 figures are those of the holdout; `approved_by` is None if nobody was asked."""

    batch: str
    dropped: int
    accepted: int
    duplicates: int
    quarantined: dict[str, int]
    persons_in_frames: int
    tracks: int
    candidate: str
    candidate_f1: float
    champion_before: str | None
    champion_f1: float | None
    holdout: str
    verdict: str
    reasons: list[str]
    approved_by: str | None
    champion_now: str | None


def dropped(drop: Drop) -> str:
    """What is in a drop, in words."""
    again = f", {counted(drop.duplicates, 'that was', 'that were')} there before" if drop.duplicates else ""
    return f"{counted(drop.good, 'new clip')}{again} and {counted(len(drop.broken), 'broken file')} in the inbox"


def night(workspace: Workspace, date: str, drop: Drop, approver: str | None) -> Night:
    """Read back what the night of that date left behind."""
    batch = next(batch for batch in workspace.sealed_batches() if batch.batch_id.startswith(date))
    refused = _refused(workspace, date)
    report = reports.find(workspace, None).evaluation
    verdict = next(entry.payload for entry in reversed(ledger.read(workspace)) if entry.event == "verdict")
    return Night(
        batch=batch.batch_id,
        dropped=drop.good + drop.duplicates + len(drop.broken),
        accepted=len(batches.accepted_clips(batch)),
        duplicates=refused.pop("duplicate", 0),
        quarantined=dict(sorted(refused.items())),
        persons_in_frames=pq.read_metadata(batch.table("poses")).num_rows,
        tracks=_tracks(batch),
        candidate=report.candidate.version,
        candidate_f1=report.candidate.metrics.f1,
        champion_before=report.champion_version,
        champion_f1=report.champion.metrics.f1 if report.champion else None,
        holdout=f"{report.holdout.version} ({counted(len(report.clips), 'clip')})",
        verdict=verdict["verdict"],
        reasons=verdict["reasons"],
        approved_by=approver,
        champion_now=releases.champion(workspace),
    )


def promises(
    workspace: Workspace, drops: Sequence[Drop], nights: Sequence[Night], *, must_release: bool
) -> dict[str, bool]:
    """Each promised thing, and whether it is there.

    `must_release`: the first candidate has to become champion, as it does on the demo's own clips. On real clips it gets what it
    deserves, and what is promised of a champion is promised only if there is one.
    """
    return _promises_of_data(workspace, drops, nights) | _promises_of_releases(workspace, nights, must_release)


def _promises_of_data(workspace: Workspace, drops: Sequence[Drop], nights: Sequence[Night]) -> dict[str, bool]:
    both = list(zip(nights, drops, strict=True))
    return {
        "every good clip was accepted, and only new ones were worked on": all(
            night.accepted == drop.good and night.duplicates == drop.duplicates for night, drop in both
        ),
        "every broken file is in quarantine with its own reason": all(
            night.quarantined == dict(sorted(Counter(drop.broken.values()).items())) for night, drop in both
        ),
        "people were found and followed on both nights": all(
            night.persons_in_frames and night.tracks for night in nights
        ),
        "both batches are sealed, in DVC and tagged in git": {night.batch for night in nights}
        <= versioning.versioned_batches(workspace),
        "`dvc status` has nothing to redo": not versioning.status(workspace),
        "the data docs and a report for each candidate are written": workspace.data_docs.is_file()
        and len(list(workspace.reports.glob("*/report.html"))) >= len(nights),
        "no batch is left open": not batches.open_batch_ids(workspace),
    }


def _promises_of_releases(workspace: Workspace, nights: Sequence[Night], must_release: bool) -> dict[str, bool]:
    first, second = nights
    entries = ledger.read(workspace)
    promoted = {entry.payload["to"]: entry.actor for entry in entries if entry.event == "promotion"}
    versions = {version.version for version in releases.open_registry(workspace).versions()}
    released = first.champion_now is not None
    found = {
        "each candidate was released exactly if the gate passed it and the release manager approved over REST": all(
            (night.champion_now == night.candidate)
            == (night.verdict == "pass" and night.approved_by == "release-manager")
            and promoted.get(night.candidate, "release-manager") == "release-manager"
            for night in nights
        ),
        "both candidates were judged on the same frozen clips, the second on more if those were too few": (
            first.holdout == second.holdout
            or (first.verdict == "undecided" and _judged(workspace, first) < _judged(workspace, second))
        ),
        "both candidates are in MLflow's registry": {first.candidate, second.candidate} <= versions,
        "the ledger's hash chain holds": not ledger.verify(workspace),
    }
    if must_release:
        found["the first candidate met the floors and became champion"] = first.champion_now == first.candidate
    if released or must_release:
        scored = pq.read_metadata(workspace.batch(second.batch).table("predictions")).num_rows > 0
        found["the second night was scored by the champion"] = scored
        found["the second candidate was compared with the champion, clip by clip"] = (
            second.champion_before == first.candidate
        )
    return found


def _judged(workspace: Workspace, night: Night) -> set[str]:
    """The clips that the night's candidate was judged on."""
    report = reports.find(workspace, f"{night.candidate}-vs-{night.champion_before or 'none'}")
    return {clip.clip_id for clip in report.evaluation.clips}


def pages(workspace: Workspace) -> dict[str, str]:
    """How to open what the demo made."""
    addresses = services.inspect(workspace).addresses
    report = reports.find(workspace, None)
    airflow = addresses.airflow if addresses else "start it with `make up`"
    mlflow = addresses.mlflow if addresses else "start it with `make up`"
    return {
        "Airflow": f"{airflow}  (user admin or release-manager, passwords in {services.password_file(workspace)})",
        "MLflow": mlflow,
        "report": str(report.files.page),
        "data docs": str(workspace.data_docs),
        "workspace": str(workspace.root),
    }


def _refused(workspace: Workspace, date: str) -> Counter[str]:
    """Files refused on a night, by reason; a clip that was known already counts as a duplicate."""
    reasons: Counter[str] = Counter()
    for entry in quarantine.entries(workspace):
        for occurrence in entry["occurrences"]:
            if occurrence["night"] == date:
                reasons[entry["reason"]] += 1
    return reasons


def _tracks(batch: Batch) -> int:
    table = pq.read_table(batch.table("tracks"), columns=["clip_id", "track_id"])
    followed = table.filter(pc.field("track_id") > 0)
    return followed.group_by(["clip_id", "track_id"]).aggregate([]).num_rows
