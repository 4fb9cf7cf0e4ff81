"""What the clips of a batch were measured with: where night and reference differ in it, no world need have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from violence_ops.evaluation.drift import QUANTITIES
from violence_ops.stages.inspection.findings import changes
from violence_ops.stages.nightly.extract_poses import NO_MATTER
from violence_ops.store.batches import Manifest

Settings = dict[str, dict[str, Any]]
"""Sections and their keys, as in params.yaml, and `pose_weights`."""

_SHOWS_IN: Final = {
    "pose_weights": tuple(QUANTITIES),
    "pose": tuple(QUANTITIES),
    "tracking": ("track_s", "involvement", "probability"),
    "involvement": ("involvement", "probability"),
}
"""The quantities that depend on a section."""


def measured_with(manifest: Manifest) -> Settings:
    """What a batch records of how its clips were measured; of presets the chosen one."""
    recorded = manifest.facts["params"]
    involvement = recorded["involvement"]
    chosen = {"presets": involvement["presets"][involvement["preset"]]}
    chosen["region_presets"] = involvement["region_presets"][involvement["regions"]]
    return {
        "pose_weights": {"sha256": manifest.facts["pose_weights"]["sha256"]},
        "pose": {key: value for key, value in recorded["pose"].items() if key not in NO_MATTER},
        "tracking": recorded["tracking"],
        "involvement": involvement | chosen,
    }


def confounded(night: Settings, reference: Sequence[Settings]) -> frozenset[str]:
    """The quantities that no batch of the reference measured as the night did, so that nobody can tell why they differ."""
    sections = (name for name in _SHOWS_IN if all(_differing(name, one, night) for one in reference))
    return frozenset(quantity for name in sections for quantity in _SHOWS_IN[name])


def notes(night: Settings, reference: Sequence[Settings], weights: str) -> Iterator[str]:
    """Sentences for people on what differs and where it shows; `weights` names those of the night."""
    for section, quantities in _SHOWS_IN.items():
        differing = [_differing(section, one, night) for one in reference]
        told = list(dict.fromkeys(text for texts in differing for text in texts))
        if not told:
            continue
        if section == "pose_weights":
            what = f"The night's poses were found by {weights}, those of the training by other weights"
        else:
            what = f"Clips of the training were annotated with other settings ({'; '.join(told)})"
        everything = len(quantities) == len(QUANTITIES)
        where = "every quantity" if everything else ", ".join(QUANTITIES[one] for one in quantities)
        effect = ", so it starts no training" if all(differing) else ""
        yield f"{what}: that may explain drift in {where}{effect}."


def _differing(section: str, then: Settings, now: Settings) -> list[str]:
    """The keys of a section that both record and that differ, with their values."""
    keys = then[section].keys() & now[section].keys()
    return changes((f"{section}.{key}" for key in keys), then, now)
