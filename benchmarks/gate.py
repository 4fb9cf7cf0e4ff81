"""How often does the gate err? `python -m benchmarks.gate`

Draws candidates and champions whose true F1 is known, judges them on holdouts of several sizes by the real gate (`gate:` of
params.yaml, the same code as `violence-ops gate`), and counts verdicts: a pass of an equal or worse model is one error, a better
model that is stopped (refused, or left undecided) the other. The last line is JSON.

A clip's score is normal with unit variance around +d/2 (Fight) or -d/2 (NonFight): half of the clips are Fights, so F1 is
Φ(d/2). Both models share part of the deviation, as two trainings on nearly the same data do: what is hard about the clip (0.40 of
the variance) and about its source group (0.15); a part of each model's own is common to a group (0.10), the rest (0.35) is not. The
probability is the posterior, so both are calibrated.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from violence_ops.evaluation import judgement
from violence_ops.evaluation.policy import judge
from violence_ops.evaluation.records import (
    DataChecks,
    Evaluation,
    HoldoutFacts,
    JudgedClip,
    Latency,
    Leakage,
    ModelFacts,
    Timings,
)
from violence_ops.params import GateParams, load_params

SIZES: Final = (40, 100, 250, 600, 1500)
DIFFERENCES: Final = (-0.10, -0.05, -0.02, 0.0, 0.02, 0.05, 0.10)
CLIPS_PER_GROUP: Final = 4
_HARD_CLIP, _HARD_GROUP, _OWN_GROUP, _OWN_CLIP = 0.40, 0.15, 0.10, 0.35
_FACTS: Final = ModelFacts(version="1", threshold=0.5, lineage={}, holdout_version="v1", holdout_revision="0" * 32)
_TIME: Final = Latency(p50_ms=5.0, p95_ms=9.0, peak_memory_mb=500.0)


@dataclass(frozen=True, slots=True)
class Cell:
    """Holdout size, true F1 difference, and how often each verdict was given under the policy."""

    policy: str
    clips: int
    difference: float
    verdicts: dict[str, float]
    stopped_by: dict[str, float]


def draw(
    clips: int, champion_f1: float, difference: float, gate: GateParams, generator: np.random.Generator,
    per_group: int = CLIPS_PER_GROUP,
) -> Evaluation:  # fmt: skip
    """An evaluation of two models whose true F1 differs by `difference`, on one holdout of that many clips."""
    group = np.arange(clips) // per_group
    labels = generator.permutation(np.arange(clips) % 2 == 0)
    groups = int(group.max()) + 1
    hard = (
        np.sqrt(_HARD_CLIP) * generator.normal(size=clips) + np.sqrt(_HARD_GROUP) * generator.normal(size=groups)[group]
    )

    def probabilities(f1: float) -> NDArray[np.float64]:
        distance = 2 * norm.ppf(f1)
        own = (
            np.sqrt(_OWN_CLIP) * generator.normal(size=clips)
            + np.sqrt(_OWN_GROUP) * generator.normal(size=groups)[group]
        )
        scores: NDArray[np.float64] = np.where(labels, distance / 2, -distance / 2) + hard + own
        return 1 / (1 + np.exp(-distance * scores))

    made = [[judgement.prediction(float(p), "Fight" if p > 0.5 else "NonFight") for p in probabilities(f1)]
            for f1 in (champion_f1 + difference, champion_f1)]  # fmt: skip
    crowd = generator.integers(0, 3, clips)
    judged = [
        JudgedClip(
            clip_id=f"{i:020x}", label="Fight" if labels[i] else "NonFight", source_group=f"g{group[i]}", batch_id="b", source_path="p",
            slices={"camera": f"cam-{group[i] % 6}", "darkness": ("dark", "bright")[group[i] // 6 % 2], "crowd": str(crowd[i])},
            candidate=made[0][i], champion=made[1][i],
        )
        for i in range(clips)
    ]  # fmt: skip
    return judgement.evaluate(
        judged, name="2-vs-1", holdout=HoldoutFacts(version="v1", revision="0" * 32, batches=()), candidate=_FACTS, champion=_FACTS,
        checks=DataChecks(near_duplicate_bits=4, candidate=Leakage(), champion=Leakage()),
        timings=Timings(candidate=_TIME, champion=_TIME), confidence=gate.confidence, resamples=gate.resamples,
    )  # fmt: skip


def simulate(
    policies: dict[str, GateParams], *, sizes: tuple[int, ...], differences: tuple[float, ...], champion_f1: float,
    trials: int, seed: int = 0, per_group: int = CLIPS_PER_GROUP,
) -> Iterator[Cell]:  # fmt: skip
    """Judge `trials` drawn evaluations of every size and difference by each policy; those of one cell are the same for all."""
    first = next(iter(policies.values()))
    for clips in sizes:
        for difference in differences:
            generator = np.random.default_rng([seed, clips, round(1000 * (difference + 1))])
            counts: dict[str, Counter[str]] = {name: Counter() for name in policies}
            checks: dict[str, Counter[str]] = {name: Counter() for name in policies}
            for _ in range(trials):
                evaluation = draw(clips, champion_f1, difference, first, generator, per_group)
                for name, policy in policies.items():
                    verdict = judge(evaluation, policy)
                    counts[name][verdict.verdict] += 1
                    checks[name].update(
                        check.name for check in verdict.checks if check.outcome == verdict.verdict != "pass"
                    )
            for name in policies:
                shares = {outcome: counts[name][outcome] / trials for outcome in ("pass", "undecided", "refuse")}
                yield Cell(
                    name,
                    clips,
                    difference,
                    shares,
                    {check: count / trials for check, count in checks[name].most_common()},
                )


def table(cells: list[Cell]) -> str:
    """Pass / undecided / refuse in percent: a row a holdout size, a column a true difference. Markdown."""
    differences = sorted({cell.difference for cell in cells})
    head = "| clips | " + " | ".join("equal" if not d else f"{d:+.2f}" for d in differences) + " |"
    rows = [head, "|---|" + "---|" * len(differences)]
    for clips in sorted({cell.clips for cell in cells}):
        row = {cell.difference: cell for cell in cells if cell.clips == clips}
        shown = (" / ".join(f"{100 * share:.0f}" for share in row[d].verdicts.values()) for d in differences)
        rows.append(f"| {clips} | " + " | ".join(shown) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--champion-f1", type=float, default=0.8)
    parser.add_argument("--trials", type=int, default=400, help="per cell of the table")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap; fewer than the gate's, to save time"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--per-group", type=int, default=CLIPS_PER_GROUP, help="clips of a source group")
    parser.add_argument("--set", dest="also", nargs="+", action="append", default=[], metavar="KEY=VALUE",
                        help="a second policy: the default one with these keys of `gate:` changed")  # fmt: skip
    arguments = parser.parse_args()
    default = load_params(arguments.params).gate.model_copy(update={"resamples": arguments.resamples})
    policies = {"default": default}
    for changes in arguments.also:
        update = {key: float(value) for key, value in (change.split("=") for change in changes)}
        policies[" ".join(changes)] = default.model_copy(update=update)
    cells = []
    for cell in simulate(policies, sizes=tuple(arguments.sizes), differences=DIFFERENCES,
                         champion_f1=arguments.champion_f1, trials=arguments.trials, per_group=arguments.per_group):  # fmt: skip
        cells.append(cell)
        print(
            f"{cell.policy}  {cell.clips:5} clips  {cell.difference:+.2f}  {cell.verdicts}  {cell.stopped_by}",
            flush=True,
        )
    for name in policies:
        print(f"\n{name}: pass / undecided / refuse, %\n\n{table([cell for cell in cells if cell.policy == name])}")
    print(json.dumps(_summary(cells, arguments.trials, arguments.champion_f1)))


def _summary(cells: list[Cell], trials: int, champion_f1: float) -> dict[str, object]:
    own = [cell for cell in cells if cell.policy == "default"]
    return {
        "champion_f1": champion_f1, "trials": trials,
        "passes_worse_at_most": max(cell.verdicts["pass"] for cell in own if cell.difference < 0),
        "passes_0.05_worse_at_most": max(cell.verdicts["pass"] for cell in own if cell.difference <= -0.05),
        "passes_equal_at_most": max(cell.verdicts["pass"] for cell in own if cell.difference == 0),
        "refuses_better_at_most": max(cell.verdicts["refuse"] for cell in own if cell.difference > 0),
        "cells": [{"clips": cell.clips, "difference": cell.difference, **cell.verdicts} for cell in own],
    }  # fmt: skip


if __name__ == "__main__":
    main()
