"""Which label of a clip counts, and giving clips others."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from violence_ops import git
from violence_ops.errors import WorkspaceError
from violence_ops.files import load_table
from violence_ops.records import Label
from violence_ops.store import batches
from violence_ops.store.index import open_catalog
from violence_ops.store.labels_file import LabelSource, in_force, record
from violence_ops.wording import counted, printable
from violence_ops.workspace import Workspace

_log = logging.getLogger(__name__)


def effective_labels(workspace: Workspace) -> dict[str, tuple[Label, LabelSource]]:
    """Every labelled clip of the sealed and open batches: clip_id to label and where it came from.

    The source is `inbox` (folder or labels.csv at arrival), or `label` or `review` (a person said so later); data/labels.csv wins.
    An open batch that cannot be read is logged and left out: its own stages fail.
    """
    known: dict[str, tuple[Label, LabelSource]] = {}
    for batch in workspace.sealed_batches():
        table = load_table(batch.table("clips"), columns=["clip_id", "label"])
        known |= {row["clip_id"]: (row["label"], "inbox") for row in table.to_pylist() if row["label"]}
    for batch_id in batches.open_batch_ids(workspace):
        try:
            clips = batches.read_manifest(workspace.batch(batch_id)).clips
        except WorkspaceError as error:
            _log.warning("Labels that came with batch %s are not counted: %s", batch_id, error)
            continue
        known |= {clip.clip_id: (clip.label, "inbox") for clip in clips if clip.label}
    return known | {clip_id: (row.label, row.source) for clip_id, row in in_force(workspace).items()}


def relabelled(workspace: Workspace, then: Mapping[str, Label | None]) -> tuple[str, ...]:
    """Those clips of `then`, clip_id to the label that each had, which have another one by now."""
    now = effective_labels(workspace)
    return tuple(clip_id for clip_id, label in then.items() if clip_id in now and now[clip_id][0] != label)


def give(workspace: Workspace, wanted: Mapping[str, Label], by: str, source: LabelSource) -> int | None:
    """Write labels of known clips as a new version of data/labels.csv, and into the catalog; returns the version, None if all
    of it was said before. Can be repeated after a crash. Raises WorkspaceError, writing nothing, if git is on no branch."""
    git.check_branch(workspace)
    version = record(workspace, wanted, by, source)
    with open_catalog(workspace) as catalog:
        catalog.set_labels(wanted)
    message = f"Labels of {counted(len(wanted), 'clip')} by {printable(by)}" + (
        f", version {version}" if version else ""
    )
    git.commit(workspace, [workspace.labels_file], message)
    return version
