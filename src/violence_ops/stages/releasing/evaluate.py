"""Judge the candidate and the champion, clip by clip, on the same frozen holdout, and write the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from violence_ops import versioning
from violence_ops.capacity import peak_memory
from violence_ops.errors import WorkspaceError
from violence_ops.evaluation import judgement
from violence_ops.evaluation.judgement import Origin
from violence_ops.evaluation.records import (
    DataChecks,
    Evaluation,
    HoldoutFacts,
    JudgedClip,
    Latency,
    Leakage,
    ModelFacts,
    Prediction,
    Timings,
)
from violence_ops.evaluation.report import headline
from violence_ops.evaluation.slices import slices_of
from violence_ops.files import folder_sha256, write_json
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import TRACKS_SCHEMA, ClipRecord, ClipTracks, Label
from violence_ops.registry import PACKAGE_TAG, Registry
from violence_ops.stages.releasing import reports
from violence_ops.stages.releasing.holdout import open_frozen
from violence_ops.store import pictures, releases, trained_on
from violence_ops.store.batches import Progress
from violence_ops.store.models import load_version
from violence_ops.store.rows import by_clip
from violence_ops.video.sandbox import Sandbox
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package
    from violence_ops.recognition.pictures import Look

_NO_LINEAGE: Final = (releases.REPORT_TAG, PACKAGE_TAG, "attempt", "threshold")
"""Tags that say nothing of where a version comes from, or that the evaluation holds elsewhere."""


@dataclass(frozen=True, slots=True)
class EvaluateResult(Jsonable):
    """Where the report lies, what it says, and whether it was there already (`reused`); `notices` say if its holdout is stale."""

    report: str
    report_path: str
    json_path: str
    headline: str
    candidate: str
    champion: str | None
    holdout: str
    f1: float
    reused: bool
    notices: list[str]

    def lines(self) -> list[str]:
        """What a person reads."""
        return [self.headline, *self.notices, f"Report: {self.report_path}"]


@dataclass(frozen=True, slots=True)
class _Holdout:
    workspace: Workspace
    facts: HoldoutFacts
    clips: list[ClipRecord]
    tracks: dict[str, pa.Table]

    def origins(self) -> list[Origin]:
        return [Origin(clip.clip_id, clip.source_group, clip.perceptual_hash) for clip in self.clips]

    def tracks_of(self, clip: ClipRecord) -> ClipTracks:
        return ClipTracks.from_table(self.tracks.get(clip.clip_id, TRACKS_SCHEMA.empty_table()), clip)

    def look_at(self, clip: ClipRecord, sandbox: Sandbox) -> Look:
        return pictures.of_clip(self.workspace.batch(clip.batch_id), clip, sandbox)

    def with_people(self) -> ClipRecord:
        """The first clip that shows somebody who is ranked, if one does."""
        return next((clip for clip in self.clips if self.tracks_of(clip).rank.any()), self.clips[0])


@dataclass(frozen=True, slots=True)
class _Contestant:
    """A model that is to be judged."""

    facts: ModelFacts
    package: Package
    trained_on: list[Origin] | None


def run(
    workspace: Workspace,
    params: Params,
    *,
    candidate: str | None = None,
    holdout: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> EvaluateResult:
    """Compare a version (default: the alias `candidate`) with the champion on a holdout version (default: the newest).

    Writes `evaluation.json` and `report.html` to `reports/<candidate>-vs-<champion>/`, and adds them to the candidate's MLflow
    run. A second run for the same models, holdout and settings returns the report that is there, unless `force`: it would
    give the same figures but for the times. Raises UsageError if the version or holdout that is named is not there; WorkspaceError if
    there is no candidate or holdout at all, or holdout or report were changed.
    """
    registry = releases.open_registry(workspace)
    version = candidate or registry.alias(releases.CANDIDATE)
    if version is None:
        raise WorkspaceError("There is no candidate to evaluate: run `violence-ops train` first.")
    registry.version(version)  # a wrong one is told before anything is read
    live = releases.champion(workspace)
    facts, clips, tracks = open_frozen(workspace, holdout)
    frozen = _Holdout(workspace, facts, clips, by_clip(tracks))
    own = _contestant(workspace, registry, version, frozen.facts)
    rival = _contestant(workspace, registry, live, frozen.facts) if live else None
    files = workspace.report(f"{version}-vs-{live or 'none'}")
    found = reports.read_checked(files).evaluation if files.evaluation.is_file() and not force else None
    reused = found is not None and _is_for(found, own, rival, frozen, params)
    evaluation = found if found and reused else _judge(files.name, own, rival, frozen, params, progress)
    evaluation = reports.as_of_now(workspace, evaluation)
    if evaluation != found:
        write_json(files.evaluation, evaluation.to_dict())
    if not reused or registry.tags(version).get(releases.REPORT_TAG) != files.name:
        # pictures of people stay in the workspace, where `forget` finds them
        reports.write_page(workspace, files, evaluation, params, pictures=False)
        registry.log_report(version, files.folder, _logged(evaluation))
        registry.set_tag(version, releases.REPORT_TAG, files.name)
    verdict = reports.write_page(workspace, files, evaluation, params)
    _record(workspace, params, evaluation)
    return EvaluateResult(
        report=files.name, report_path=str(files.page), json_path=str(files.evaluation), headline=headline(evaluation),
        candidate=version, champion=live, holdout=frozen.facts.version, f1=evaluation.candidate.metrics.f1, reused=reused,
        notices=[check.sentence for check in verdict.checks if check.name == "holdout" and check.outcome != "pass"],
    )  # fmt: skip


def _contestant(workspace: Workspace, registry: Registry, version: str, holdout: HoldoutFacts) -> _Contestant:
    tags = registry.tags(version)
    loaded = load_version(workspace, version)
    folder = workspace.model_package(version)
    told = {key: value for key, value in tags.items() if key not in _NO_LINEAGE and not key.startswith("mlflow.")}
    lineage = dict(sorted((told | _batches_of(folder)).items()))  # as it is read back
    facts = ModelFacts(
        version=version, threshold=loaded.threshold, lineage=lineage, holdout_version=holdout.version, holdout_revision=holdout.revision,
        package=folder_sha256(folder),
    )  # fmt: skip
    return _Contestant(facts, loaded, _trained_on(folder))


def _batches_of(package: Path) -> dict[str, str]:
    """The batches that a version was trained and tuned on, with how many clips of each; nothing if that is not known."""
    record = trained_on.of_package(package) or {"clips": []}
    counts = Counter(row["batch_id"] for row in record["clips"] if "batch_id" in row)
    named = ", ".join(f"{name} ({counted(count, 'clip')})" for name, count in sorted(counts.items()))
    return {"trained_on_batches": named} if named else {}


def _trained_on(package: Path) -> list[Origin] | None:
    """The clips that a version was trained and tuned on, which travel with it; None if they do not."""
    record = trained_on.of_package(package)
    if record is None:
        return None
    return [Origin(row["clip_id"], row["source_group"], row["perceptual_hash"]) for row in record["clips"]]


def _judge(
    name: str, own: _Contestant, rival: _Contestant | None, holdout: _Holdout, params: Params, progress: Progress | None
) -> Evaluation:
    with Sandbox(params.validation) as sandbox:
        predictions, times = _predict(own, holdout, sandbox, "candidate", progress)
        others, other_times = _predict(rival, holdout, sandbox, "champion", progress) if rival else ({}, None)
    clips = [
        JudgedClip(
            clip_id=clip.clip_id, label=_label(clip), source_group=clip.source_group, batch_id=clip.batch_id,
            source_path=clip.source_path, slices=slices_of(clip, holdout.tracks_of(clip)),
            candidate=predictions[clip.clip_id], champion=others.get(clip.clip_id),
        )
        for clip in holdout.clips
    ]  # fmt: skip
    bits = params.dataset.near_duplicate_bits
    return judgement.evaluate(
        clips, name=name, holdout=holdout.facts, candidate=own.facts, champion=rival.facts if rival else None,
        checks=DataChecks(
            near_duplicate_bits=bits, candidate=_leakage(own, holdout, bits), champion=_leakage(rival, holdout, bits) if rival else None
        ),
        timings=Timings(candidate=times, champion=other_times),
        confidence=params.gate.confidence, resamples=params.gate.resamples,
    )  # fmt: skip


def _label(clip: ClipRecord) -> Label:
    assert clip.label is not None  # open_frozen has looked
    return clip.label


def _predict(
    model: _Contestant, holdout: _Holdout, sandbox: Sandbox, role: str, progress: Progress | None
) -> tuple[dict[str, Prediction], Latency]:
    """Every clip's prediction, and the time each took on one thread."""
    from violence_ops.recognition.predict import predict_clip

    made, seconds = {}, []
    with _one_thread(), peak_memory() as peak:
        first = holdout.with_people()
        # it warms up, starts the sandbox's child if pictures are wanted, and is not counted
        predict_clip(model.package, holdout.tracks_of(first), holdout.look_at(first, sandbox))
        for done, clip in enumerate(holdout.clips, start=1):
            tracks = holdout.tracks_of(clip)
            start = time.perf_counter()
            found = predict_clip(model.package, tracks, holdout.look_at(clip, sandbox))
            seconds.append(time.perf_counter() - start)
            made[clip.clip_id] = judgement.prediction(found.probability, found.verdict)
            if progress:
                progress(f"evaluate {role}", done, len(holdout.clips))
        held = peak()
    return made, judgement.latency(seconds, held and held / 2**20)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Latency is judged on one thread, so that it does not depend on the machine's width."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _leakage(model: _Contestant, holdout: _Holdout, bits: int) -> Leakage | None:
    return None if model.trained_on is None else judgement.leakage(holdout.origins(), model.trained_on, bits)


def _is_for(found: Evaluation, own: _Contestant, rival: _Contestant | None, holdout: _Holdout, params: Params) -> bool:
    """Whether an evaluation was made of the same models on the same holdout with the same settings."""

    def facts(model: ModelFacts | None) -> dict[str, Any] | None:
        return model.to_dict() | {"metrics": None} if model else None

    same_models = facts(found.candidate) == facts(own.facts) and facts(found.champion) == facts(
        rival.facts if rival else None
    )
    settings = (found.difference.confidence, found.difference.resamples) if found.difference else None
    wanted = (params.gate.confidence, params.gate.resamples) if rival else None
    same_bits = found.checks.near_duplicate_bits == params.dataset.near_duplicate_bits
    return same_models and settings == wanted and found.holdout == holdout.facts and same_bits


def _logged(evaluation: Evaluation) -> dict[str, float]:
    """The figures that the candidate's MLflow run carries."""
    numbers = _figures(evaluation)
    if evaluation.difference:
        numbers |= {
            "f1_difference": evaluation.difference.f1,
            "f1_difference_lower": evaluation.difference.interval.lower,
            "f1_difference_upper": evaluation.difference.interval.upper,
        }
    return numbers | {"latency_p95_ms": evaluation.timings.candidate.p95_ms}


def _figures(evaluation: Evaluation) -> dict[str, float]:
    """The candidate's figures on the holdout that can be told."""
    figures = evaluation.candidate.metrics.to_dict()
    return {f"holdout_{key}": value for key, value in figures.items() if isinstance(value, float)}


def _record(workspace: Workspace, params: Params, evaluation: Evaluation) -> None:
    content = {
        "report": evaluation.name, "holdout": evaluation.holdout.to_dict(), "candidate": evaluation.candidate.version,
        "champion": evaluation.champion_version, "f1": evaluation.candidate.metrics.f1,
    }  # fmt: skip
    workspace.write_progress("evaluate", content)
    workspace.write_metrics("evaluate", {"candidate": evaluation.candidate.version, **_figures(evaluation)})
    versioning.commit_stage(workspace, ["evaluate"], f"Evaluation {evaluation.name}", params)
