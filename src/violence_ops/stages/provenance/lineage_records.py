"""What lineage answers, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from violence_ops.wording import counted


@dataclass(frozen=True, slots=True)
class Redo:
    """What a deletion takes away or makes stale: rows of the batch's tables, dataset revisions, holdout versions, models to
    train again, models that do not say what they were trained on, and evaluations to repeat."""

    rows: dict[str, int]
    dataset_revisions: tuple[str, ...]
    holdouts: tuple[str, ...]
    models: tuple[str, ...]
    silent_models: tuple[str, ...]
    evaluations: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        yield "if it must be deleted, redo"
        yield f"  tables       {_listed(counted(count, f'row of {name}', f'rows of {name}') for name, count in self.rows.items())}"
        yield f"  datasets     {_listed(revision[:12] for revision in self.dataset_revisions)}"
        yield f"  holdouts     {_listed(self.holdouts)}"
        yield f"  models       {_listed(self.models)}"
        if self.silent_models:
            yield f"  perhaps      models {_listed(self.silent_models)}, which do not say what they were trained on"
        yield f"  evaluations  {_listed(self.evaluations)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLineage:
    """What made a model version: its dataset's clips with batch, label, its source and side; the batches; code, weights, holdout."""

    version: str
    aliases: tuple[str, ...]
    dataset_revision: str
    facts: dict[str, str]
    judged: dict[str, Any] | None
    batches: tuple[dict[str, Any], ...]
    clips: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON-able values."""
        return {"kind": "model"} | asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"model {self.version}{_aliases(self.aliases)}"
        sides = _counts(Counter(row.get("side") or "train or val" for row in self.clips))
        labels = _counts(Counter(row.get("label") or "label not recorded" for row in self.clips))
        yield f"  dataset             {self.dataset_revision[:12]}, {counted(len(self.clips), 'clip')}: {sides}; {labels}"
        for key, value in self.facts.items():
            yield f"  {key.replace('_', ' '):<19} {value}"
        yield f"  judged              {_judged(self.judged) if self.judged else 'not yet'}"
        yield "batches"
        for batch in self.batches:
            weights = batch["pose_weights"] or {"name": "unknown", "sha256": ""}
            yield (
                f"  {batch['batch_id']}  {counted(batch['clips'], 'clip'):>10}  poses by {weights['name']} {weights['sha256'][:12]}  "
                f"code {batch['code_revision']}"
            )
        yield "clips"
        for row in self.clips:
            cells = [row["clip_id"], row["batch_id"], row.get("label"), row.get("label_source"), row.get("side")]
            yield "  " + "  ".join(str(cell or "?") for cell in cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLineage:
    """Where a clip is, who labelled it (nobody known, if its label came with it), which models were trained on it (and with which
    label), judged on it, and judged it; and what its deletion redoes."""

    clip_id: str
    batch_id: str | None
    status: str
    source_path: str | None
    label: str | None
    label_source: str | None
    labelled_by: str | None
    labelled_at: str | None
    trained: tuple[dict[str, Any], ...]
    judged: tuple[str, ...]
    scored: tuple[str, ...]
    redo: Redo

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON-able values."""
        return {"kind": "clip"} | asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"clip {self.clip_id}: {self.status}, batch {self.batch_id or 'none'}, from {self.source_path}"
        by = f", by {self.labelled_by} on {self.labelled_at}" if self.labelled_by else ""
        yield f"  label        {f'{self.label} (from {self.label_source}{by})' if self.label else 'none'}"
        uses = (f"{_version(use)} ({use['side'] or 'train or val'}, as {use['label'] or '?'})" for use in self.trained)
        yield f"  trained      {_listed(uses)}"
        yield f"  judged on it {_listed(self.judged)}"
        yield f"  scored it    {_listed(self.scored)}"
        yield from self.redo.lines()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLineage:
    """What made a batch's tables, which models were trained on its clips, judged on them, and judged them; and what its deletion redoes."""

    batch_id: str
    sealed: bool
    source: dict[str, Any]
    statuses: dict[str, int]
    trained: tuple[dict[str, Any], ...]
    judged: tuple[str, ...]
    scored: tuple[str, ...]
    redo: Redo

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON-able values."""
        return {"kind": "batch"} | asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"batch {self.batch_id}: {'sealed' if self.sealed else 'open'}, {_counts(self.statuses)}"
        if weights := self.source["pose_weights"]:
            yield f"  poses        {weights['name']} {weights['sha256'][:12]}"
            yield f"  code         {self.source['code_revision']}"
        uses = (f"{_version(use)} ({counted(use['clips'], 'clip')})" for use in self.trained)
        yield f"  trained      {_listed(uses)}"
        yield f"  judged on it {_listed(self.judged)}"
        yield f"  scored it    {_listed(self.scored)}"
        yield from self.redo.lines()


@dataclass(frozen=True, slots=True)
class ForgottenLineage:
    """A forgotten clip: its tombstone."""

    tombstone: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The tombstone as JSON-able values."""
        return {"kind": "forgotten clip"} | dict(self.tombstone)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield "clip {clip_id} was forgotten on {at} by {by}: {reason}".format(**self.tombstone)
        yield f"  trained      {_listed(self.tombstone['models'])}"


def _version(use: Mapping[str, Any]) -> str:
    return f"model {use['version']}{_aliases(use['aliases'])}"


def _judged(found: Mapping[str, Any]) -> str:
    return f"{found['report']} on {counted(found['clips'], 'clip')} of holdout {found['holdout']}"


def _aliases(names: Sequence[str]) -> str:
    return f" [{', '.join(names)}]" if names else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _counts(counts: Mapping[str, int]) -> str:
    return _listed(f"{count} {name}" for name, count in counts.items())
