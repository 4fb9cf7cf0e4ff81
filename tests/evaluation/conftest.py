"""Evaluations made from lists of verdicts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from violence_ops.evaluation import judgement
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
from violence_ops.params import GateParams, load_params

Make = Callable[..., Evaluation]


@pytest.fixture(scope="session")
def gate_params() -> GateParams:
    return load_params(Path("params.yaml")).gate


def _clip(number: int, label: bool, own: float, other: float | None, group: str) -> JudgedClip:
    def made(probability: float) -> Prediction:
        return judgement.prediction(probability, "Fight" if probability > 0.5 else "NonFight")

    return JudgedClip(
        clip_id=f"{number:020x}", label="Fight" if label else "NonFight", source_group=group, batch_id="2026-01-01-00000000",
        source_path=f"inbox/clip_{number}.mp4", slices={"camera": f"cam-{number % 3}", "darkness": ("dark", "bright")[number % 2]},
        candidate=made(own), champion=None if other is None else made(other),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_evaluation(gate_params: GateParams) -> Make:
    """`make(labels, candidate, champion=None, groups=None, **changes)`: probabilities of Fight, one threshold at 0.5."""

    def make(
        labels: Sequence[bool], candidate: Sequence[float], champion: Sequence[float] | None = None,
        groups: Sequence[str] | None = None, order: Sequence[int] | None = None, resamples: int = 300, checks: DataChecks | None = None,
        p95_ms: float = 9.0,
    ) -> Evaluation:  # fmt: skip
        clips = [
            _clip(i, labels[i], candidate[i], champion[i] if champion else None, groups[i] if groups else f"g{i}")
            for i in (order or range(len(labels)))
        ]
        revision = "0123456789abcdef" * 4
        model = ModelFacts(
            version="2", threshold=0.5, lineage={"dataset_revision": "d" * 64}, holdout_version="v1", holdout_revision=revision
        )  # fmt: skip
        time = Latency(p50_ms=5.0, p95_ms=p95_ms, peak_memory_mb=700.0)
        return judgement.evaluate(
            clips, name="2-vs-1", holdout=HoldoutFacts(version="v1", revision=revision, batches=("2026-01-01-00000000",)),
            candidate=model, champion=model.model_copy(update={"version": "1"}) if champion else None,
            checks=checks or DataChecks(near_duplicate_bits=4, candidate=Leakage(), champion=Leakage() if champion else None),
            timings=Timings(candidate=time, champion=time if champion else None),
            confidence=gate_params.confidence, resamples=resamples,
        )  # fmt: skip

    return make
