"""Is a training worth while: can a dataset be made, and is there enough in it that the last training had not seen?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from violence_ops.errors import WorkspaceError
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.learning import assemble
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.store.labelled import Labelled, labelled_clips
from violence_ops.wording import counted
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Worth(Jsonable):
    """Whether training again makes sense, and why (not). True or false as a condition."""

    yes: bool
    reason: str

    def __bool__(self) -> bool:
        return self.yes


def run(workspace: Workspace, params: Params, *, drifted: bool = False) -> Worth:
    """Whether a dataset can be made and `train.min_new_clips` labelled clips are new, or changed their label, since the last training.

    After drift one is enough."""
    clips = labelled_clips(workspace)
    if missing := assemble.obstacle(workspace, params, clips):
        return Worth(False, missing)
    now = _trainable(workspace, params, clips)
    last = workspace.read_progress("train").get("dataset_revision")
    if last is None:
        return Worth(
            True, f"Nothing was trained yet; {counted(len(now), 'labelled clip is', 'labelled clips are')} there."
        )
    try:
        dataset = Dataset.read(workspace)
    except WorkspaceError as error:
        return Worth(True, str(error))
    if dataset.revision != last:
        return Worth(True, f"Dataset {dataset.revision[:12]} was assembled and not trained on.")
    new = len(now.items() - dataset.labels.items())
    least = 1 if drifted else max(1, params.train.min_new_clips)
    return Worth(
        new >= least,
        f"{counted(new, 'labelled clip is', 'labelled clips are')} new since the last training; {counted(least, 'makes', 'make')} it worth while.",
    )


def not_assembled(workspace: Workspace, params: Params, dataset: Dataset) -> int:
    """How many clips that a dataset could hold have got a label, or another one, since this one was assembled."""
    return len(_trainable(workspace, params, labelled_clips(workspace)).items() - dataset.labels.items())


def _trainable(workspace: Workspace, params: Params, clips: Sequence[Labelled]) -> dict[str, str]:
    """clip_id to label."""
    return {one.clip.clip_id: one.label for one in assemble.trainable(workspace, params, clips)}
