"""What the demo drops into the inbox on its two nights."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.stages.upkeep import synth
from violence_ops.store.batches import is_video
from violence_ops.wording import counted

CLIPS: Final = (64, 24)
"""Labelled synthetic clips of the first and the second night."""

UNLABELLED: Final = (3, 2)
GROUPS: Final = (20, 8)
DUPLICATES: Final = 5
_LEAST_GROUPS: Final = 6


@dataclass(frozen=True, slots=True)
class Drop:
    """One night's files. `good` clips should be accepted, `duplicates` were there before, `broken` maps name to reason."""

    folder: Path
    good: int
    duplicates: int
    broken: dict[str, str]


def check(clips: Path) -> None:
    """Raise UsageError if the demo cannot run on this folder of real clips."""
    _rows(clips)


def prepare(folder: Path, clips: Path | None) -> tuple[Drop, Drop]:
    """Write both nights' drops below `folder`: synthetic clips, or copies of a folder of real ones. Raises UsageError as `check`."""
    shutil.rmtree(folder, ignore_errors=True)
    nights = (folder / "night1", folder / "night2")
    good = _real(clips.resolve(), nights) if clips else _synthetic(nights)
    broken = [synth.broken_files(night / "broken", seed) for seed, night in enumerate(nights, 1)]
    duplicates = _again(nights)
    return Drop(nights[0], good[0], 0, broken[0]), Drop(nights[1], good[1], duplicates, broken[1])


def _synthetic(nights: tuple[Path, Path]) -> tuple[int, int]:
    for number, night in enumerate(nights):
        synth.run(
            night,
            CLIPS[number],
            seed=number,
            groups=GROUPS[number],
            first_group=sum(GROUPS[:number]),
            unlabelled=UNLABELLED[number],
            with_truth=False,
        )
    return CLIPS[0] + UNLABELLED[0], CLIPS[1] + UNLABELLED[1]


def _again(nights: tuple[Path, Path]) -> int:
    """Bring some of the first night's clips again on the second, under other names."""
    clips = sorted(path for path in nights[0].rglob("*") if is_video(path) and path.parent.name != "broken")
    chosen = clips[:DUPLICATES]
    for path in chosen:
        target = nights[1] / "again" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return len(chosen)


def _real(source: Path, nights: tuple[Path, Path]) -> tuple[int, int]:
    """Two thirds of the source groups for the first night, the others for the second."""
    rows = _rows(source)
    groups = sorted({row["source_group"] for row in rows})
    late = set(groups[2::3])
    for night, chosen in zip(nights, (set(groups) - late, late), strict=True):
        _copy(source, night, [row for row in rows if row["source_group"] in chosen])
    sizes = Counter(row["source_group"] in late for row in rows)
    return sizes[False], sizes[True]


def _copy(source: Path, night: Path, rows: Iterable[dict[str, str]]) -> None:
    night.mkdir(parents=True)
    with (night / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["path", "label", "source_group"], extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            target = night / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / row["path"], target)
            writer.writerow(row)


def _rows(source: Path) -> list[dict[str, str]]:
    """Path, label and source_group of each clip, of at least `_LEAST_GROUPS` groups."""
    if not source.is_dir():
        raise UsageError(f"{source} is no folder: name one with clips.")
    rows = _read(source)
    groups = {row["source_group"] for row in rows}
    if len(groups) < _LEAST_GROUPS:
        raise UsageError(
            f"{source} has clips of {counted(len(groups), 'source group')}: the demo needs {_LEAST_GROUPS} to train, validate and evaluate."
        )
    return rows


def _read(source: Path) -> list[dict[str, str]]:
    """What labels.csv says of each clip; without one the folder is the label and a clip its own group."""
    table = source / "labels.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as handle:
            rows = [row for row in csv.DictReader(handle) if row.get("path")]
        missing = [row["path"] for row in rows if not (source / row["path"]).is_file()]
        if missing:
            raise UsageError(
                f"{table} names {missing[0]}, which is not there ({counted(len(missing), 'such row')}): mend the table."
            )
        return [row | {"source_group": row.get("source_group") or row["path"]} for row in rows]
    files = sorted(path for path in source.glob("*/*") if is_video(path))
    if not files:
        raise UsageError(
            f"{source} has no labels.csv and no <Label>/ folders with clips: there is nothing to run the demo on."
        )
    names = [str(path.relative_to(source)) for path in files]
    return [{"path": name, "label": Path(name).parts[0], "source_group": name} for name in names]
