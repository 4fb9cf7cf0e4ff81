"""Are the two fighters ranks 1 and 2? Synthetic fights with bystanders, by preset and by component (SPEC 5, docs/involvement.md).

    python -m benchmarks.involvement [--true 120] [--extracted 60] [--world 34] [--weights NAME]

Counted are clips of which the tracks ranked 1 and 2 are one of each fighter. With extracted poses, what cannot be won is
shown too: `both found` is the share of clips in which the tracker has a track of each fighter at all, and which alone says
how good poses and tracking are; below the table stands what is wrong with the rest. Presets were chosen in worlds 31 and 33 and are reported in world 34: other scenes, people, motions;
no pose weights were trained in any. The best preset is that with the best mean of both columns, with the other
parameters as shipped. The last line is JSON: the figures of the default on top. Extraction is kept in the temporary folder
by the hash of the weights, so a second run takes a minute and new weights are looked at anew.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
from collections import Counter
from importlib.resources import as_file, files
from typing import Any

import numpy as np

from benchmarks.involvement_clips import REPORT_WORLD, Fight, with_extracted_poses, with_true_poses
from violence_ops.errors import UserError
from violence_ops.involvement import rank
from violence_ops.params import CompositeWeights, InvolvementParams, Params, load_params
from violence_ops.records import COMPONENTS

Row = tuple[str, InvolvementParams]
RIGHT = "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--true", type=int, default=120, help="clips with true poses")
    parser.add_argument("--extracted", type=int, default=60, help="clips with extracted poses")
    parser.add_argument("--world", type=int, default=REPORT_WORLD)
    parser.add_argument("--weights", help="pose weights: a name or a .safetensors file; the default's otherwise")
    arguments = parser.parse_args()
    try:
        params = _params(arguments.weights)
        clips = {
            "true": with_true_poses(arguments.true, arguments.world, params),
            "extracted": with_extracted_poses(arguments.extracted, arguments.world, params),
        }
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    shares = {title: _shares(clips, row) for title, row in _rows(params.involvement)}
    print(_table(shares))
    outcomes = Counter(_outcome(fight, params.involvement) for fight in clips["extracted"])
    print("\n".join(f"extracted: {what:<29}{count:>12}" for what, count in outcomes.most_common()))
    presets = {name: shares[name] for name in params.involvement.presets}
    best = max(presets, key=lambda name: sum(presets[name].values()))
    default = presets[params.involvement.preset]
    found = sum(all(fight.fighters) for fight in clips["extracted"]) / len(clips["extracted"])
    result = {
        "top2_true_poses": default["true"], "top2_extracted": default["extracted"], "both_found_extracted": round(found, 4),
        "top2_of_both_found": round(default["extracted"] / found, 4) if found else None,
        "preset": params.involvement.preset, "best_preset": best, "world": arguments.world, "pose_weights": params.pose.weights,
        "outcomes_extracted": dict(outcomes.most_common()),
        "clips": {name: len(fights) for name, fights in clips.items()}, "all": shares,
    }  # fmt: skip
    print(json.dumps(result))
    return 0


def _params(weights: str | None) -> Params:
    """Those that a workspace starts with."""
    with as_file(files("violence_ops") / "template" / "params.yaml") as shipped:
        return load_params(shipped, {"pose.weights": weights} if weights else None)


def _rows(shipped: InvolvementParams) -> list[Row]:
    """What is compared: titles and parameters."""
    rows = [(name, shipped.model_copy(update={"preset": name})) for name in shipped.presets]
    rows += [
        (f"{title}, position {form}, {'heights' if scaled else 'pixels'}",
         row.model_copy(update={"position_form": form, "scale_normalised": scaled}))
        for title, row in rows[:] if row.composite_weights.position
        for form in ("frame", "track") for scaled in (True, False)
        if (form, scaled) != (shipped.position_form, shipped.scale_normalised)
    ]  # fmt: skip
    rows += [
        (f"{name}, persistence {share}",
         shipped.model_copy(update={"preset": name, "persistence_weight": share}))
        for name in shipped.presets for share in (0.0, 0.15) if share != shipped.persistence_weight
    ]  # fmt: skip
    names = [name for name in COMPONENTS if name not in ("persistence", "partner")]
    rows += [(f"only {name}", _weighted(shipped, {name: 1.0})) for name in names]
    rows.append(("only persistence", _weighted(shipped, {"detection": 1.0}, persistence_weight=1.0)))
    every = dict.fromkeys([*names, "partner"], 1.0)
    rows.append(("all, alike", _weighted(shipped, every)))
    rows += [(f"all but {name}", _weighted(shipped, every | {name: 0.0})) for name in every]
    chosen = {name: share for name, share in shipped.composite_weights.model_dump().items() if share}
    return rows + [(f"{shipped.preset} but {name}", _weighted(shipped, chosen | {name: 0.0})) for name in chosen]


def _weighted(shipped: InvolvementParams, weights: dict[str, float], **changes: Any) -> InvolvementParams:
    total = sum(weights.values())
    preset = CompositeWeights(**{name: weight / total for name, weight in weights.items()})
    return shipped.model_copy(update={"preset": "tried", "presets": {"tried": preset}} | changes)


def _shares(clips: dict[str, list[Fight]], params: InvolvementParams) -> dict[str, float]:
    return {
        name: round(sum(_found(fight, params) for fight in fights) / len(fights), 4) for name, fights in clips.items()
    }


def _found(fight: Fight, params: InvolvementParams) -> bool:
    return _outcome(fight, params) == RIGHT


def _outcome(fight: Fight, params: InvolvementParams) -> str:
    """Whether the clip is right, else what stands in the way."""
    ranked = rank(fight.tracks, params, frames=fight.frames)
    top = [track for place in (1, 2) for track in np.unique(ranked.track_id[ranked.rank == place]).tolist()]
    whose = [next((number for number, own in enumerate(fight.fighters) if track in own), None) for track in top]
    if sorted(whose, key=str) == [0, 1]:
        return RIGHT
    if not all(fight.fighters):
        return "a fighter has no track"
    if len(top) < 2:
        return "fewer than two are ranked"
    if whose[0] == whose[1]:
        return "one fighter twice" if whose[0] is not None else "two others"
    return "a fighter and somebody else"


def _table(shares: dict[str, dict[str, float]]) -> str:
    lines = [f"{'fighters are ranks 1 and 2':<40}{'true poses':>12}{'extracted':>12}"]
    return "\n".join(
        lines + [f"{title:<40}{row['true']:>12.1%}{row['extracted']:>12.1%}" for title, row in shares.items()]
    )


if __name__ == "__main__":
    sys.exit(main())
