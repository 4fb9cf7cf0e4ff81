"""Splitting clips so that no source group and no near-duplicate lies on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from violence_ops.records import LABELS

_HASH_BITS = 64


@dataclass(frozen=True, slots=True)
class Member:
    """What splitting needs to know of a clip. `perceptual_hash` is 64 bits in hex, or None."""

    clip_id: str
    label: str
    source_group: str
    perceptual_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Support:
    """What a judgement needs: clips of each label, and source groups."""

    clips: int
    groups: int

    def missing(self, members: Sequence[Member]) -> int:
        """How many clips and source groups these lack; 0 if they carry a judgement."""
        return sum(self.lacks(members).values())

    def lacks(self, members: Sequence[Member]) -> dict[str, int]:
        """How many clips of each label these lack, and how many `groups`; without what is enough."""
        has = Counter(member.label for member in members)
        has["groups"] = len({member.source_group for member in members})
        wanted = dict.fromkeys(LABELS, self.clips) | {"groups": self.groups}
        return {name: number - has[name] for name, number in wanted.items() if number > has[name]}


def bundles(members: Sequence[Member], near_duplicate_bits: int) -> list[list[Member]]:
    """Bundles of clips that must stay on one side: the same source group, or hashes at most `near_duplicate_bits` apart (0: equal).

    Bundles are ordered by their smallest source group, clips within by clip_id.
    """
    parent = list(range(len(members)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of: dict[str, int] = {}
    for i, member in enumerate(members):
        parent[root(i)] = root(first_of.setdefault(member.source_group, i))
    for i, j in _near_duplicates(members, near_duplicate_bits):
        parent[root(i)] = root(j)
    joined: dict[int, list[Member]] = defaultdict(list)
    for i, member in enumerate(members):
        joined[root(i)].append(member)
    ordered = (sorted(group, key=lambda member: member.clip_id) for group in joined.values())
    return sorted(ordered, key=name_of)


def name_of(bundle: Sequence[Member]) -> str:
    """A bundle is called after its smallest source group."""
    return min(member.source_group for member in bundle)


def near_duplicates(members: Sequence[Member], others: Sequence[Member], near_duplicate_bits: int) -> set[str]:
    """The clip_ids of those members whose own hash is at most `near_duplicate_bits` from that of one of the others (0: equal)."""
    hashes = np.array([int(other.perceptual_hash, 16) for other in others if other.perceptual_hash], np.uint64)

    def is_near(value: str) -> bool:
        return bool((np.bitwise_count(hashes ^ np.uint64(int(value, 16))) <= near_duplicate_bits).any())

    return {member.clip_id for member in members if member.perceptual_hash and is_near(member.perceptual_hash)}


def _near_duplicates(members: Sequence[Member], bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of clips that join all that are at most `bits` apart. Of `bits + 1` bands of the hash such a pair shares at least one."""
    first_of: dict[int, int] = {}
    for i, member in enumerate(members):
        if member.perceptual_hash:
            yield i, first_of.setdefault(int(member.perceptual_hash, 16), i)
    edges = [round(_HASH_BITS * k / (bits + 1)) for k in range(bits + 2)]
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for value in first_of:
        for band, (low, high) in enumerate(pairwise(edges)):
            bands[band, value >> low & ((1 << high - low) - 1)].append(value)
    for same in bands.values():
        for one, other in combinations(same, 2):
            if (one ^ other).bit_count() <= bits:
                yield first_of[one], first_of[other]


def choose(bundled: Sequence[list[Member]], share: float, seed: int, purpose: str) -> list[list[Member]]:
    """About `share` of the clips, in whole bundles, stratified by which labels a bundle holds.

    A stratum of several bundles gives at least one, the smallest if each is more than twice what is wanted, and keeps at least
    one; a bundle's place in the order depends only on `seed`, `purpose` and its name, so that more data changes an earlier choice
    little.
    """
    strata: dict[tuple[str, ...], list[list[Member]]] = defaultdict(list)
    for bundle in bundled:
        strata[tuple(sorted({member.label for member in bundle}))].append(bundle)

    order = _order(seed, purpose)
    chosen = []
    for _, stratum in sorted(strata.items()):
        wanted = share * sum(map(len, stratum))
        taken: list[list[Member]] = []
        for bundle in sorted(stratum, key=order):
            if len(taken) + 1 < len(stratum) and sum(map(len, taken)) + len(bundle) / 2 <= wanted:
                taken.append(bundle)
        if not taken and len(stratum) > 1:
            taken = [min(stratum, key=lambda bundle: (len(bundle), order(bundle)))]
        chosen += taken
    return sorted(chosen, key=name_of)


def complete(
    held: Sequence[Member],
    free: Sequence[list[Member]],
    wanted: Support,
    most: Mapping[str, int],
    *,
    left: int,
    seed: int,
    purpose: str,
) -> list[list[Member]]:
    """Bundles of `free` that bring what `held` lacks of `wanted`, in the order of `choose`, as far as that goes.

    None is taken with which a label would have more than `most` of its clips held, or fewer than `left` bundles of `free` with it.
    """
    members, taken = list(held), []
    remaining = Counter(label for bundle in free for label in {member.label for member in bundle})
    for bundle in sorted(free, key=_order(seed, purpose)):
        more = [*members, *bundle]
        counts, labels = Counter(member.label for member in more), {member.label for member in bundle}
        may = all(counts[label] <= most[label] and remaining[label] > left for label in labels)
        if may and wanted.missing(more) < wanted.missing(members):
            members = more
            taken.append(bundle)
            remaining.subtract(labels)
    return taken


def _order(seed: int, purpose: str) -> Callable[[list[Member]], str]:
    """What bundles are sorted by: as if at random, and the same for each whatever others there are."""

    def order(bundle: list[Member]) -> str:
        return hashlib.sha256(f"{purpose}:{seed}:{name_of(bundle)}".encode()).hexdigest()

    return order
