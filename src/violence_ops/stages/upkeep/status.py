"""`violence-ops status`: batches, quarantine, labels, models and services at a glance; and the catalog made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from violence_ops import git, ledger, services
from violence_ops.catalog import Catalog
from violence_ops.deployment import without_password
from violence_ops.errors import ServiceUnavailable, UnknownBatch, UsageError, UserError, WorkspaceError
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.records import TRANSIENT
from violence_ops.stages.nightly import retry, seal
from violence_ops.stages.releasing import notify, standing
from violence_ops.stages.releasing.standing import Standing
from violence_ops.store import batches, claims, inbox, quarantine, releases, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.wording import counted, printable
from violence_ops.workspace import Workspace

_LISTED: Final = 5
"""So many batches of each state are named for people."""


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The newest batch; `clips` are numbers by status, None if its batch.json cannot be read, and `refused` those in quarantine by
    reason: also clips that a sealed batch does not hold because they may come again."""

    batch_id: str
    state: Literal["open", "sealed"]
    clips: dict[str, int] | None
    refused: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """What a person reads."""
        clips = "clips not known" if self.clips is None else _counts(self.clips)
        reasons = (
            f" ({_counts(self.refused) if len(self.refused) > 1 else next(iter(self.refused))})" if self.refused else ""
        )
        return f"{self.batch_id}: {self.state}, {clips}{reasons}"


@dataclass(frozen=True, slots=True)
class LastNight:
    """The newest night of which there are batches: how many, how many of them are open, and of how many the clips are not known. `clips`
    and `refused` are the sums over the others."""

    night: str
    batches: int
    open: int
    unknown: int
    clips: dict[str, int]
    refused: dict[str, int]

    @classmethod
    def of(cls, found: Sequence[LastBatch]) -> Self:
        """The sums over the batches of one night."""
        clips, refused = Counter[str](accepted=0, quarantined=0), Counter[str]()
        for batch in found:
            clips.update(batch.clips or {})
            refused.update(batch.refused)
        states = Counter(batch.state for batch in found)
        unknown = sum(batch.clips is None for batch in found)
        night = _night(found[-1].batch_id)
        return cls(night, len(found), states["open"], unknown, dict(sorted(clips.items())), _sorted(refused))

    def line(self) -> str:
        """What a person reads."""
        is_open = f" ({self.open} open)" if self.open else ""
        reasons = f" ({_counts(self.refused)})" if self.refused else ""
        unknown = f"; clips of {counted(self.unknown, 'batch', 'batches')} not known" if self.unknown else ""
        return f"{self.night}: {counted(self.batches, 'batch', 'batches')}{is_open}, {_counts(self.clips)}{reasons}{unknown}"


@dataclass(frozen=True, slots=True)
class StatusResult(Jsonable):
    """Numbers of clips by status, reason and label, and what is released. `inbox` counts the files of which no batch is made yet,
    also those that a run has taken out of the inbox, and `again` how many of the clips in `quarantine` are among them, because `retry`
    put them there; `candidate_standing` is what gate and people have said of the newest candidate; `in_shadow` is the version in shadow
    mode, `awaiting` the candidates that have passed the gate and wait for a person, with their reports, `questions` what Airflow asks and
    nobody has answered; `waiting` (the clips without a label) and `refused` (those in quarantine) are filled on demand only. Then
    sentences: `half_forgotten` of clips whose forgetting did not come to its end, `unfinished` of what else a run left half done or
    cannot take, and `problems` of what keeps models from being released or judging."""

    workspace: str
    inbox: int
    sealed: list[str]
    open: list[str]
    last_night: LastNight | None
    last_batch: LastBatch | None
    clips: dict[str, int]
    quarantine: dict[str, int]
    again: int
    labels: dict[str, int]
    champion: str | None
    candidate: str | None
    candidate_standing: Standing | None
    in_shadow: str | None
    awaiting: list[dict[str, str]]
    holdouts: list[str]
    services: dict[str, str]
    told: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    waiting: list[dict[str, str | None]] | None = None
    refused: list[dict[str, str | None]] | None = None
    half_forgotten: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        if self.waiting is not None:
            yield from (f"{clip['clip_id']}  {clip['batch_id']}  {clip['source_path']}" for clip in self.waiting)
            yield f"{counted(len(self.waiting), 'accepted clip waits', 'accepted clips wait')} for a label: `violence-ops label CLIP LABEL --by NAME`."
        if self.refused is not None:
            yield from ("  ".join(str(fact) for fact in clip.values()) for clip in self.refused)
            yield f"{counted(len(self.refused), 'clip is', 'clips are')} in quarantine: `violence-ops explain CLIP` says why."
        if self.waiting is not None or self.refused is not None:
            return
        yield f"workspace   {self.workspace}"
        yield f"inbox       {counted(self.inbox, 'file waits', 'files wait')}"
        yield f"batches     {len(self.sealed)} sealed{_list(self.sealed)}, {len(self.open)} open{_list(self.open)}"
        if self.last_night:
            yield f"last night  {self.last_night.line()}"
        yield f"last batch  {self.last_batch.line() if self.last_batch else 'none'}"
        yield f"clips       {_counts(self.clips)}"
        again = f", of which {counted(self.again, 'waits', 'wait')} in the inbox again" if self.again else ""
        listed = "; `violence-ops status --quarantine` lists them" if self.quarantine else ""
        yield f"quarantine  {_counts(self.quarantine)}{again}{listed}"
        yield f"labels      {_counts(self.labels)}"
        yield f"holdouts    {', '.join(self.holdouts) or 'none'}"
        champion = self.champion or ("not known" if self.problems else "none")
        stands = self.candidate_standing
        said = f": {printable(stands.said)}" if stands else ""
        yield f"models      champion {champion}, newest candidate {self.candidate or 'none'}{said}"
        yield from (f"candidate   {printable(one)}" for one in (stands and stands.why, stands and stands.todo) if one)
        if self.in_shadow:
            yield f"shadow      version {self.in_shadow} judges the sealed nights too: `violence-ops shadow`"
        for one in self.awaiting:
            command = f"violence-ops promote --report {one['report']} --approve --by NAME"
            yield f"approval    candidate {one['candidate']} passed the gate and waits for an approval: `{command}`"
        yield f"services    {', '.join(f'{name} {where}' for name, where in self.services.items()) or 'not running'}"
        yield from (f"releases    {receiver}: {state}" for receiver, state in self.told.items())
        yield from (f"last run    {dag}: {run}" for dag, run in self.runs.items())
        yield from (f"question    {asked}" for asked in self.questions)
        yield from (f"PROBLEM     {said}" for said in (*self.half_forgotten, *self.unfinished, *self.problems))


def run(workspace: Workspace, *, unlabelled: bool = False, refused: bool = False) -> StatusResult:
    """Look at everything and change nothing. Raises ServiceUnavailable if the catalog cannot be reached, and, if the `refused` clips
    are asked for, WorkspaceError if what the quarantine says of one cannot be read.

    Where the ledger does not verify or MLflow has another champion, the champion is None; the `problems` say why.
    """
    with open_catalog(workspace) as catalog:
        counts = catalog.counts()
        waiting = [_clip(clip) for clip in catalog.unlabelled()] if unlabelled else None
        in_quarantine = _refused(workspace, catalog) if refused else None
        outside, unread = _outside(workspace, catalog)
        newest = _of_last_night(workspace, catalog, outside)
    taken, unfinished = _taken(workspace)
    waiting_files, no_room = _files_in(workspace)
    champion, problems = _champion(workspace)
    in_shadow = None if problems else _in_shadow(workspace)
    problems = problems or _branch(workspace)
    state = services.inspect(workspace)
    candidate = workspace.read_progress("train").get("model_version")
    known = _entries(workspace)
    runs, questions = _of_airflow(workspace) if state.is_up or workspace.deployment.airflow_url else ({}, [])
    return StatusResult(
        workspace=str(workspace.root),
        inbox=waiting_files + taken,
        sealed=[batch.batch_id for batch in _by_age(workspace.sealed_batches())],
        open=batches.open_batch_ids(workspace),
        last_night=LastNight.of(newest) if newest else None,
        last_batch=newest[-1] if newest else None,
        clips=counts["status"],
        quarantine=counts["reason"],
        again=_again(workspace, outside),
        labels=counts["label"],
        champion=champion,
        candidate=candidate,
        candidate_standing=standing.of(known, candidate),
        in_shadow=in_shadow,
        awaiting=[
            {name: entry.payload[name] for name in ("candidate", "report")} for entry in releases.awaiting(known)
        ],
        holdouts=workspace.holdout_versions(),
        services=_services(workspace, state),
        told=_told(workspace),
        runs=runs,
        questions=questions,
        waiting=waiting,
        refused=in_quarantine,
        half_forgotten=_half_forgotten(workspace),
        unfinished=unread + no_room + unfinished + _half_sealed(workspace),
        problems=problems,
    )


def _of_last_night(workspace: Workspace, catalog: Catalog, outside: list[dict[str, Any]]) -> list[LastBatch]:
    """The batches of the newest night, last an open one, else the one that was sealed last; empty if there is no batch."""
    found = _by_age([*workspace.sealed_batches(), *map(workspace.batch, batches.open_batch_ids(workspace))])
    return [_seen(one, catalog, outside) for one in found if _night(one.batch_id) == _night(found[-1].batch_id)]


def _seen(batch: Batch, catalog: Catalog, outside: list[dict[str, Any]]) -> LastBatch:
    try:
        counts, refused = _clips_of(batch, catalog, outside)
    except (UnknownBatch, WorkspaceError):
        return LastBatch(batch.batch_id, "sealed" if batch.is_sealed else "open", None)
    return LastBatch(batch.batch_id, "sealed" if batch.is_sealed else "open", _sorted(counts), _sorted(refused))


def _night(batch_id: str) -> str:
    return batch_id.rpartition("-")[0]


def _by_age(found: list[Batch]) -> list[Batch]:
    """The oldest first: by night, and those of one night in the order in which they were sealed, open ones last."""
    nights = {batch.batch_id: _night(batch.batch_id) for batch in found}
    shared = {night for night, count in Counter(nights.values()).items() if count > 1}

    def age(batch: Batch) -> tuple[str, bool, str, str]:
        night = nights[batch.batch_id]
        return night, not batch.is_sealed, _sealed_at(batch) if night in shared else "", batch.batch_id

    return sorted(found, key=age)


def _sealed_at(batch: Batch) -> str:
    """Nothing while it is open, or if that cannot be read."""
    try:
        return str(batches.read_manifest(batch).facts["run"]["sealed_at"]) if batch.is_sealed else ""
    except (UnknownBatch, WorkspaceError):
        return ""


def _clips_of(batch: Batch, catalog: Catalog, outside: list[dict[str, Any]]) -> tuple[Counter[str], Counter[str]]:
    """The clips of a batch by status, and those refused by reason. Raises WorkspaceError if that cannot be read."""
    manifest = batches.read_manifest(batch)
    if not batch.is_sealed:
        known = catalog.find(clip.clip_id for clip in manifest.clips).values()
        refused = Counter(str(clip.reason) for clip in known if clip.status == "quarantined")
        return Counter(clip.status for clip in known), refused
    refused = Counter(manifest.facts["quarantined"])
    refused.update(one["reason"] for one in outside if one.get("batch_id") == batch.batch_id)
    return Counter(accepted=manifest.facts["accepted"], quarantined=refused.total()), refused


def _outside(workspace: Workspace, catalog: Catalog) -> tuple[list[dict[str, Any]], list[str]]:
    """The `reason.json` of each clip in quarantine that belongs to no batch because its reason does not lie in its bytes; and what
    is wrong with those that cannot be read."""
    found, problems = [], []
    for clip in catalog.refused_without_batch():
        try:
            found.append(quarantine.read(workspace.quarantined(clip.clip_id)))
        except WorkspaceError as error:
            problems.append(str(error))
    return [one for one in found if one and one["reason"] in TRANSIENT], problems


def _again(workspace: Workspace, outside: list[dict[str, Any]]) -> int:
    """How many of them `retry` has put into the inbox, where they wait for the next night."""
    waiting = retry.all_in_inbox(workspace)
    return sum(one["clip_id"] in waiting for one in outside if not one.get("original"))


def _champion(workspace: Workspace) -> tuple[str | None, list[str]]:
    """The champion, that of the ledger if MLflow cannot be asked for its own; and what is wrong with it."""
    try:
        return releases.champion(workspace), []
    except ServiceUnavailable as error:
        return releases.last_champion(releases.entries(workspace)), [str(error)]
    except UserError as error:
        return None, [str(error)]


def _in_shadow(workspace: Workspace) -> str | None:
    """The version in shadow; None if MLflow cannot say."""
    try:
        return releases.open_registry(workspace).alias(releases.SHADOW)
    except UserError:
        return None


def _entries(workspace: Workspace) -> list[ledger.Entry]:
    """The ledger; nothing of it if it does not verify, which is a problem of its own."""
    try:
        return releases.entries(workspace)
    except UserError:
        return []


def _branch(workspace: Workspace) -> list[str]:
    """Why nothing can be released or sealed even where the champion is known: git is on no branch."""
    try:
        git.check_branch(workspace)
    except WorkspaceError as error:
        return [str(error)]
    return []


def _half_forgotten(workspace: Workspace) -> list[str]:
    try:
        gone = [one for one in tombstones.all_of(workspace) if not tombstones.is_finished(workspace, one)]
    except WorkspaceError as error:
        return [str(error)]
    return [f"The forgetting of clip {one} was not finished: run `violence-ops forget {one}`." for one in gone]


def _half_sealed(workspace: Workspace) -> list[str]:
    try:
        names = [batch.batch_id for batch in seal.half_sealed(workspace)]
    except WorkspaceError as error:
        return [str(error)]
    return [
        f"The sealing of batch {one} was not finished: unless a run is at it now, `violence-ops seal --batch {one}`."
        for one in names
    ]


def _taken(workspace: Workspace) -> tuple[int, list[str]]:
    """How many files lie in the claims of ingestion runs; and what is wrong with the claims."""
    try:
        return sum(len(claim.drops) for claim in claims.seen(workspace)), []
    except WorkspaceError as error:
        return 0, [str(error)]


def _files_in(workspace: Workspace) -> tuple[int, list[str]]:
    """How many files lie in the inbox; and which of them no night will take."""
    found = inbox.scan(workspace.inbox, settle_s=0)
    return len(found.drops) + found.left, inbox.no_room(found)


def _clip(clip: Any) -> dict[str, str | None]:
    return {"clip_id": clip.clip_id, "batch_id": clip.batch_id, "source_path": clip.source_path}


def _refused(workspace: Workspace, catalog: Catalog) -> list[dict[str, str | None]]:
    """The clips in quarantine: id, reason, the night that refused it, and the path in the inbox; the newest night last."""
    told = {entry["clip_id"]: entry for entry in quarantine.entries(workspace)}
    refused = (clip for clip in catalog.find(told).values() if clip.status == "quarantined")
    found: list[dict[str, str | None]] = [
        {"clip_id": clip.clip_id, "reason": clip.reason, "night": told[clip.clip_id].get("night"), "source_path": clip.source_path}
        for clip in refused
    ]  # fmt: skip
    return sorted(found, key=lambda clip: (str(clip["night"]), str(clip["source_path"])))


def _services(workspace: Workspace, state: services.State) -> dict[str, str]:
    if workspace.deployment.airflow_url:
        addresses = {"Airflow": workspace.deployment.airflow_url, "MLflow": workspace.mlflow_uri}
        return {name: without_password(address) for name, address in addresses.items()}
    where = {"Airflow": state.addresses.airflow, "MLflow": state.addresses.mlflow} if state.addresses else {}
    return where | dict.fromkeys(state.dead, "has died: run `violence-ops up` again")


def _told(workspace: Workspace) -> dict[str, str]:
    try:
        return notify.state(workspace)
    except (UsageError, ledger.LedgerBroken) as error:
        return {"nobody": str(error)}


def _of_airflow(workspace: Workspace) -> tuple[dict[str, str], list[str]]:
    """The last run of each DAG, and the questions that wait for a person in *Required Actions*."""
    try:
        with services.watched_api(workspace) as api:
            found = {dag_id: api.runs(dag_id) for dag_id in services.DAGS}
            asked = [f"{one['subject']} (Airflow, {one['task_instance']['dag_run_id']})" for one in api.approvals()]
    except UserError as error:
        return {"Airflow": str(error)}, []
    return {dag_id: f"{runs[-1]['state']}, {runs[-1]['run_after']}" for dag_id, runs in found.items() if runs}, asked


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted((+counts).items()))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _list(batch_ids: list[str]) -> str:
    """The newest of them, which are last, and how many there are before."""
    newest, before = batch_ids[: -_LISTED - 1 : -1], len(batch_ids) - _LISTED
    more = f" and {before} before, which `violence-ops status --json` lists" if before > 0 else ""
    return f" ({', '.join(newest)}{more})" if batch_ids else ""
