"""The demo's account of a night, read back from the workspace, and whether every promised thing is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from violence_ops import ledger, services, versioning
from violence_ops.demo.drops import Drop
from violence_ops.stages import batches, quarantine, releases, reports
from violence_ops.stages.status import run as status
from violence_ops.workspace import Batch, Workspace


@dataclass(frozen=True, slots=True)
class Night:
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def dropped(drop: Drop) -> str:
    """What is in a drop, in words."""
    again = f", {drop.duplicates} that were there before" if drop.duplicates else ""
    return f"{drop.good} new clips{again} and {len(drop.broken)} broken files in the inbox"


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
        champion_before=report.champion.version if report.champion else None,
        champion_f1=report.champion.metrics.f1 if report.champion else None,
        holdout=f"{report.holdout.version} ({len(report.clips)} clips)",
        verdict=verdict["verdict"],
        reasons=verdict["reasons"],
        approved_by=approver,
        champion_now=releases.open_registry(workspace).alias(releases.CHAMPION),
    )


def promises(workspace: Workspace, drops: Sequence[Drop], nights: Sequence[Night]) -> dict[str, bool]:
    """Each promised thing, and whether it is there."""
    first, second = nights
    entries = ledger.read(workspace)
    registry = releases.open_registry(workspace)
    return {
        "every good clip was accepted, and only new ones were worked on": all(
            night.accepted == drop.good and night.duplicates == drop.duplicates
            for night, drop in zip(nights, drops, strict=True)
        ),
        "every broken file is in quarantine with its own reason": all(
            night.quarantined == dict(sorted(Counter(drop.broken.values()).items()))
            for night, drop in zip(nights, drops, strict=True)
        ),
        "people were found and followed on both nights": all(
            night.persons_in_frames and night.tracks for night in nights
        ),
        "both batches are sealed, in DVC and tagged in git": {night.batch for night in nights}
        <= versioning.versioned_batches(workspace),
        "`dvc status` has nothing to redo": not versioning.status(workspace),
        "the first candidate met the floors, was approved over REST and became champion": first.verdict == "pass"
        and first.approved_by == "release-manager"
        and first.champion_now == first.candidate
        and any(entry.event == "promotion" and entry.actor == "release-manager" for entry in entries),
        "the second candidate was compared with the champion on the same frozen clips": second.champion_before
        == first.candidate
        and second.holdout == first.holdout,
        "the champion is the second candidate exactly if the gate passed it and it was approved": (
            second.champion_now == second.candidate
        )
        == (second.verdict == "pass" and second.approved_by is not None),
        "the second night was scored by the champion": _scored(workspace.batch(second.batch)),
        "both versions are in MLflow's registry": {first.candidate, second.candidate}
        <= {version.version for version in registry.versions()},
        "the ledger's hash chain holds": not ledger.verify(workspace),
        "the data docs and both reports are written": workspace.data_docs.is_file()
        and all((folder / "report.html").is_file() for folder in _report_folders(workspace))
        and len(_report_folders(workspace)) >= 2,
        "nothing waits in the inbox and no batch is open": not batches.open_batch_ids(workspace)
        and not status(workspace).to_dict().get("inbox"),
    }


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


def _scored(batch: Batch) -> bool:
    return pq.read_metadata(batch.table("predictions")).num_rows > 0


def _report_folders(workspace: Workspace) -> list[Any]:
    return [path for path in workspace.reports.iterdir() if path.is_dir()] if workspace.reports.is_dir() else []
