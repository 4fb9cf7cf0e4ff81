"""`check`: do videos, annotations and overlays map one to one, and are they what the present parameters and weights give (SPEC 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from violence_ops.catalog import is_unborn
from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import ClipRecord
from violence_ops.stages.inspection import check_forgotten, check_open, check_sealed
from violence_ops.stages.inspection.check_overlays import Overlays
from violence_ops.stages.inspection.findings import Finding, Look, Recipe, command, repair, unreadable
from violence_ops.stages.nightly import extract_poses
from violence_ops.store import batches, releases
from violence_ops.store.batches import Progress
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

_REBUILD: Final = command("violence-ops", "catalog", "rebuild")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How much was looked at, and what was found."""

    batches: int
    clips: int
    overlays: int
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        counts = {"batches": self.batches, "clips": self.clips, "overlays": self.overlays}
        return {"clean": self.clean} | counts | {"findings": [finding.to_dict() for finding in self.findings]}

    def lines(self) -> Iterator[str]:
        """For people."""
        for finding in self.findings:
            yield from finding.lines()
        kinds = Counter(finding.kind for finding in self.findings)
        verdict = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "all in order"
        yield f"batches {self.batches}, accepted clips {self.clips}, overlays {self.overlays}: {verdict}"


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    content: bool = False,
    as_sealed: bool = False,
    progress: Progress | None = None,
) -> CheckResult:
    """Look at one batch, or at all of them, the holdouts' pointers and what is forgotten, and change nothing. Damaged files
    are findings.

    `content` reads every sealed video's bytes, not only its size. `as_sealed` accepts that sealed batches were made with other
    parameters or weights. Raises UnknownBatch, WeightsError if the weights in use are not there, ServiceUnavailable if the catalog
    cannot be reached.
    """
    released = releases.last_champion(releases.entries(workspace))
    recipe = Recipe(params, extract_poses.source_sha256(params.pose), released)
    chosen = _chosen(workspace, batch_id)
    overlays = Overlays(workspace, params)
    findings: list[Finding] = []
    homes: dict[str, str] = {}
    complete = batch_id is None
    for done, batch in enumerate(chosen, start=1):
        look = _look(workspace, batch, recipe, content, as_sealed)
        findings += look.findings
        findings += check_forgotten.in_batch(workspace, batch, look.clip_ids)
        if look.accepted is None:
            complete = False
        else:
            findings += _repeated(batch, look.accepted, homes)
            findings += overlays.of_batch(batch, look.accepted)
        if progress:
            progress(f"check {batch.batch_id}", done, len(chosen))
    if complete:
        findings += overlays.of_nobody()
    if batch_id is None:
        findings += _lost(workspace)
        findings += _holdouts(workspace)
        findings += _catalog(workspace)
        findings += check_forgotten.elsewhere(workspace)
    return CheckResult(len(chosen), len(homes), overlays.count, findings)


def _chosen(workspace: Workspace, batch_id: str | None) -> list[Batch]:
    """The batches to look at: sealed, known to git alone, and open, oldest first."""
    opened = [workspace.batch(name) for name in batches.open_batch_ids(workspace)]
    known = {batch.batch_id: batch for batch in (*workspace.sealed_batches(), *workspace.sealed_elsewhere(), *opened)}
    if batch_id is None:
        return [known[name] for name in sorted(known)]
    if batch_id not in known:
        raise UnknownBatch(batch_id)
    return [known[batch_id]]


def _look(workspace: Workspace, batch: Batch, recipe: Recipe, content: bool, as_sealed: bool) -> Look:
    if batch.is_sealed:
        return check_sealed.look(workspace, batch, recipe, content=content, as_sealed=as_sealed)
    if batch.pointer.is_file():
        return Look(None, [check_sealed.not_pulled(workspace, batch)])
    return check_open.look(workspace, batch, recipe)


def _lost(workspace: Workspace) -> Iterator[Finding]:
    """Working folders that no stage knows: their batch.json is gone, or their repair was interrupted."""
    listed = set(batches.open_batch_ids(workspace))
    folders = [*workspace.work.glob(f"{'?' * 10}-{'?' * 8}/videos"), *workspace.repairing.glob("*/videos")]
    for folder in sorted(path.parent for path in folders):
        batch = workspace.batch(folder.name)
        if folder != batch.open or not (batch.is_sealed or batch.batch_id in listed):
            why = "It has no batch.json, or its repair was interrupted: no stage knows of its clips."
            shown = str(folder.relative_to(workspace.root))
            yield Finding("missing", "batch.json", batch.batch_id, (shown,), why, repair(batch))


def _holdouts(workspace: Workspace) -> Iterator[Finding]:
    """Holdouts of which only git's part is here."""
    for name in workspace.holdouts_elsewhere():
        pointer = str((workspace.holdouts / f"{name}.dvc").relative_to(workspace.root))
        why = "Its data is in DVC's cache or remote only, and nothing is assembled, trained or judged without it."
        yield Finding("not pulled", "holdout", None, (pointer,), why, command("violence-ops", "dvc", "pull", pointer))


def _catalog(workspace: Workspace) -> Iterator[Finding]:
    """What makes the catalog no index of this workspace: it cannot be read, or was put back from before batches were sealed."""
    if is_unborn(workspace.catalog_url):
        return  # whoever needs it makes it
    try:
        with open_catalog(workspace) as catalog:
            known = set(catalog.batches("sealed"))
    except WorkspaceError as error:
        yield Finding("damaged", "catalog", None, ("catalog",), unreadable(error), _REBUILD)
        return
    # one that is being sealed has its working folder until the catalog knows
    unknown = [b.batch_id for b in workspace.sealed_batches() if b.batch_id not in known and not b.open.exists()]
    if unknown:
        why = "The catalog does not know these sealed batches, as one from an old backup does: their clips would be taken in again."
        yield Finding("stale", "catalog", None, tuple(unknown), why, _REBUILD)


def _repeated(batch: Batch, accepted: dict[str, ClipRecord], homes: dict[str, str]) -> Iterator[Finding]:
    """Clips that an earlier batch has too; `homes` is filled with this batch's."""
    twice = tuple(sorted(accepted.keys() & homes.keys()))
    if twice:
        others = ", ".join(sorted({homes[clip_id] for clip_id in twice}))
        why = f"Accepted in batch {others} too: the same bytes may be one clip only."
        yield Finding("orphaned", "clips", batch.batch_id, twice, why, repair(batch))
    homes.update(dict.fromkeys(accepted, batch.batch_id))
