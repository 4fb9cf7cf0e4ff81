import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.involvement import rank
from violence_ops.params import load_params
from violence_ops.records import COMPONENTS, ClipPoses, ClipTracks
from violence_ops.tracking import fill

HERE = Path(__file__).parent
DEFAULTS = load_params(HERE.parents[1] / "params.yaml").involvement
spec = importlib.util.spec_from_file_location("slow_involvement", HERE / "slow.py")
slow = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slow)
ROWS = (
    "frame", "bboxes", "scores", "keypoints", "keypoint_scores", "track_id", "rank", "involvement", "components", "interpolated",
)  # fmt: skip


def with_(**changes):
    return DEFAULTS.model_copy(update=changes)


def crowd(seed, persons=4, frames=14, width=640, height=360, gaps=True):
    """Random people, some of them missing in some frames, with some joints not seen. Returns the tracks and the frames."""
    rng = np.random.default_rng(seed)
    start, tall = rng.uniform(0, (width, height), (persons, 2)), rng.uniform(40, 200, persons)
    paths = start + np.cumsum(rng.normal(0, rng.uniform(1, 25, (persons, 1)), (frames, persons, 2)), axis=0)
    frame, person = np.nonzero(rng.random((frames, persons)) < (0.8 if gaps else 1.1))
    middle, half = paths[frame, person], tall[person][:, None] * (0.2, 0.5)
    scores = rng.uniform(0.05, 1, (len(frame), 17)) * (rng.random((len(frame), 17)) < 0.8)
    poses = ClipPoses(
        clip_id="0" * 20, frame_count=frames, width=width, height=height, fps=10.0, frame=frame.astype(np.int32),
        bboxes=np.hstack([middle - half, middle + half]).astype(np.float32),
        scores=rng.uniform(0.3, 1, len(frame)).astype(np.float32),
        keypoints=(middle[:, None] + rng.normal(0, 1, (len(frame), 17, 2)) * half[:, None]).astype(np.float32),
        keypoint_scores=scores.astype(np.float32),
    )  # fmt: skip
    return ClipTracks.from_poses(poses, person.astype(np.int32) + 1), np.arange(frames, dtype=np.int32)


def by_track(ranked):
    """(tracks, 12): components, involvement and rank of every track, by id."""
    _, first = np.unique(ranked.track_id, return_index=True)
    return np.column_stack([ranked.components[first], ranked.involvement[first], ranked.rank[first]])


@pytest.mark.parametrize("regions", list(DEFAULTS.region_presets))
@pytest.mark.parametrize("preset", list(DEFAULTS.presets))
@pytest.mark.parametrize(
    ("form", "scaled", "adaptive"),
    [pytest.param("frame", False, False, id="frame-pixels"), pytest.param("track", True, False, id="track-scaled"),
     pytest.param("frame", True, True, id="frame-scaled-adaptive")],
)  # fmt: skip
def test_every_preset_computes_what_the_spec_says(preset, regions, form, scaled, adaptive):
    params = with_(
        preset=preset, regions=regions, position_form=form, scale_normalised=scaled, adaptive_regions=adaptive
    )
    tracks, frames = crowd(len(preset) + len(regions))
    weights = params.region_weights.model_dump()
    weights = slow.adapted(tracks, params, weights, frames) if adaptive else weights
    expected = slow.components(tracks, params, weights, frames)

    got = by_track(rank(tracks, params, frames=frames))

    assert len(got) == len(expected)
    np.testing.assert_allclose(got[:, :10], [expected[track] for track in sorted(expected)], atol=2e-6)
    np.testing.assert_allclose(
        got[:, 10], [slow.involvement(expected[track], params) for track in sorted(expected)], atol=2e-6
    )


def test_the_shipped_presets_are_those_of_the_spec():
    prevention, accuracy, realtime = (
        tuple(DEFAULTS.presets[n].model_dump().values())[:5] for n in ("prevention", "accuracy", "realtime")
    )
    assert prevention == (0.2, 0.3, 0.35, 0.1, 0.05)
    assert accuracy == (0.4, 0.2, 0.2, 0.15, 0.05)
    assert realtime == (0.35, 0.35, 0.2, 0.05, 0.05)
    assert {name: tuple(weights.model_dump().values()) for name, weights in DEFAULTS.region_presets.items()} == {
        "center_focused": (1.0, 0.7, 0.7, 0.6, 0.6), "balanced": (0.8,) * 5, "upper_focused": (1.0, 0.9, 0.9, 0.5, 0.5),
        "lower_focused": (1.0, 0.7, 0.7, 0.8, 0.8), "indoor": (1.2, 0.6, 0.6, 0.5, 0.5), "outdoor": (0.9, 0.8, 0.8, 0.8, 0.8),
        "corridor": (1.0, 0.7, 0.7, 0.7, 0.7),
    }  # fmt: skip
    assert (DEFAULTS.movement_px, DEFAULTS.interaction_px, DEFAULTS.movement_history) == (50, 150, 5)
    assert (DEFAULTS.adaptive_rounds, DEFAULTS.adaptive_rate, DEFAULTS.adaptive_tolerance) == (5, 0.3, 0.05)


choices = st.fixed_dictionaries({
    "preset": st.sampled_from(list(DEFAULTS.presets)), "regions": st.sampled_from(list(DEFAULTS.region_presets)),
    "position_form": st.sampled_from(["frame", "track"]), "scale_normalised": st.booleans(), "adaptive_regions": st.booleans(),
})  # fmt: skip
seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(seeds, choices)
def test_everything_lies_between_0_and_1_and_ranks_follow_involvement(seed, chosen):
    tracks, frames = crowd(seed)
    got = by_track(rank(tracks, with_(**chosen), frames=frames))
    assert ((got[:, :11] >= 0) & (got[:, :11] <= 1)).all()
    ranked = got[got[:, 11] > 0]
    ranked = ranked[np.argsort(ranked[:, 11])]
    assert ranked[:, 11].tolist() == list(range(1, len(ranked) + 1))
    assert (np.diff(ranked[:, 10]) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(seeds, choices)
def test_a_mirrored_video_gives_the_same_ranking(seed, chosen):
    tracks, frames = crowd(seed)
    mirrored = replace(
        tracks,
        keypoints=tracks.keypoints * np.float32([-1, 1]) + np.float32([tracks.width, 0]),
        bboxes=np.float32([tracks.width, 0, tracks.width, 0])
        + (tracks.bboxes * np.float32([-1, 1, -1, 1]))[:, [2, 1, 0, 3]],
    )
    params = with_(**chosen)
    # rounding may move a point across a border of a region, where the score jumps: hence the median and not the maximum
    difference = np.abs(by_track(rank(mirrored, params, frames=frames)) - by_track(rank(tracks, params, frames=frames)))
    assert np.median(difference[:, :11].max(axis=1)) < 1e-4


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.5, 2.0, 4.0]), st.sampled_from(["frame", "track"]))
def test_scaled_variants_do_not_depend_on_the_resolution(seed, factor, form):
    tracks, frames = crowd(seed)
    larger = replace(
        tracks, width=int(tracks.width * factor), height=int(tracks.height * factor),
        keypoints=tracks.keypoints * np.float32(factor), bboxes=tracks.bboxes * np.float32(factor),
    )  # fmt: skip
    params = with_(scale_normalised=True, position_form=form)
    np.testing.assert_allclose(
        by_track(rank(larger, params, frames=frames)), by_track(rank(tracks, params, frames=frames)), atol=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(seeds, choices, st.randoms(use_true_random=False))
def test_the_order_of_the_persons_does_not_matter(seed, chosen, random):
    tracks, frames = crowd(seed)
    order = list(range(len(tracks)))
    random.shuffle(order)
    shuffled = only(tracks, order)
    params = with_(**chosen)
    assert np.array_equal(
        by_track(rank(shuffled, params, frames=frames)), by_track(rank(tracks, params, frames=frames))
    )


def test_who_is_seen_too_briefly_or_too_weakly_is_not_ranked():
    tracks, frames = crowd(1, persons=3, gaps=False)
    brief = (tracks.track_id != 1) | (tracks.frame < 2)
    tracks = only(tracks, brief)
    tracks.scores[tracks.track_id == 2] = 0.1
    ranked = rank(tracks, DEFAULTS, frames=frames)
    assert {int(t): int(r) for t, r in zip(ranked.track_id, ranked.rank, strict=True)} == {1: 0, 2: 0, 3: 1}
    assert (ranked.involvement > 0).all()


def test_a_clip_with_nobody_has_an_empty_ranking():
    tracks, frames = crowd(0)
    nobody = only(tracks, slice(0))
    ranked = rank(nobody, DEFAULTS, frames=frames)
    assert len(ranked) == 0
    assert ranked.components.shape == (0, len(COMPONENTS))


@pytest.mark.parametrize("form", ["frame", "track"])
def test_joints_that_are_nowhere_do_not_spoil_the_ranking(form):
    tracks, frames = crowd(3)
    tracks.keypoints[::3, ::2] = np.nan
    tracks.keypoints[1::3, 1] = np.inf
    tracks.keypoint_scores[2] = 0
    ranked = rank(tracks, with_(position_form=form), frames=frames)
    assert np.isfinite(ranked.components).all()
    assert np.isfinite(ranked.involvement).all()


def test_two_who_struggle_in_the_middle_outrank_who_stands_by():
    frames = np.arange(20, dtype=np.int32)
    rng = np.random.default_rng(0)
    fight = np.array([[320, 220], [360, 220]]) + np.cumsum(rng.normal(0, 6, (20, 2, 2)), axis=0)
    places = np.concatenate([fight, np.tile([[[60, 60], [590, 70]]], (20, 1, 1))], axis=1).reshape(-1, 2)
    half = np.array([30.0, 60.0])
    boxes = np.hstack([places - half, places + half]).astype(np.float32)
    poses = ClipPoses(
        clip_id="0" * 20, frame_count=20, width=640, height=360, fps=10.0, frame=np.repeat(frames, 4), bboxes=boxes,
        scores=np.full(80, 0.8, np.float32), keypoint_scores=np.full((80, 17), 0.8, np.float32),
        keypoints=np.repeat(places[:, None], 17, axis=1).astype(np.float32),
    )  # fmt: skip
    for preset in DEFAULTS.presets:
        got = by_track(
            rank(
                ClipTracks.from_poses(poses, np.tile(np.arange(1, 5, dtype=np.int32), 20)),
                with_(preset=preset),
                frames=frames,
            )
        )
        assert set(got[:2, 11]) == {1, 2}, preset


@pytest.mark.parametrize("rows", [0, 1, 2, 9, 11])
def test_a_clip_with_fewer_rows_than_the_history_is_ranked_like_any_other(rows):
    tracks, frames = crowd(3)
    few = only(tracks, slice(rows))
    params = with_(adaptive_regions=False)
    weights = params.region_weights.model_dump()
    expected = slow.components(few, params, weights, frames) if rows else {}
    got = by_track(rank(few, params, frames=frames))
    assert len(got) == len(expected)
    if rows:
        np.testing.assert_allclose(got[:, :10], [expected[track] for track in sorted(expected)], atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_one_frame_rate_or_half_of_it_the_limbs_of_a_steady_mover_are_as_fast(seed):
    tracks, frames = steady(seed)
    half = only(tracks, tracks.frame % 2 == 0)
    column = COMPONENTS.index("limbs")
    whole = by_track(rank(tracks, DEFAULTS, frames=frames))[:, column]
    thinned = by_track(rank(half, DEFAULTS, frames=frames[::2]))[:, column]
    np.testing.assert_allclose(thinned, whole, atol=1e-3)


def test_of_two_pairs_the_one_that_stands_close_and_strikes_comes_first_even_if_one_of_them_lies_still():
    frames = np.arange(20, dtype=np.int32)
    places = np.array([[100.0, 200], [150, 200], [400, 200], [520, 200]])
    still = np.zeros((20, 4, 17, 2)) + places[None, :, None] + np.linspace(-40, 40, 17)[:, None] * (0.1, 1)
    still[::2, 0, 9] += (
        45,
        0,
    )  # the first one's wrist goes to and fro between himself and the second, who does nothing
    still[:, 2:, 9] += np.random.default_rng(0).normal(0, 8, (20, 2, 2))  # the other two are lively, apart
    tracks = people(still, places)
    ranked = by_track(rank(tracks, DEFAULTS, frames=frames))
    assert set(ranked[:2, -1]) == {1, 2}


def test_who_is_alone_has_no_partner_and_nobody_is_one_s_own():
    tracks, frames = crowd(5, persons=1)
    ranked = by_track(rank(tracks, DEFAULTS, frames=frames))
    assert not ranked[0, [COMPONENTS.index(name) for name in ("closeness", "contact", "partner")]].any()
    assert ranked[0, -1] == 1


def test_who_is_not_ranked_does_not_draw_the_region_weights_to_where_it_is():
    chosen = {"preset": "accuracy", "regions": "lower_focused", "adaptive_tracks": 1}
    places, frames = np.array([[30, 30], [610, 20], [320, 180]]), np.arange(30, dtype=np.int32)
    tracks = people(np.zeros((30, 3, 17, 2)) + places[None, :, None], places)
    tracks.scores[tracks.track_id == 3] = 0.1  # first in all else, but as weak as a poster
    fixed = by_track(rank(tracks, with_(**chosen, adaptive_regions=False), frames=frames))
    assert fixed[:, -2].argmax() == 2
    assert fixed[2, -1] == 0
    without = only(tracks, tracks.track_id < 3)
    position = COMPONENTS.index("position")
    with_poster, alone = (by_track(rank(some, with_(**chosen), frames=frames))[:2] for some in (tracks, without))
    assert np.array_equal(with_poster[:, position], alone[:, position])
    assert not np.array_equal(alone[:, position], fixed[:2, position])


def test_filled_rows_change_nothing_and_get_what_their_track_has():
    for seed in range(5):
        tracks, frames = crowd(seed, persons=4)
        made = fill(tracks, frames, limit_s=1.0)
        assert made.interpolated.any()
        plain, filled = (rank(some, with_(max_flicker=1.0), frames=frames) for some in (tracks, made))
        for name in ("rank", "involvement", "components"):
            assert np.array_equal(getattr(filled, name)[~made.interpolated], getattr(plain, name))
        assert np.array_equal(by_track(filled), by_track(plain))


def test_a_track_too_brief_to_be_ranked_is_nobody_s_partner():
    tracks, frames = crowd(6, persons=2, gaps=False)
    tracks.bboxes[tracks.track_id == 2] = tracks.bboxes[tracks.track_id == 1]
    tracks.scores[:] = 1.0
    brief = only(tracks, (tracks.track_id == 1) | (tracks.frame < 2))
    columns = [COMPONENTS.index(name) for name in ("closeness", "partner")]
    assert by_track(rank(tracks, DEFAULTS, frames=frames))[0, columns[0]] == pytest.approx(1.0)
    assert not by_track(rank(brief, DEFAULTS, frames=frames))[0, columns].any()


@pytest.mark.parametrize("component", ["closeness", "contact"])
def test_what_is_between_two_is_the_same_for_both(component):
    for seed in range(20):
        tracks, frames = crowd(seed, persons=2)
        got = by_track(rank(tracks, with_(max_flicker=1.0), frames=frames))[:, COMPONENTS.index(component)]
        assert got[0] == got[1]


@pytest.mark.parametrize("component", ["closeness", "contact"])
def test_a_weak_answer_beside_somebody_counts_less_than_a_sure_person(component):
    tracks, frames = crowd(3, persons=2, gaps=False)
    for column in (tracks.bboxes, tracks.keypoints, tracks.keypoint_scores):
        column[tracks.track_id == 2] = column[tracks.track_id == 1]
    tracks.scores[:] = 1.0
    weak = replace(tracks, scores=np.where(tracks.track_id == 2, 0.5, tracks.scores).astype(np.float32))
    place = COMPONENTS.index(component)
    sure, unsure = (by_track(rank(some, DEFAULTS, frames=frames))[:, place] for some in (tracks, weak))
    assert sure.min() > 0
    np.testing.assert_allclose(unsure, sure / 2, rtol=1e-5)


def test_two_hundred_persons_in_a_frame_are_ranked_within_bounded_memory():
    tracks, frames = crowd(8, persons=200, frames=6, gaps=False)
    tracks.scores[:] = 0.9
    ranked = rank(tracks, DEFAULTS, frames=frames)
    assert sorted(set(ranked.rank.tolist())) == list(range(1, 201))


def steady(seed):
    """Two persons whose limbs move at an even pace beside their trunks. Returns the tracks and the frames."""
    rng = np.random.default_rng(seed)
    frames = np.arange(13, dtype=np.int32)
    places = rng.uniform(100, 300, (2, 2))
    points = np.zeros((13, 2, 17, 2)) + places[None, :, None] + rng.normal(0, 20, (17, 2))
    points[:, :, [9, 10, 15, 16]] += frames[:, None, None, None] * rng.normal(0, 1.5, (4, 2))
    return people(points, places), frames


def people(points, places):
    """Tracks 1, 2, … of persons with joints `(F, P, 17, 2)` in boxes of 60 by 120 px around `places` `(P, 2)`."""
    count, persons = points.shape[:2]
    middles, half = np.tile(places, (count, 1)), np.array([30, 60])
    rows = count * persons
    poses = ClipPoses(
        clip_id="0" * 20, frame_count=count, width=640, height=360, fps=10.0, scores=np.full(rows, 0.8, np.float32),
        frame=np.repeat(np.arange(count, dtype=np.int32), persons), keypoint_scores=np.full((rows, 17), 0.8, np.float32),
        bboxes=np.hstack([middles - half, middles + half]).astype(np.float32),
        keypoints=points.reshape(rows, 17, 2).astype(np.float32),
    )  # fmt: skip
    return ClipTracks.from_poses(poses, np.tile(np.arange(1, persons + 1, dtype=np.int32), count))


def only(tracks, rows):
    """The chosen rows of some tracks."""
    return replace(tracks, **{name: getattr(tracks, name)[rows] for name in ROWS})


def test_tracks_written_before_a_component_was_there_are_read_with_zeros():
    from violence_ops.records import ClipRecord

    tracks, frames = crowd(2)
    ranked = rank(tracks, DEFAULTS, frames=frames)
    clip = ClipRecord(
        clip_id=tracks.clip_id, sha256="", batch_id="", source_path="", source_group="", width=tracks.width,
        height=tracks.height, fps=tracks.fps, frame_count=tracks.frame_count,
    )  # fmt: skip
    older = ranked.to_table().drop_columns(["closeness", "contact", "limbs", "partner"])
    read = ClipTracks.from_table(older, clip)
    assert np.array_equal(read.components[:, :6], ranked.components[:, :6])
    assert not read.components[:, 6:].any()


def talkers_and_fighters(seconds, fight_s, fps=15.0):
    """Three who stand together throughout; two who fight in the middle, further right, each with fists at the other's head."""
    rng = np.random.default_rng(1)
    body = np.array([
        [0, -185], [5, -190], [-5, -190], [10, -187], [-10, -187], [25, -160], [-25, -160], [32, -120], [-32, -120], [35, -85], [-35, -85],
        [18, -95], [-18, -95], [18, -50], [-18, -50], [18, 0], [-18, 0],
    ], float)  # fmt: skip
    rows = []
    for frame in range(int(seconds * fps)):
        rows += [(frame, person, np.add(body, (600 + 88 * person, 700))) for person in range(3)]
        if abs(frame / fps - seconds / 2) <= fight_s / 2:
            reach = (1 + np.sin(3 * np.pi * frame / fps)) / 2
            for person, place, other in ((3, 1300, 1350), (4, 1350, 1300)):
                pose = np.add(body, (place, 650))
                pose[9] = reach * np.array([other, 480]) + (1 - reach) * pose[9]
                pose[10] = (1 - reach) * np.array([other, 480]) + reach * pose[10]
                rows.append((frame, person, pose))
    frame, person, poses = (np.array(column) for column in zip(*rows, strict=True))
    poses = (poses + rng.normal(0, 1, poses.shape)).astype(np.float32)
    found = ClipPoses(
        clip_id="0" * 20, frame_count=int(seconds * fps), width=1920, height=1080, fps=fps, frame=frame.astype(np.int32),
        bboxes=np.hstack([poses.min(axis=1) - 5, poses.max(axis=1) + 5]), scores=np.full(len(frame), 0.85, np.float32),
        keypoints=poses, keypoint_scores=np.full(poses.shape[:2], 0.8, np.float32),
    )  # fmt: skip
    return ClipTracks.from_poses(found, person.astype(np.int32) + 1), np.arange(int(seconds * fps), dtype=np.int32)


@pytest.mark.parametrize("seconds", [10, 130, 310])
def test_a_fight_is_seen_however_long_the_recording_around_it_is(seconds):
    tracks, frames = talkers_and_fighters(seconds, fight_s=8)
    ranked = rank(tracks, DEFAULTS, frames=frames)
    ranks = ranked.rank[ranked.track_id >= 4]
    assert (ranks <= 2).all()
    assert (ranks > 0).all()


def test_each_piece_of_a_long_clip_is_ranked_as_a_clip_of_its_own():
    tracks, frames = crowd(3, persons=5, frames=300)  # half a minute
    everybody = with_(min_track_s=0.0, min_mean_score=0.0, max_flicker=1.0)
    ranked = rank(tracks, everybody, frames=frames)
    for start in (0, 100, 200):
        inside = (tracks.frame >= start) & (tracks.frame < start + 100)
        piece = replace(tracks, frame_count=100, **{name: getattr(tracks, name)[inside] for name in ROWS})
        piece = replace(piece, frame=piece.frame - start)
        alone = rank(piece, everybody, frames=frames[:100])
        for name in ("rank", "involvement", "components"):
            assert np.array_equal(getattr(ranked, name)[inside], getattr(alone, name))
