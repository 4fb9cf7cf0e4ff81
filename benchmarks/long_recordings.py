"""What can be said of a long recording with one short fight in it, or none? (docs/involvement.md)

    python -m benchmarks.long_recordings [--family stgcnpp] [--pieces 3 6 18 60] [--data FOLDER] [--quick]

Recordings are put together from real clips that the classifier was not trained on (the folds of `benchmarks.accuracy`): each clip is
one piece, all quiet but at most one. Compared are the verdict of SPEC 8, the vote of all windows, and its peer, the highest of the
pieces' own votes: their AUC, and how often either is above 0.5 with a fight and without. `found` is how often the highest piece is the
fight, which by chance is once in so many pieces; it is what `explain` and `predict` list the pieces for. The clips show different
scenes, so the quiet pieces differ more than those of one camera. The last line is JSON, with the machine's load.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import SEED, Judged, auc, folds_of, params_for, skeletons_of, trained_on
from benchmarks.accuracy_clips import SHARED, surveillance
from violence_ops.errors import UserError
from violence_ops.recognition import vote
from violence_ops.recognition.predict import ClipPrediction, predict_skeleton

RECORDINGS = 4000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="stgcnpp")
    parser.add_argument("--pieces", type=int, nargs="+", default=[3, 6, 18, 60])
    parser.add_argument("--data", type=Path, default=SHARED / "surv_fight", help="folder with labels.csv")
    parser.add_argument("--quick", action="store_true", help="two epochs: does it run?")
    arguments = parser.parse_args()
    try:
        tested, said = _judged(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    found = {str(count): _figures(tested, said, count) for count in arguments.pieces}
    print(f"{'pieces':>6}  {'AUC of the vote':>15}  {'highest':>7}  {'> 0.5: vote':>13}  {'highest':>13}  found")
    for count, row in found.items():
        cells = (f"{row[f'{name}_fight']:.2f} / {row[f'{name}_quiet']:.2f}" for name in ("vote", "highest"))
        print(
            f"{count:>6}  {row['vote_auc']:15.3f}  {row['highest_auc']:7.3f}  "
            + "  ".join(f"{cell:>13}" for cell in cells)
            + f"  {row['found']:.2f}"
        )
    load = [round(value, 2) for value in os.getloadavg()]
    print(json.dumps({"family": arguments.family, "by_pieces": found, "load": load}))
    return 0


def _judged(arguments: argparse.Namespace) -> tuple[list[Any], list[ClipPrediction]]:
    """The rows of the fights and of the quiet clips that each fold judges, and what was said of every clip."""
    params = params_for("own")
    examples = surveillance(params, arguments.data)
    skeletons, clips = skeletons_of(examples, params), Judged(examples)
    arguments.seeds = 1
    said: dict[int, ClipPrediction] = {}
    tested = []
    for train, test in folds_of(clips):
        some = [examples[i] for i in train], [skeletons[i] for i in train]
        (package,) = trained_on(arguments.family, *some, params, arguments)
        said |= {int(i): predict_skeleton(package, skeletons[i]) for i in test}
        tested.append((test[clips.fights[test]], test[~clips.fights[test]]))
        print(f"\rfold {len(tested)} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tested, [said[i] for i in range(len(examples))]


def _figures(tested: list[Any], said: list[ClipPrediction], count: int) -> dict[str, float]:
    rng = np.random.default_rng(SEED)
    fights = np.arange(RECORDINGS) % 2 == 0
    votes, highest, found = np.zeros(RECORDINGS), np.zeros(RECORDINGS), []
    for number, fight in enumerate(fights):
        some, quiet = tested[rng.integers(len(tested))]
        rows = [said[i] for i in rng.choice(quiet, count - fight)] + ([said[rng.choice(some)]] if fight else [])
        windows = [
            np.concatenate(parts) for parts in zip(*((one.probabilities, one.weights) for one in rows), strict=True)
        ]
        pieces = np.array([one.probability for one in rows])
        votes[number], highest[number] = vote.clip_probability(*windows), pieces.max()
        if fight:
            found.append(pieces[-1] > pieces[:-1].max(initial=-1.0))
    result = {"found": np.mean(found)}
    for name, values in (("vote", votes), ("highest", highest)):
        above = values > 0.5
        result |= {
            f"{name}_auc": auc(fights, values),
            f"{name}_fight": above[fights].mean(),
            f"{name}_quiet": above[~fights].mean(),
        }
    return {name: round(float(value), 3) for name, value in result.items()}


if __name__ == "__main__":
    sys.exit(main())
