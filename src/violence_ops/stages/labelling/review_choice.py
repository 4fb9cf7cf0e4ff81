"""Which clips people should look at: those that the champion is unsure of, and those on which somebody disagrees."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import pyarrow as pa

from violence_ops.errors import UsageError
from violence_ops.evaluation.records import Evaluation
from violence_ops.evaluation.slices import NOBODY
from violence_ops.files import load_table
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.recognition.vote import confidence as confidence_of
from violence_ops.records import ClipRecord, Label
from violence_ops.stages.releasing import reports
from violence_ops.store import batches, pictures, releases
from violence_ops.store.batches import Progress
from violence_ops.store.labels import effective_labels
from violence_ops.store.models import load_version
from violence_ops.workspace import Workspace

RULES: Final = ("low_confidence", "nobody_seen", "label_disagrees", "models_disagree")
"""The model is less sure than asked for; nobody was found, so that it had nothing to judge; it contradicts the label; candidate and
champion contradict each other in the newest report."""

_VERDICT: Final = ["clip_id", "model_version", "window", "weight", "clip_probability", "threshold", "verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model `model` (a version) says of a clip; confidence in [0.5, 1] says how sure it is by the distance to its threshold
    (`vote.confidence`), 0.5 for a clip that `shows_nobody`."""

    model: str
    verdict: Label
    confidence: float
    shows_nobody: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """A clip to be looked at, its present label and where that comes from, the model's verdict, and which rules chose it."""

    clip: ClipRecord
    batch: Batch
    label: Label | None
    source: str | None
    said: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The clips to be looked at, and the newest `report`, if there is one; of those that might be, how many a model has judged, how
    many none has although they are annotated (there is no champion), and how many are not annotated yet; and how many are `left_out`,
    as people have labelled them."""

    clips: list[Chosen]
    report: str | None
    judged: int
    not_judged: int
    not_annotated: int
    left_out: int


def choose(
    workspace: Workspace,
    params: Params,
    *,
    confidence: float,
    limit: int,
    again: bool = False,
    progress: Progress | None = None,
) -> Choice:
    """At most `limit` accepted clips, those first that most rules choose, then those the model is least sure of. Clips about which nothing
    else is to be said than that they show nobody come last: most of them are what they seem.

    A clip of the newest report is judged by that report's champion (or, before there is one, its candidate), any other as the
    champion of its night did, and one that nobody has judged by the present champion, now. Clips that a person has labelled are
    left out unless `again`. Raises ServiceUnavailable if there are unjudged clips and MLflow cannot be reached.
    """
    if not 0.5 <= confidence <= 1:
        raise UsageError(f"--confidence is {confidence:g} but must be between 0.5 and 1.")
    evaluation = _newest_evaluation(workspace)
    reported, disputed = _reported(evaluation)
    labels = effective_labels(workspace)
    accepted = list(_judged(workspace))
    clips = [
        (batch, clip, reported.get(clip.clip_id) or said)
        for batch, clip, said in accepted
        if again or labels.get(clip.clip_id, (None, None))[1] in (None, "inbox")
    ]
    unjudged = [(batch, clip) for batch, clip, said in clips if said is None]
    annotated = [one for one in unjudged if _is_annotated(*one)]
    now = _judge(workspace, params, annotated, progress)
    found = []
    for batch, clip, known in clips:
        if (said := known or now.get(clip.clip_id)) is None:
            continue
        label, source = labels.get(clip.clip_id, (None, None))
        doubtful = said.confidence < confidence and not said.shows_nobody
        applies = (doubtful, said.shows_nobody, label not in (None, said.verdict), clip.clip_id in disputed)
        if reasons := tuple(rule for rule, true in zip(RULES, applies, strict=True) if true):
            found.append(Chosen(clip, batch, label, source, said, reasons))
    found.sort(
        key=lambda one: (-len(one.reasons), one.reasons == ("nobody_seen",), one.said.confidence, one.clip.clip_id)
    )
    judged = len(clips) - len(unjudged) + len(now)
    left_out = len(accepted) - len(clips)
    report = evaluation.name if evaluation else None
    return Choice(found[:limit], report, judged, len(annotated) - len(now), len(unjudged) - len(annotated), left_out)


def _is_annotated(batch: Batch, clip: ClipRecord) -> bool:
    return batch.is_sealed or batch.part("tracks", clip.clip_id).is_file()


def _judge(
    workspace: Workspace, params: Params, unjudged: list[tuple[Batch, ClipRecord]], progress: Progress | None
) -> dict[str, Verdict]:
    """What the present champion says of clips that nobody has judged; nothing if there is no champion."""
    champion = releases.champion(workspace) if unjudged else None
    if champion is None:
        return {}
    from violence_ops.recognition.predict import predict_clip
    from violence_ops.video.sandbox import Sandbox

    package = load_version(workspace, champion)
    found = {}
    with Sandbox(params.validation) as sandbox:
        for batch, clips in itertools.groupby(unjudged, key=itemgetter(0)):
            for clip, tracks in batches.tracks_by_clip(batch, [clip for _, clip in clips]):
                said = predict_clip(package, tracks, pictures.of_clip(batch, clip, sandbox))
                found[clip.clip_id] = Verdict(champion, said.verdict, said.confidence, said.shows_nobody)
                if progress:
                    progress("judge", len(found), len(unjudged))
    return found


def _newest_evaluation(workspace: Workspace) -> Evaluation | None:
    """The newest report's figures; None if nothing was evaluated yet."""
    return reports.find(workspace, None).evaluation if workspace.read_progress("evaluate").get("report") else None


def _reported(evaluation: Evaluation | None) -> tuple[dict[str, Verdict], set[str]]:
    """The verdicts of the newest report by clip, and the clips on which its two models disagree."""
    if evaluation is None:
        return {}, set()
    judge = evaluation.champion or evaluation.candidate
    verdicts, disputed = {}, set()
    for clip in evaluation.clips:
        one = clip.champion or clip.candidate
        nobody = clip.slices.get("crowd") == NOBODY
        verdicts[clip.clip_id] = _verdict(judge.version, one.verdict, one.probability, judge.threshold, nobody)
        if clip.champion and clip.champion.verdict != clip.candidate.verdict:
            disputed.add(clip.clip_id)
    return verdicts, disputed


def _judged(workspace: Workspace) -> Iterator[tuple[Batch, ClipRecord, Verdict | None]]:
    """The accepted clips of all batches, with what the champion of their night said."""
    for batch in [*workspace.sealed_batches(), *batches.chosen_batches(workspace, None)]:
        clips = batches.accepted_clips(batch)
        said = _verdicts(batch, clips)
        yield from ((batch, clip, said.get(clip.clip_id)) for clip in clips)


def _verdicts(batch: Batch, clips: list[ClipRecord]) -> dict[str, Verdict]:
    parts = [batch.table("predictions")] if batch.is_sealed else [batch.part("predictions", c.clip_id) for c in clips]
    tables = [load_table(part, columns=_VERDICT) for part in parts if part.is_file()]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    seen = {row["clip_id"] for row in rows if row["weight"] > 0}
    return {
        (clip := row["clip_id"]): _verdict(
            row["model_version"], row["verdict"], row["clip_probability"], row["threshold"], clip not in seen
        )
        for row in rows
        if row["window"] == 0
    }


def _verdict(model: str, verdict: Label, probability: float, threshold: float, nobody: bool) -> Verdict:
    return Verdict(model, verdict, 0.5 if nobody else confidence_of(probability, threshold), nobody)
