"""How often is the verdict right on real surveillance clips that the classifier has not seen? (docs/learning.md)

    python -m benchmarks.accuracy [--families NAME ...] [--poses own|teacher] [--synthetic 40] [--data FOLDER] [--quick]

Five-fold cross-validation by source group on the Surveillance Camera Fight Dataset (Aktı et al. 2019): clips of one source never lie
on both sides. Within the training folds, a fourth of the source groups is the validation that chooses epochs and thresholds, as
`assemble` and `train` do it; nothing else of a model is chosen by looking at clips. Accuracy is counted at 0.5 and, as
`own threshold`, at the one that validation chose. Intervals are 95 % of a bootstrap over source groups. Beside the project's families
stands scikit-learn's random forest on the same clips' features with all training folds, which chooses nothing. An ensemble (`a+b`) is
the mean of the probabilities of the families named; the best by AUC is named in `surv.family`, which flatters it a little where
several compete, as the judged clips themselves choose.

Then the same families are trained on synthetic clips, and judge synthetic clips of other source groups (`--synthetic 0` leaves it
out). `--poses teacher` finds people with the two models in the shared folder instead, to say what limits the figures. Poses are kept in
the temporary folder by the hash of what found them. The last line is JSON.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.accuracy_clips import SHARED, Example, drawn, surveillance
from violence_ops.errors import UserError
from violence_ops.params import Params, load_params
from violence_ops.recognition import by_features, ensemble
from violence_ops.recognition.families import fit
from violence_ops.recognition.package import Package
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton, from_tracks
from violence_ops.recognition.split import Member, bundles, choose

FOLDS, SEED, RESAMPLES = 5, 0, 2000
_FROM_SCRATCH: dict[str, Any] = {"start": None, "epochs": 20, "min_epochs": 10, "lr_steps": (14,)}
FAMILIES: dict[str, dict[str, Any]] = {
    "feature_line": {},
    "feature_forest": {},
    "stgcnpp": {},
    "stgcnpp_two_streams": {},
    "skeleton_transformer": _FROM_SCRATCH | {"learning_rate": 0.03},
    "fusion_transformer": _FROM_SCRATCH
    | {"learning_rate": 0.01, "mixup": 0.4, "label_smoothing": 0.1, "weight_decay": 0.001},
}
"""What is tried, with the `train` parameters that differ from params.yaml."""
BASELINE = "random forest (scikit-learn)"


class Judged:
    """Clips with labels, and each classifier's probabilities and verdicts on clips that it was not trained on."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.fights = np.array([one.is_fight for one in examples])
        self.groups = np.array([one.source_group for one in examples])
        self.probabilities: dict[str, np.ndarray] = {}
        self.verdicts: dict[str, np.ndarray] = {}

    def add(self, name: str, probabilities: np.ndarray, verdicts: np.ndarray | None = None) -> None:
        self.probabilities[name] = probabilities
        self.verdicts[name] = probabilities > 0.5 if verdicts is None else verdicts

    def only(self, rows: np.ndarray) -> Judged:
        """These clips alone."""
        self.fights, self.groups = self.fights[rows], self.groups[rows]
        for kept in (self.probabilities, self.verdicts):
            kept.update({name: values[rows] for name, values in kept.items()})
        return self

    def figures(self, name: str) -> dict[str, Any]:
        """Accuracy, F1 and AUC with intervals, and the accuracy at the thresholds that validation chose."""
        own = float((self.verdicts[name] == self.fights).mean())
        return self._scores(name) | {"own_threshold_accuracy": round(own, 4)}

    def _scores(self, name: str) -> dict[str, Any]:
        rng, values = np.random.default_rng(SEED), self.probabilities[name]
        members = [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]
        drawn = [
            np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]) for _ in range(RESAMPLES)
        ]
        found = {}
        for title, score in _SCORES.items():
            some = [score(self.fights[rows], values[rows]) for rows in drawn if len(set(self.fights[rows])) == 2]
            found[title] = round(float(score(self.fights, values)), 4)
            found[f"{title}_interval"] = [round(float(end), 3) for end in np.quantile(some, [0.025, 0.975])]
        return found


_SCORES = {
    "accuracy": lambda fights, values: np.mean((values > 0.5) == fights),
    "f1": lambda fights, values: f1_score(fights, values > 0.5),
    "auc": lambda fights, values: auc(fights, values),
}


def auc(fights: np.ndarray, values: np.ndarray) -> float:
    """Area under the ROC curve, by ranks: scikit-learn's takes a millisecond, which 2,000 resamples of ten rows feel."""
    order, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    positive = int(fights.sum())
    return float((ranks[fights].sum() - positive * (positive + 1) / 2) / (positive * (len(fights) - positive)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--poses", choices=("own", "teacher"), default="own")
    parser.add_argument("--data", type=Path, default=SHARED / "surv_fight", help="folder with labels.csv")
    parser.add_argument("--synthetic", type=int, default=40, help="synthetic clips to be judged; as many again train")
    parser.add_argument(
        "--seeds", type=int, default=1, help="networks trained per fold, whose probabilities are averaged"
    )
    parser.add_argument("--quick", action="store_true", help="two epochs and two folds: does it run?")
    arguments = parser.parse_args()
    started = time.perf_counter()
    try:
        result = _measured(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result | {"poses": arguments.poses, "seconds": round(time.perf_counter() - started)}))
    return 0


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    params = params_for(arguments.poses)
    examples = surveillance(params, arguments.data)
    judged = _cross_validated(examples, params, arguments)
    table = {name: judged.figures(name) for name in judged.probabilities}
    print(f"{len(judged.fights)} clips of {len(set(judged.groups))} source groups, poses: {arguments.poses}")
    _print(table)
    best = max((name for name in table if name != BASELINE), key=lambda name: table[name]["auc"])
    result = {f"surv.{name}": table[best][name] for name in _SCORES}
    result |= {"surv.family": best} | {f"forest.{name}": table[BASELINE][name] for name in _SCORES}
    if arguments.synthetic:
        synthetic = _synthetic(best.split("+"), params, arguments)
        _print({"synthetic, held out": synthetic})
        result |= {f"synthetic.{name}": synthetic[name] for name in _SCORES}
    return result | {"all": table}


def params_for(poses: str) -> Params:
    """Those that a workspace starts with, at one pace for all clips; the forest looks at four persons, networks at two."""
    changes: dict[str, Any] = {"windows.frames_per_second": 15.0, "windows.persons": 4}
    if poses == "teacher":
        teachers = SHARED / "teachers"
        joints = teachers / "movenet_singlepose_lightning_int8_4.tflite"
        changes |= {
            "pose.source": "topdown",
            "pose.detector": str(teachers / "yolox_nano.onnx"),
            "pose.keypoints": str(joints),
        }
    with as_file(files("violence_ops") / "template" / "params.yaml") as shipped:
        return load_params(shipped, changes)


def _cross_validated(examples: Sequence[Example], params: Params, arguments: argparse.Namespace) -> Judged:
    judged = Judged(examples)
    skeletons = skeletons_of(examples, params)
    folds = folds_of(judged)[: 2 if arguments.quick else FOLDS]
    judged.add(BASELINE, _baseline(skeletons, judged.fights, folds))
    for family in arguments.families:
        probabilities, verdicts = np.full(len(examples), 0.5), np.zeros(len(examples), bool)
        for number, (train, test) in enumerate(folds):
            packages = trained_on(
                family, [examples[i] for i in train], [skeletons[i] for i in train], params, arguments
            )
            found = np.array([[predict_skeleton(one, skeletons[i]).probability for i in test] for one in packages])
            limits = np.array([[one.threshold] for one in packages])
            probabilities[test], verdicts[test] = found.mean(axis=0), (found > limits).mean(axis=0) > 0.5
            print(f"\r{family}: fold {number + 1} of {len(folds)} ", end="", file=sys.stderr, flush=True)
        judged.add(family, probabilities, verdicts)
        print(f"AUC {auc(judged.fights, probabilities):.3f}", file=sys.stderr, flush=True)
    for size in range(2, len(arguments.families) + 1):
        for some in combinations(arguments.families, size):
            judged.add("+".join(some), np.mean([judged.probabilities[name] for name in some], axis=0))
    print(file=sys.stderr)
    return judged.only(np.sort(np.concatenate([test for _, test in folds])))


def folds_of(judged: Judged) -> list[Any]:
    """The rows that train and those that are judged, once for each fold."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(folds.split(judged.fights, judged.fights, judged.groups))


def skeletons_of(examples: Sequence[Example], params: Params) -> list[Skeleton]:
    return [from_tracks(one.tracks, params.windows.persons, params.windows.frames_per_second) for one in examples]


def _baseline(skeletons: Sequence[Skeleton], fights: np.ndarray, folds: Sequence[Any]) -> np.ndarray:
    """A plain random forest on the features of whole clips."""
    values = np.concatenate([by_features.inputs(one, [(0, one.frames)]) for one in skeletons])
    probabilities = np.full(len(fights), 0.5)
    for train, test in folds:
        model = RandomForestClassifier(400, min_samples_leaf=2, class_weight="balanced", random_state=SEED)
        probabilities[test] = model.fit(values[train], fights[train]).predict_proba(values[test])[:, 1]
    return probabilities


def trained_on(
    family: str,
    examples: Sequence[Example],
    skeletons: Sequence[Skeleton],
    params: Params,
    arguments: argparse.Namespace,
) -> list[Package]:
    """The family, trained on these clips; a share of their source groups is kept for validation."""
    labels = {one.clip_id: example.label for one, example in zip(skeletons, examples, strict=True)}
    members = [Member(one.tracks.clip_id, one.label, one.source_group) for one in examples]
    held = choose(bundles(members, 0), params.dataset.validation_share, SEED, "validation")
    validation = {member.clip_id for family_of in held for member in family_of}
    train = [one for one in skeletons if one.clip_id not in validation]
    val = [one for one in skeletons if one.clip_id in validation]
    found = []
    for seed in range(arguments.seeds):
        changes = {"family": family, "seed": seed} | FAMILIES.get(family, {})
        changes |= {"epochs": 2, "min_epochs": 0} if arguments.quick else {}
        chosen = params.train.model_copy(update=changes)
        trained = fit(train, val, labels, chosen, params.windows)
        found.append(Package(trained.settings, trained.threshold, ensemble.build(trained.settings, trained.state)))
    return found


def _synthetic(families: Sequence[str], params: Params, arguments: argparse.Namespace) -> dict[str, Any]:
    """Half of the synthetic clips train the families, the other half, of other source groups, are judged."""
    examples = drawn(params, 2 * arguments.synthetic)
    skeletons = skeletons_of(examples, params)
    count = arguments.synthetic
    judged = Judged(examples[count:])
    found = []
    for family in families:
        packages = trained_on(family, examples[:count], skeletons[:count], params, arguments)
        found += [[predict_skeleton(one, clip).probability for clip in skeletons[count:]] for one in packages]
    judged.add("synthetic", np.mean(found, axis=0))
    return judged.figures("synthetic")


def _print(table: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, table))
    print(f"{'':<{width}}  {'accuracy':>20}  {'F1':>20}  {'AUC':>20}  own threshold")
    for name, row in table.items():
        cells = (
            f"{row[score]:.3f} ({row[f'{score}_interval'][0]:.2f}-{row[f'{score}_interval'][1]:.2f})"
            for score in _SCORES
        )
        print(
            f"{name:<{width}}  " + "  ".join(f"{cell:>20}" for cell in cells) + f"  {row['own_threshold_accuracy']:.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
