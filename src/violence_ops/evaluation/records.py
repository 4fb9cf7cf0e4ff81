"""The records of an evaluation, as they lie in `evaluation.json` and `gate.json`. They hold no clock."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from violence_ops.errors import WorkspaceError
from violence_ops.records import Label

Outcome = Literal["pass", "refuse", "undecided"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-able values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: str | bytes, where: str) -> Self:
        """Read what `to_dict` gave. Raises WorkspaceError, naming `where`, if it is anything else."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            problem = f"{key}: {first['msg']}" if key else first["msg"]
            raise WorkspaceError(f"{where} is not readable ({problem}): make it again with `--force`.") from None


class Prediction(_Record):
    """One model's judgement of one clip. probability is that of Fight, in [0, 1]; confidence is in [0, 1]."""

    probability: float
    verdict: Label
    confidence: float


class JudgedClip(_Record):
    """A holdout clip, the slices it belongs to (`{"camera": "cam-1", …}`), and what each model made of it."""

    clip_id: str
    label: Label
    source_group: str
    batch_id: str
    source_path: str
    slices: dict[str, str]
    candidate: Prediction
    champion: Prediction | None = None


class Confusion(_Record):
    """Counts with Fight as the positive class."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def clips(self) -> int:
        return self.tp + self.fp + self.fn + self.tn

    @property
    def accuracy(self) -> float:
        return _ratio(self.tp + self.tn, self.clips)

    @property
    def precision(self) -> float:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


class Metrics(_Record):
    """All figures of one model on the holdout; auc is None when only one label is present."""

    accuracy: float
    precision: float
    recall: float
    specificity: float
    f1: float
    auc: float | None
    ece: float
    brier: float
    confusion: Confusion


class ModelFacts(_Record):
    """A registered version, where it comes from (`lineage`: tag to value), and which holdout it was judged on.

    `package` is the SHA-256 of the package that was judged; None in evaluations of before November 2026.
    """

    version: str
    threshold: float
    lineage: dict[str, str]
    holdout_version: str
    holdout_revision: str
    package: str | None = None


class JudgedModel(ModelFacts):
    metrics: Metrics


class Interval(_Record):
    """A bootstrap interval of the F1 difference; units: how many clips or source groups were resampled."""

    lower: float
    upper: float
    units: int


class Difference(_Record):
    """Candidate minus champion on the same clips."""

    f1: float
    confidence: float
    resamples: int
    by_group: Interval
    by_clip: Interval
    only_candidate_right: int
    only_champion_right: int
    mcnemar_p: float

    @property
    def interval(self) -> Interval:
        """What is judged by: from the lower of both lower ends to the higher of both upper ends; units are the source groups.

        Where clips of a group resemble each other, the truth is the wider interval over groups; where they do not, both should be
        as wide. One over groups that is narrower only says that gains and losses met in the same groups, by chance if these are few.
        """
        group, clip = self.by_group, self.by_clip
        return Interval(lower=min(group.lower, clip.lower), upper=max(group.upper, clip.upper), units=group.units)


class Slice(_Record):
    """The clips that share one trait, e.g. dimension `camera`, value `cam-1`; how many of them, and how many Fights among these,
    only one model has right, and of how many source groups those are that only the champion has right (None in evaluations of
    before November 2026)."""

    dimension: str
    value: str
    candidate: Confusion
    champion: Confusion | None
    only_candidate_right: int | None = None
    only_champion_right: int | None = None
    only_candidate_finds: int | None = None
    only_champion_finds: int | None = None
    losing_groups: int | None = None


class Leakage(_Record):
    """What the holdout shares with a model's training data; near_duplicates are (holdout clip, training clip)."""

    clip_ids: tuple[str, ...] = ()
    source_groups: tuple[str, ...] = ()
    near_duplicates: tuple[tuple[str, str], ...] = ()

    @property
    def found(self) -> bool:
        return bool(self.clip_ids or self.source_groups or self.near_duplicates)


class DataChecks(_Record):
    """Leakage of each model that was judged; None where it is not known what the model was trained on.

    newer_holdout: a version that was frozen after the one they were judged on. relabelled: the clips of it whose label was
    corrected since.
    """

    near_duplicate_bits: int
    candidate: Leakage | None
    champion: Leakage | None = None
    newer_holdout: str | None = None
    relabelled: tuple[str, ...] = ()


class Latency(_Record):
    """Time from tracks to a clip's verdict on one thread, ms, and the most memory that the process held meanwhile, MiB, if known."""

    p50_ms: float
    p95_ms: float
    peak_memory_mb: float | None


class Timings(_Record):
    """Measured, so it differs from run to run: everything else of an evaluation does not."""

    candidate: Latency
    champion: Latency | None = None


class HoldoutFacts(_Record):
    version: str
    revision: str
    batches: tuple[str, ...]


class Evaluation(_Record):
    """A candidate, and the champion if there is one, judged clip by clip on one frozen holdout."""

    name: str
    holdout: HoldoutFacts
    candidate: JudgedModel
    champion: JudgedModel | None
    difference: Difference | None
    slices: tuple[Slice, ...]
    checks: DataChecks
    clips: tuple[JudgedClip, ...]
    timings: Timings

    @property
    def champion_version(self) -> str | None:
        return self.champion.version if self.champion else None


class ShadowNight(_Record):
    """The clips of one batch that the champion of that night and the shadow have both judged, without the `left_out` ones, of
    whose source groups the shadow has learnt (none in records of before that was counted)."""

    batch_id: str
    clips: int
    left_out: int = 0
    champion_fights: int
    shadow_fights: int
    differ: int


class ShadowClip(_Record):
    """A clip on which they differ; label is None where nobody has given one."""

    clip_id: str
    batch_id: str
    camera: str | None
    source_path: str
    label: Label | None
    champion: Prediction
    shadow: Prediction


class ShadowComparison(_Record):
    """What a version said in shadow, beside the champions of those nights. `labelled` of all disagreements have a label,
    and the shadow is right on `shadow_right` of these; `disagreements` may be only the first of them. Without
    `training_known` the version does not say which clips it was trained on, and none is left out."""

    version: str
    training_known: bool = False
    nights: tuple[ShadowNight, ...]
    disagreements: tuple[ShadowClip, ...]
    labelled: int
    shadow_right: int

    @property
    def clips(self) -> int:
        return sum(night.clips for night in self.nights)

    @property
    def left_out(self) -> int:
        return sum(night.left_out for night in self.nights)

    @property
    def differ(self) -> int:
        return sum(night.differ for night in self.nights)

    @property
    def champion_fights(self) -> int:
        return sum(night.champion_fights for night in self.nights)

    @property
    def shadow_fights(self) -> int:
        return sum(night.shadow_fights for night in self.nights)


class Check(_Record):
    """One question of the gate: its answer and the sentence, with numbers, that explains it."""

    name: str
    outcome: Outcome
    sentence: str


class Verdict(_Record):
    """The gate's decision. `mode` is the gate's; only an `enabled` or `disabled` one lets a release happen."""

    verdict: Outcome
    mode: Literal["enabled", "dry_run", "disabled"]
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """The sentences that made the verdict: what failed, or for a pass all that held."""
        return [check.sentence for check in self.checks if check.outcome == self.verdict]


def _ratio(numerator: int, denominator: int) -> float:
    """0 where nothing could be counted, as scikit-learn's `zero_division=0`."""
    return numerator / denominator if denominator else 0.0
