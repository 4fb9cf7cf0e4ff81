"""Lineage, both ways: what made a model; which models saw a clip or a batch, and what its deletion would redo."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import pyarrow.compute as pc

from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.files import load_table
from violence_ops.folders import Batch
from violence_ops.stages.provenance import traces
from violence_ops.stages.provenance.lineage_records import (
    BatchLineage,
    ClipLineage,
    ForgottenLineage,
    ModelLineage,
    Redo,
)
from violence_ops.stages.releasing.reports import read as read_report
from violence_ops.store import batch_names, batches, clip_names, releases, tombstones, trained_on
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels
from violence_ops.store.labels_file import in_force
from violence_ops.store.releases import REPORT_TAG, open_registry
from violence_ops.workspace import Workspace

_MODEL: Final = re.compile(r"[0-9]{1,9}")


Answer = ModelLineage | ClipLineage | BatchLineage | ForgottenLineage


def run(workspace: Workspace, name: str) -> Answer:
    """The lineage of a model (a version, `champion`, `candidate`), a batch (its id or the beginning of it) or a clip
    (see `clip_names`).

    Raises UsageError if nothing is called so, or several are; WorkspaceError if there is no champion or candidate yet;
    ServiceUnavailable if MLflow or the catalog cannot be reached.
    """
    found = list(_called(workspace, name))
    if not found:
        raise UsageError(
            f"No model, clip or batch is called {name[:200]!r}: give a model's version, `champion` or `candidate`, or the "
            f"beginning of a batch's id; of a clip, {clip_names.WAYS}."
        )
    if len(found) > 1:
        raise UsageError(f"{name!r} may be {clip_names.either([shown for _, _, shown in found])}: write more of it.")
    ((kind, one, _),) = found
    answers: dict[str, Callable[[Workspace, str], Answer]] = {
        "model": _model, "clip": _clip, "batch": _batch, "forgotten clip": _forgotten,
    }  # fmt: skip
    return answers[kind](workspace, one)


def redo(rows: dict[str, int], found: traces.Traces) -> Redo:
    """What a deletion would redo, given the rows that it takes from tables."""
    return Redo(
        rows, found.dataset_revisions, found.holdouts, tuple(model.version for model in found.models), found.silent_models,
        found.evaluations,
    )  # fmt: skip


def rows_of(batch: Batch, clip_ids: Collection[str] | None = None) -> dict[str, int]:
    """How many rows of each table of a batch are these clips', or all (of an open batch, which may change: none)."""
    if not batch.is_sealed:
        counts = {name: sum(batches.part_rows(batch, name, one) for one in clip_ids or ()) for name in batches.TABLES}
        return counts if clip_ids else {}
    if clip_ids is None:
        return {name: batches.row_count(batch.table(name)) for name in batches.TABLES}
    chosen = [("clip_id", "in", list(clip_ids))]
    return {
        name: load_table(batch.table(name), columns=["clip_id"], filters=chosen).num_rows for name in batches.TABLES
    }


def scored_by(batch: Batch, clip_ids: Collection[str] | None = None) -> tuple[str, ...]:
    """The models whose verdicts a batch holds, of these clips or of all."""
    wanted = None if clip_ids is None else [("clip_id", "in", list(clip_ids))]
    if batch.is_sealed:
        tables = [load_table(batch.table("predictions"), columns=["model_version"], filters=wanted)]
    else:
        parts = [batch.part("predictions", clip_id) for clip_id in clip_ids or ()]
        tables = [load_table(part, columns=["model_version"]) for part in parts if part.is_file()]
    versions = {version for table in tables for version in pc.unique(table.column("model_version")).to_pylist()}
    return tuple(sorted(version for version in versions if version))


def _called(workspace: Workspace, name: str) -> Iterator[tuple[str, str, str]]:
    """What the name may mean: its kind, its id, and how it is listed."""
    others = [(kind, one, f"{kind} {one}") for kind, one in _models_and_batches(workspace, name)]
    yield from others
    if clip_names.is_beginning(name) or not others:
        for clip in clip_names.called(workspace, name):
            kind = "forgotten clip" if clip.status == clip_names.FORGOTTEN else "clip"
            yield kind, clip.clip_id, clip_names.described(clip)


def _models_and_batches(workspace: Workspace, name: str) -> Iterator[tuple[str, str]]:
    registry = open_registry(workspace)
    if name in (releases.CHAMPION, releases.CANDIDATE):
        version = releases.champion(workspace) if name == releases.CHAMPION else registry.alias(name)
        if version is None:
            raise WorkspaceError(f"There is no {name} yet: `violence-ops status` shows what there is.")
        yield "model", version
        return
    if _MODEL.fullmatch(name):
        yield from (("model", one.version) for one in registry.versions() if one.version == name)
    yield from (("batch", one) for one in batch_names.called(workspace, name))


def _forgotten(workspace: Workspace, clip_id: str) -> ForgottenLineage:
    found = traces.find(workspace, [clip_id])
    # a training that ran meanwhile may have made another
    models = {*tombstones.read(workspace, clip_id)["models"], *(model.version for model in found.models)}
    return ForgottenLineage(tombstones.read(workspace, clip_id) | {"models": sorted(models, key=int)})


def _model(workspace: Workspace, version: str) -> ModelLineage:
    registry = open_registry(workspace)
    tags = registry.tags(version)
    record = trained_on.read(workspace, version)
    rows = _with_batches(workspace, record["clips"])
    used = Counter(row["batch_id"] for row in rows if row["batch_id"])
    report, judged = tags.get(REPORT_TAG), None
    if report and workspace.report(report).evaluation.is_file():
        evaluation = read_report(workspace.report(report)).evaluation
        judged = {"report": report, "holdout": evaluation.holdout.version, "clips": len(evaluation.clips)}
    recorded = (
        "code_revision",
        "workspace_revision",
        "pose_weights",
        "start",
        "trained_in",
        "family",
        "holdout",
        "holdout_revision",
    )
    return ModelLineage(
        version=version, aliases=traces.aliases(workspace).get(version, ()), dataset_revision=record["dataset_revision"],
        facts={key: tags[key] for key in recorded if key in tags}, judged=judged,
        batches=tuple(_source(workspace.batch(batch_id), count) for batch_id, count in sorted(used.items())), clips=tuple(rows),
    )  # fmt: skip


def _with_batches(workspace: Workspace, clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of training.json; an old one does not name batches, but the catalog does."""
    missing = [row["clip_id"] for row in clips if "batch_id" not in row]
    homes: dict[str, str | None] = {}
    if missing:
        with open_catalog(workspace) as catalog:
            homes = {clip_id: clip.batch_id for clip_id, clip in catalog.find(missing).items()}
    named = ({"batch_id": homes.get(row["clip_id"])} | row for row in clips)
    return [{key: value for key, value in row.items() if key != "perceptual_hash"} for row in named]


def _source(batch: Batch, clips: int) -> dict[str, Any]:
    """What batch.json says of the batch that `clips` of a model's clips came with."""
    known = {"batch_id": batch.batch_id, "clips": clips}
    if not batch.is_sealed:
        return known | {"night": batch.night, "pose_weights": None, "code_revision": None}
    manifest = batches.read_manifest(batch)
    facts = {key: manifest.facts.get(key) for key in ("pose_weights", "code_revision")}
    return known | {"night": manifest.night} | facts


def _clip(workspace: Workspace, clip_id: str) -> ClipLineage:
    with open_catalog(workspace) as catalog:
        known = catalog.find([clip_id])[clip_id]
    found = traces.find(workspace, [clip_id])
    batch = workspace.batch(known.batch_id) if known.batch_id else None
    label, source = effective_labels(workspace).get(clip_id, (None, None))
    given = in_force(workspace).get(clip_id)
    rows = rows_of(batch, [clip_id]) if batch else {}
    return ClipLineage(
        clip_id=clip_id, batch_id=known.batch_id, status=known.status, source_path=known.source_path, label=label,
        label_source=source, labelled_by=given.by if given else None, labelled_at=given.at if given else None,
        trained=tuple(_use(model) for model in found.models), judged=found.judged,
        scored=scored_by(batch, [clip_id]) if batch else (), redo=redo(rows, found),
    )  # fmt: skip


def _use(model: traces.ModelUse) -> dict[str, Any]:
    (row,) = model.clips
    return {
        "version": model.version, "aliases": list(model.aliases), "dataset_revision": model.dataset_revision,
        "side": row.get("side"), "label": row.get("label"), "label_source": row.get("label_source"),
    }  # fmt: skip


def _batch(workspace: Workspace, batch_id: str) -> BatchLineage:
    batch = workspace.batch(batch_id)
    if batch in workspace.sealed_elsewhere():
        raise WorkspaceError(f"The data of sealed batch {batch_id} is not pulled: run `violence-ops dvc pull` first.")
    clips = batches.read_clips(batch)
    accepted = [clip.clip_id for clip in clips if clip.status == "accepted"]
    found = traces.find(workspace, accepted)
    trained = tuple(
        {"version": model.version, "aliases": list(model.aliases), "dataset_revision": model.dataset_revision, "clips": len(model.clips)}
        for model in found.models
    )  # fmt: skip
    return BatchLineage(
        batch_id=batch_id, sealed=batch.is_sealed, source=_source(batch, len(accepted)),
        statuses=dict(sorted(Counter(clip.status for clip in clips).items())), trained=trained, judged=found.judged,
        scored=scored_by(batch, None if batch.is_sealed else accepted), redo=redo(rows_of(batch), found),
    )  # fmt: skip
