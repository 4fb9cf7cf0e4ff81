"""`dataset export`: the assembled dataset for MMAction2's own tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_ops.errors import ParamsError, UsageError
from violence_ops.files import atomic_path
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params, export_fault
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ExportResult(Jsonable):
    """The files, which dataset they were made from, and how many views of windows each side has."""

    pose_dataset: str
    config: str
    start: str | None
    dataset_revision: str
    windows: dict[str, int]


@dataclass(frozen=True, slots=True)
class ClipsResult(Jsonable):
    """The file, which dataset it was made from, and how many clips each side has."""

    pose_dataset: str
    dataset_revision: str
    clips: dict[str, int]


def run(workspace: Workspace, params: Params, out: Path) -> ExportResult:
    """Write `pose_dataset.pkl`, with the splits train and val, and `<family>.py`, which MMAction2 trains with as it is; it begins
    with `start.pth` if there is a `train.start`.

    An annotation is a view of a window, as the classifier sees it. Raises WorkspaceError if there is no dataset or it was assembled with
    other settings, UsageError if `out` holds these files already, ParamsError if train.family is no network of MMAction2 or
    train.start does not fit it.
    """
    if fault := export_fault(params.train.family):
        raise ParamsError(f"{fault}.")
    from violence_ops.recognition import families, mmaction_config
    from violence_ops.recognition.export import window_dataset
    from violence_ops.recognition.model import Settings

    pickle, config, checkpoint = (
        out / name for name in (mmaction_config.PICKLE, f"{params.train.family}.py", mmaction_config.CHECKPOINT)
    )
    if pickle.exists() or config.exists() or checkpoint.exists():
        raise UsageError(f"{out} holds an export already: name another folder.")
    dataset = Dataset.read(workspace, params)
    settings = Settings.of(params.train, params.windows)
    start = families.begins_with(params.train, params.windows)
    content, counts = window_dataset(
        dataset.skeletons(), dataset.labels, _split(dataset), params.windows, mmaction_config.persons(settings),
        {"train": mmaction_config.max_windows_per_clip(settings)},
    )  # fmt: skip
    with atomic_path(pickle) as temporary:
        temporary.write_bytes(content)
    mmaction_config.write(config, settings, params.train, start)
    begins_with = str(checkpoint) if start else None
    return ExportResult(str(pickle), str(config), begins_with, dataset.revision, counts)


def whole_clips(workspace: Workspace, out: Path) -> ClipsResult:
    """Write `pose_dataset.pkl` with whole clips, uncut, in the splits train and val: for configurations that cut them on their own.

    Raises WorkspaceError if there is no dataset, UsageError if `out` holds the file already.
    """
    from violence_ops.recognition.export import pose_dataset
    from violence_ops.recognition.mmaction_config import PICKLE

    if (out / PICKLE).exists():
        raise UsageError(f"{out} holds an export already: name another folder.")
    dataset = Dataset.read(workspace)
    split = _split(dataset)
    skeletons = [skeleton for _, skeleton in sorted(dataset.skeletons().items())]
    with atomic_path(out / PICKLE) as temporary:
        temporary.write_bytes(pose_dataset(skeletons, dataset.labels, split))
    return ClipsResult(str(out / PICKLE), dataset.revision, {side: len(clip_ids) for side, clip_ids in split.items()})


def _split(dataset: Dataset) -> dict[str, list[str]]:
    """The clips of each side."""
    return {
        side: table.column("clip_id").to_pylist() for side, table in (("train", dataset.train), ("val", dataset.val))
    }
