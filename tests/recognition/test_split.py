"""No source group and no near-duplicate on both sides."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from violence_ops.recognition.split import Member, bundles, choose

hashes = st.one_of(st.none(), st.integers(0, 255).map(lambda value: f"{value:016x}"))


@st.composite
def clips(draw: st.DrawFn) -> list[Member]:
    count = draw(st.integers(1, 40))
    return [
        Member(f"{i:020x}", draw(st.sampled_from(["Fight", "NonFight"])), f"g{draw(st.integers(0, 12))}", draw(hashes))
        for i in range(count)
    ]


@given(clips(), st.integers(0, 3), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_never_parts_a_source_group_or_near_duplicates(
    members: list[Member], bits: int, share: float, seed: int
) -> None:
    chosen = {m.clip_id for bundle in choose(bundles(members, bits), share, seed, "test") for m in bundle}
    inside = [m for m in members if m.clip_id in chosen]
    outside = [m for m in members if m.clip_id not in chosen]
    assert not {m.source_group for m in inside} & {m.source_group for m in outside}
    for one in inside:
        for other in outside:
            if one.perceptual_hash and other.perceptual_hash:
                assert (int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).bit_count() > bits


@given(clips(), st.randoms(use_true_random=False))
def test_the_order_of_the_clips_does_not_matter(members: list[Member], random: object) -> None:
    shuffled = members.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert bundles(members, 0) == bundles(shuffled, 0)
    assert choose(bundles(members, 0), 0.3, 1, "x") == choose(bundles(shuffled, 0), 0.3, 1, "x")


def joined_plainly(members: list[Member], bits: int) -> set[frozenset[str]]:
    """Families as their definition says: every pair compared, sets merged."""
    found: list[list[Member]] = []
    for member in members:
        near = [bundle for bundle in found if any(belong_together(member, other, bits) for other in bundle)]
        found = [bundle for bundle in found if bundle not in near] + [sum(near, [member])]
    return {frozenset(member.clip_id for member in bundle) for bundle in found}


def belong_together(one: Member, other: Member, bits: int) -> bool:
    if one.source_group == other.source_group:
        return True
    if one.perceptual_hash is None or other.perceptual_hash is None:
        return False
    return (int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).bit_count() <= bits


@given(clips(), st.integers(0, 6))
def test_families_are_what_comparing_every_pair_gives(members: list[Member], bits: int) -> None:
    found = bundles(members, bits)
    assert {frozenset(member.clip_id for member in bundle) for bundle in found} == joined_plainly(members, bits)
    assert sum(map(len, found)) == len(members)


def test_a_camera_whose_clips_all_look_alike_takes_little_memory() -> None:
    members = [Member(f"{i:020x}", "Fight", f"g{i}", f"{i % 3:016x}") for i in range(2000)]
    tracemalloc.start()
    assert len(bundles(members, 4)) == 1
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@given(st.lists(st.integers(1, 90), min_size=2, max_size=12), st.integers(0, 50))
def test_a_large_group_never_makes_much_more_than_its_share(sizes: list[int], seed: int) -> None:
    """Three cameras, of which one has most of the clips: that one is no holdout."""
    members = [Member(f"{g:04}{i:016x}", "Fight", f"g{g}") for g, size in enumerate(sizes) for i in range(size)]
    taken = [len(bundle) for bundle in choose(bundles(members, 0), 0.3, seed, "holdout")]
    assert sum(taken) <= 0.3 * len(members) + max(taken) / 2 or taken == [min(sizes)]


def test_every_stratum_gives_one_and_keeps_one() -> None:
    members = [Member(f"{i:020x}", label, f"{label}{i}") for label in ("Fight", "NonFight") for i in range(2)]
    chosen = choose(bundles(members, 0), 0.01, 0, "x")
    assert sorted(bundle[0].label for bundle in chosen) == ["Fight", "NonFight"]
    assert len(choose(bundles(members, 0), 0.99, 0, "x")) == 2


def test_the_share_is_met_about_and_new_groups_change_little() -> None:
    members = [Member(f"{i:020x}", "Fight" if i % 2 else "NonFight", f"g{i // 4:03d}") for i in range(400)]
    before = {bundle[0].source_group for bundle in choose(bundles(members, 0), 0.3, 7, "holdout")}
    assert 28 <= len(before) <= 32
    more = members + [Member(f"{i:020x}", "Fight" if i % 2 else "NonFight", f"h{i}") for i in range(400, 404)]
    after = {bundle[0].source_group for bundle in choose(bundles(more, 0), 0.3, 7, "holdout")}
    assert len(before & after) >= len(before) - 2
