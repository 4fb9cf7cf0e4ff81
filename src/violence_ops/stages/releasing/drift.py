"""Drift: compare a sealed batch with what the champion was trained on, and keep the comparison beside the reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict

from violence_ops import git
from violence_ops.errors import WorkspaceError
from violence_ops.files import read_json, write_json, write_text
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.stages.releasing import drift_settings, reports
from violence_ops.stages.releasing.clip_values import clip_values, named_group
from violence_ops.stages.releasing.drift_settings import Settings
from violence_ops.stages.releasing.drift_summary import drift_summary
from violence_ops.store import batches, releases, tombstones, trained_on
from violence_ops.store.batches import Manifest
from violence_ops.store.index import open_catalog
from violence_ops.wording import counted, listed
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.evaluation.drift import ClipValues, DriftReport


class _Clip(TypedDict):
    group: str | None
    camera: NotRequired[str | None]
    values: dict[str, float]


class _Measured(TypedDict):
    dataset_revision: str
    settings: NotRequired[list[Settings]]
    clips: list[_Clip]


@dataclass(frozen=True, slots=True)
class DriftResult:
    """The comparison, None without a champion; `retrain` says that it asks for a retraining (`drift.trigger`), which drift does not
    where other settings may explain it."""

    batch_id: str | None
    report: DriftReport | None
    path: str | None
    retrain: bool

    def to_dict(self) -> dict[str, Any]:
        found = self.report.to_dict() if self.report else {"batch_id": self.batch_id, "verdict": "no champion"}
        return found | {"path": self.path, "retrain": self.retrain}

    def lines(self) -> list[str]:
        """For people."""
        return list(_lines(self.report)) if self.report else []


def run(workspace: Workspace, params: Params, *, batch_id: str | None = None) -> DriftResult:
    """Compare one sealed batch (default: the newest) with the clips that the champion was trained on.

    Writes `reports/drift/<batch>.json` and commits it; the same batch and champion give the same bytes. Without a champion
    nothing is written. Raises UnknownBatch, WorkspaceError if the batch is not sealed, the champion does not say what it was
    trained on, or clips of that are not here, though nobody has forgotten them.
    """
    from violence_ops.evaluation.drift import DriftReport, compare

    batch = _sealed(workspace, batch_id)
    version = releases.champion(workspace)
    if version is None:
        return DriftResult(batch.batch_id, None, None, False)
    reference = _reference(workspace, version)
    clips = list(clip_values(batch, judged_by=version))
    shifts = compare(reference.clips, clips, params.drift)
    manifest = batches.read_manifest(batch)
    report = DriftReport(
        batch.batch_id,
        manifest.night,
        version,
        reference.dataset_revision,
        shifts,
        tuple(_notes(manifest, clips, reference)),
    )
    path = workspace.drift_report(batch.batch_id)
    with git.writing(workspace) as commit:
        write_json(path, report.to_dict())
        commit([path], f"Drift of batch {batch.batch_id}: {report.verdict}")
    untold = drift_settings.confounded(drift_settings.measured_with(manifest), reference.settings)
    drifted = {shift.quantity for shift in shifts if shift.verdict == "drift"}
    return DriftResult(batch.batch_id, report, str(path), params.drift.trigger and not drifted <= untold)


def write_page(workspace: Workspace, path: Path) -> Path:
    """Write the comparisons with the champion as one HTML page. Raises WorkspaceError if there is none."""
    from violence_ops.evaluation import drift_page

    version = releases.champion(workspace)
    found = drift_summary(workspace, version) if version else []
    if not found:
        raise WorkspaceError("No night was compared with the champion yet: run `violence-ops drift` first.")
    write_text(path, drift_page.render(found, str(workspace.root)))
    return path


@dataclass(frozen=True, slots=True)
class _Reference:
    dataset_revision: str
    clips: list[ClipValues]
    settings: list[Settings]


def _sealed(workspace: Workspace, batch_id: str | None) -> Batch:
    if batch_id is None:
        sealed = workspace.sealed_batches()
        if not sealed:
            raise WorkspaceError("No batch is sealed yet: run `violence-ops night` first.")
        return max(sealed, key=lambda batch: (batch.night, batch.manifest.stat().st_mtime_ns))  # night, then sealing
    batch = workspace.batch(batch_id)
    if not batch.is_sealed:
        batches.read_manifest(batch)  # raises for an unknown one
        raise WorkspaceError(f"Batch {batch_id} is not sealed yet: run `violence-ops night` first.")
    return batch


def _reference(workspace: Workspace, version: str) -> _Reference:
    """What a model was trained on, measured once and kept: every night is compared with the same, but for what is forgotten."""
    from violence_ops.evaluation.drift import ClipValues

    record = trained_on.read(workspace, version)
    forgotten = set(tombstones.all_of(workspace))
    trained = [clip for clip in record["clips"] if clip["clip_id"] not in forgotten]
    path = workspace.drift_reference(version)
    content: dict[str, Any] | None = None
    if path.is_file():
        content = read_json(path, "remove it, and it is made again", _Measured)
    if content is None or not _is_whole(content, len(trained)):
        content = {"dataset_revision": record["dataset_revision"]} | _measured_reference(workspace, version, trained)
        write_json(path, content)
    clips = [ClipValues(one["group"], one["camera"], one["values"]) for one in content["clips"]]
    # last, and never kept: which evaluation is the newest may change
    clips += _probabilities(workspace, version)
    return _Reference(content["dataset_revision"], clips, content["settings"])


def _is_whole(content: dict[str, Any], clips: int) -> bool:
    """Whether it is kept as now: an earlier one may lack clips that were not here then, cameras and settings."""
    return len(content["clips"]) == clips and "settings" in content and all("camera" in one for one in content["clips"])


def _measured_reference(workspace: Workspace, version: str, trained: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of these clips of training.json. Raises WorkspaceError if one is not here."""
    homes = _homes(workspace, version, trained)
    if away := [batch_id for batch_id in homes if not workspace.batch(batch_id).is_sealed]:
        raise WorkspaceError(
            f"Model {version} was trained on clips of batches that are not here ({listed(away)}): run `violence-ops dvc pull`, "
            "then this again."
        )
    found: list[ClipValues] = []
    settings: list[Settings] = []
    for batch_id, wanted in homes.items():
        batch = workspace.batch(batch_id)
        _check_whole(workspace, version, batch, wanted)
        found += clip_values(batch, wanted)
        if (one := drift_settings.measured_with(batches.read_manifest(batch))) not in settings:
            settings.append(one)
    return {
        "settings": settings,
        "clips": [{"group": clip.group, "camera": clip.camera, "values": dict(clip.values)} for clip in found],
    }


def _homes(workspace: Workspace, version: str, trained: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The clips by their batches, oldest first; an old training.json does not name these, but the catalog does."""
    known = {clip["clip_id"]: clip.get("batch_id") for clip in trained}
    if unnamed := [clip_id for clip_id, batch_id in known.items() if not batch_id]:
        with open_catalog(workspace) as catalog:
            known |= {clip.clip_id: clip.batch_id for clip in catalog.find(unnamed).values()}
    homes: dict[str, set[str]] = {}
    for clip_id, batch_id in sorted(known.items(), key=lambda one: one[1] or ""):
        if not batch_id:
            raise WorkspaceError(
                f"It is not known which batch holds clip {clip_id}, which model {version} was trained on: run `violence-ops dvc pull` and "
                "`violence-ops catalog rebuild`, then this again."
            )
        homes.setdefault(batch_id, set()).add(clip_id)
    return homes


def _check_whole(workspace: Workspace, version: str, batch: Batch, wanted: set[str]) -> None:
    """Raise WorkspaceError if a batch lacks one of the clips, unless that was forgotten since the tombstones were read."""
    lost = wanted - {clip.clip_id for clip in batches.accepted_clips(batch, wanted)}
    if count := sum(not tombstones.stands(workspace, clip_id) for clip_id in lost):
        pointer = batch.pointer.relative_to(workspace.root)
        raise WorkspaceError(
            f"Batch {batch.batch_id} lacks {count} of the clips that model {version} was trained on, and nobody has forgotten them: run "
            f"`violence-ops dvc pull --force {pointer}`, then this again."
        )


def _probabilities(workspace: Workspace, version: str) -> list[ClipValues]:
    """What a model says of clips like those it was trained on: its probabilities of the holdout, from its newest evaluation.

    Those of the training clips themselves are surer than any of a night.
    """
    from violence_ops.evaluation.drift import ClipValues
    from violence_ops.evaluation.slices import UNKNOWN

    name = releases.open_registry(workspace).tags(version).get(releases.REPORT_TAG)
    if name is None or not workspace.report(name).evaluation.is_file():
        return []
    judged = reports.read(workspace.report(name)).evaluation.clips
    cameras = {clip.clip_id: clip.slices.get("camera", UNKNOWN) for clip in judged}
    return [
        ClipValues(
            group=named_group(clip.clip_id, clip.source_group),
            camera=cameras[clip.clip_id] if cameras[clip.clip_id] != UNKNOWN else None,
            values={"probability": clip.candidate.probability},
        )
        for clip in judged
    ]


def _notes(manifest: Manifest, clips: Sequence[ClipValues], reference: _Reference) -> Iterator[str]:
    for whose, side in (("night", clips), ("reference", reference.clips)):
        if unnamed := sum(clip.group is None and clip.camera is None for clip in side):
            yield (
                f"{unnamed} of {counted(len(side), 'clip')} of the {whose} name no source group or camera and were counted as "
                "independent: if cameras repeat among them, this finds drift too easily."
            )
    yield from drift_settings.notes(
        drift_settings.measured_with(manifest), reference.settings, manifest.facts["pose_weights"]["name"]
    )


def _lines(report: DriftReport) -> Iterator[str]:
    from violence_ops.evaluation.drift import QUANTITIES

    yield f"batch {report.batch_id} against what model {report.model_version} was trained on: {report.headline}"
    yield f"{'quantity':<36}{'clips':>11}{'median':>16}{'KS':>7}{'p':>9}{'PSI':>7}{'limit':>7}  verdict"
    for shift in report.shifts:
        clips = f"{shift.clips[0]}/{shift.clips[1]}"
        figures = " " * 46
        if shift.ks is not None:
            medians = f"{shift.reference[2]:.3g} -> {shift.night[2]:.3g}"
            figures = f"{medians:>16}{shift.ks:>7.2f}{shift.p_value:>9.1g}{shift.psi:>7.2f}{shift.psi_limit:>7.2f}"
        yield f"{QUANTITIES[shift.quantity]:<36}{clips:>11}{figures}  {shift.verdict}"
    yield from report.notes
