"""What `check` finds, and what its parts share: which of two sets of clips lacks what, and which parameters matter."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from violence_ops.errors import WorkspaceError
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import ClipRecord
from violence_ops.wording import listed, printable

Kind = Literal["missing", "orphaned", "stale", "damaged", "not pulled"]
DAMAGED: Final = (WorkspaceError, pa.ArrowException, OSError, KeyError, TypeError, ValueError)
"""What reading a damaged table or JSON file raises."""

_SHOWN: Final = 3
"""Items of a finding that are named to people; JSON has all."""


@dataclass(frozen=True, slots=True)
class Finding(Jsonable):
    """One thing that is not as it should be.

    `items` are clip ids, or paths below the workspace. `why` is a sentence, `remedy` a command for the workspace's folder.
    """

    kind: Kind
    what: str
    batch_id: str | None
    items: tuple[str, ...]
    why: str
    remedy: str

    def lines(self) -> Iterator[str]:
        """For people."""
        place = f" of batch {self.batch_id}" if self.batch_id else ""
        yield f"{self.kind.upper()}: {self.what}{place}: {listed([*map(printable, self.items)], _SHOWN)}"
        yield f"    {self.why}"
        yield f"    -> {self.remedy}"


@dataclass(frozen=True, slots=True)
class Look:
    """What looking at one batch gave: its accepted clips by clip_id (None if its clips table cannot be read), findings, and
    every clip that it has something of, as far as it can be read."""

    accepted: dict[str, ClipRecord] | None
    findings: list[Finding]
    clip_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What annotations are made with now: parameters, the hash of the pose weights, and the champion's version."""

    params: Params
    weights_sha256: str
    champion: str | None


def unreadable(error: BaseException) -> str:
    """A sentence for what went wrong when a file was read."""
    return f"It cannot be read ({(str(error) or type(error).__name__).splitlines()[0][:160]})."


def command(*words: str) -> str:
    """A command as typed into a shell."""
    return shlex.join(words)


def repair(batch: Batch) -> str:
    """The command for what no stage can mend: `batch.json` of an open batch is lost, or clips are those of an earlier batch."""
    return command("violence-ops", "repair", batch.batch_id)


def compare(wanted: Collection[str], there: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of `wanted` is not `there`, and what is `there` and not `wanted`; both sorted."""
    left, right = set(wanted), set(there)
    return tuple(sorted(left - right)), tuple(sorted(right - left))


def influences(params: Params, mark: Callable[[Params], str]) -> frozenset[str]:
    """The keys of params.yaml, as `section.key`, on which a fingerprint depends: those that move it when they are moved."""
    found, before = set(), mark(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic: the value put in is of no proper type
        for section in type(params).model_fields:
            part = getattr(params, section)
            for key in type(part).model_fields:
                moved = part.model_copy(update={key: "\0another"})
                if mark(params.model_copy(update={section: moved})) != before:
                    found.add(f"{section}.{key}")
    return frozenset(found)


def changes(keys: Iterable[str], then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """For people: which of `keys` have another value in the one params.yaml than in the other, e.g. `pose.nms_threshold 0.35, now 0.4`."""
    told = []
    for name in sorted(keys):
        section, _, key = name.partition(".")
        old, new = then.get(section, {}).get(key), now[section][key]
        if old != new:
            scalar = not isinstance(old, dict) and not isinstance(new, dict)
            told.append(f"{name} {'not known' if old is None else old}, now {new}" if scalar else name)
    return told
