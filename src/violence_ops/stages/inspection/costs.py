"""`costs`: what looking for poses in the sealed batches took, in the seconds of docs/poses.md, "Costs"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from violence_ops.jsonable import Jsonable
from violence_ops.store import batches
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds that looking for poses took in one batch on one device by one engine (a backend and its precision; empty in
    batches of before November 2026), and for how many of its clips they are known."""

    batch_id: str
    night: str
    device: str
    engine: str
    clips: int
    engine_s: float


@dataclass(frozen=True, slots=True)
class ClipCost:
    """Seconds that looking for poses took in one clip."""

    clip_id: str
    engine_s: float


@dataclass(frozen=True, slots=True)
class CostsResult(Jsonable):
    """The cost of every sealed batch, oldest first, and the clips that cost most, the dearest first."""

    batches: list[BatchCost]
    dearest: list[ClipCost]

    def lines(self) -> Iterator[str]:
        yield f"{'batch':<28} {'device':<8} {'engine':<18} {'clips':>6} {'seconds':>9} {'s / clip':>9}"
        for cost in self.batches:
            each = cost.engine_s / max(cost.clips, 1)
            yield f"{cost.batch_id:<28} {cost.device:<8} {cost.engine:<18} {cost.clips:>6} {cost.engine_s:>9.1f} {each:>9.3f}"
        total, clips = sum(cost.engine_s for cost in self.batches), sum(cost.clips for cost in self.batches)
        yield f"{'all':<28} {'':<8} {'':<18} {clips:>6} {total:>9.1f} {total / max(clips, 1):>9.3f}"
        yield from (f"dearest: clip {one.clip_id}, {one.engine_s:.2f} s" for one in self.dearest)


def run(workspace: Workspace, *, dearest: int = 5) -> CostsResult:
    """Add up what the manifests of the sealed batches recorded. Batches sealed before costs were recorded are left out."""
    found: list[BatchCost] = []
    clips: dict[str, float] = {}
    for batch in workspace.sealed_batches():
        manifest = batches.read_manifest(batch)
        each: dict[str, dict[str, Any]] = manifest.facts["run"].get("pose_costs", {}).get("clips", {})
        seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cost in each.values():
            seconds[cost["device"], cost.get("engine", "")].append(cost["engine_s"])
        for where, spent in sorted(seconds.items()):
            found.append(BatchCost(batch.batch_id, manifest.night, *where, len(spent), round(sum(spent), 3)))
        clips |= {clip_id: cost["engine_s"] for clip_id, cost in each.items()}
    most = sorted(clips.items(), key=lambda item: (-item[1], item[0]))[:dearest]
    return CostsResult(found, [ClipCost(*item) for item in most])
