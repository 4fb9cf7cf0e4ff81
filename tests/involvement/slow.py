"""SPEC 4 and 5, and docs/involvement.md, written down a second time, person by person and frame by frame, as plainly as they read."""

import math
import statistics
from itertools import pairwise

from violence_ops.records import COMPONENTS

REGIONS = {"centre": (1 / 4, 1 / 4, 3 / 4, 3 / 4), "top_left": (0, 0, 1 / 2, 1 / 2), "top_right": (1 / 2, 0, 1, 1 / 2),
           "bottom_left": (0, 1 / 2, 1 / 2, 1), "bottom_right": (1 / 2, 1 / 2, 1, 1)}  # fmt: skip


def holding(point, width, height):
    for name, (left, top, right, bottom) in REGIONS.items():
        box = left * width, top * height, right * width, bottom * height
        if box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]:
            yield name, box


def centre(keypoints, scores):
    valid = [tuple(map(float, point)) for point, score in zip(keypoints, scores, strict=True) if score > 0]
    return tuple(sum(axis) / len(valid) for axis in zip(*valid, strict=True)) if valid else None


def frame_position(point, width, height, weights):
    best = 0.0
    for name, (left, top, right, bottom) in holding(point, width, height) if point else ():
        half_diagonal = math.dist((left, top), (right, bottom)) / 2
        middle = (left + right) / 2, (top + bottom) / 2
        best = max(best, weights[name] * max(0.5, 1 - 0.5 * math.dist(point, middle) / half_diagonal))
    return min(best, 1.0)


def track_position(boxes, width, height, weights, frames):
    sums = dict.fromkeys(REGIONS, 0.0)
    for left, top, right, bottom in boxes:
        point = (left + right) / 2, (top + bottom) / 2
        for name, box in holding(point, width, height):
            rx, ry = (point[0] - box[0]) / (box[2] - box[0]), (point[1] - box[1]) / (box[3] - box[1])
            if name == "centre":
                sums[name] += 0.8 + 0.2 * min(rx, 1 - rx, ry, 1 - ry) / 0.5
            else:
                sums[name] += 1 - math.dist((rx, ry), (0.5, 0.5)) / math.sqrt(0.5)
    return min(max(weights[name] * total / frames for name, total in sums.items()), 1.0)


def detection(scores):
    valid = [float(score) for score in scores if score > 0]
    return 0.7 * (sum(valid) / len(valid) if valid else 0.0) + 0.3 * len(valid) / len(scores)


def movement(point, earlier, history, unit):
    """`earlier` are all centres that the person had before."""
    last = earlier[-history:]
    if point is None or len(last) < 2:
        return 0.5
    return min(sum(math.dist(point, other) for other in last) / len(last) / unit, 1)


def interaction(point, others, reach):
    distances = [math.dist(point, other) for other in others if other] if point else []
    return max([0.0, *(1 - distance / reach for distance in distances)])


def consistency(earlier, history):
    recent = earlier[-history:]
    return 1 / (1 + statistics.pstdev(recent)) if len(recent) >= 3 else 0.5


def joint(keypoints, scores, number):
    return tuple(map(float, keypoints[number])) if scores[number] > 0 else None


def limb_speed(now, before, elapsed, height, full):
    """`now`, `before`: (keypoints, scores). None where nothing can be said."""
    speeds = []
    trunks = [centre([k[j] for j in (5, 6, 11, 12)], [s[j] for j in (5, 6, 11, 12)]) for k, s in (now, before)]
    for number in (9, 10, 15, 16):
        ends = [joint(*pose, number) for pose in (now, before)]
        if all(ends) and all(trunks):
            relative = [
                [e - t for e, t in zip(end, trunk, strict=True)] for end, trunk in zip(ends, trunks, strict=True)
            ]
            speeds.append(math.dist(*relative) / elapsed / height)
    return min(sum(speeds) / len(speeds) / full, 1) if speeds else None


def closeness(box, other, height, reach):
    """Boxes xyxy; `height` the mean of the two persons'."""
    across = (box[0] + box[2]) / 2 - (other[0] + other[2]) / 2
    along = 2 * (box[3] - other[3])
    return max(0.0, 1 - math.hypot(across, along) / height / reach)


def touch(pose, other, height, reach):
    best = 0.0
    for limb in (9, 10, 15, 16):
        for target in (0, 5, 6, 11, 12):
            ends = joint(*pose, limb), joint(*other, target)
            if all(ends):
                best = max(best, 1 - math.dist(*ends) / height / reach)
    return best


def pairs(tracks, params, heights, frames):
    """(closeness, contact) of every ordered pair of tracks that share a frame."""
    seen = {}
    for one in range(len(tracks)):
        for two in range(len(tracks)):
            if one != two and tracks.frame[one] == tracks.frame[two]:
                ids = int(tracks.track_id[one]), int(tracks.track_id[two])
                height = (heights[ids[0]] + heights[ids[1]]) / 2
                poses = [(tracks.keypoints[row], tracks.keypoint_scores[row]) for row in (one, two)]
                near = closeness(
                    *(tracks.bboxes[row].astype(float) for row in (one, two)), height, params.closeness_heights
                )
                there, back = (touch(*order, height, params.contact_heights) for order in (poses, poses[::-1]))
                sure = min(float(tracks.scores[one]), float(tracks.scores[two]))
                seen.setdefault(ids, []).append((sure * near, sure * (there + back) / 2))
    return {
        ids: tuple(
            sum(column) / len(values) * math.sqrt(len(values) / len(frames)) for column in zip(*values, strict=True)
        )
        for ids, values in seen.items()
    }


def rankable(tracks, params, frames):
    """Ids of the tracks that are seen for long, surely and steadily enough."""
    step = statistics.median(b - a for a, b in pairwise(frames)) if len(frames) > 1 else 1
    looked_at = sorted({*(int(f) for f in frames), *tracks.frame.tolist()})
    found = set()
    for track in set(tracks.track_id.tolist()):
        own = sorted(int(f) for f, t in zip(tracks.frame, tracks.track_id, strict=True) if t == track)
        gaps = sum(looked_at.index(b) - looked_at.index(a) > 1 for a, b in pairwise(own))
        if gaps / max(len(own) - 1, 1) > params.max_flicker + 1e-6:
            continue
        scores = [float(s) for s, t in zip(tracks.scores, tracks.track_id, strict=True) if t == track]
        long = len(scores) * step / tracks.fps >= params.min_track_s - 1e-6
        if long and sum(scores) / len(scores) >= params.min_mean_score:
            found.add(track)
    return found


def components(tracks, params, weights, frames):
    """The ten components of every track, in a dict by id."""
    shares = params.composite_weights.model_dump()
    rows = {}
    for row in sorted(range(len(tracks)), key=lambda row: tracks.frame[row]):
        rows.setdefault(int(tracks.track_id[row]), []).append(row)
    points = [centre(k, s) for k, s in zip(tracks.keypoints, tracks.keypoint_scores, strict=True)]
    boxes = tracks.bboxes.astype(float)
    heights = {track: statistics.median(boxes[row][3] - boxes[row][1] for row in own) for track, own in rows.items()}
    result, alone = {}, {}
    for track, own in rows.items():
        scale = heights[track] / params.reference_height_px if params.scale_normalised else 1.0
        seen, composites, values, speeds, last = [], [], [], [], None
        for row in own:
            point = points[row]
            others = [points[o] for o in range(len(tracks)) if o != row and tracks.frame[o] == tracks.frame[row]]
            value = [
                frame_position(point, tracks.width, tracks.height, weights),
                movement(point, seen, params.movement_history, params.movement_px * scale),
                interaction(point, others, params.interaction_px * scale),
                detection(tracks.keypoint_scores[row]),
                consistency(composites, params.consistency_history),
            ]
            values.append(value)
            composites.append(sum(shares[name] * part for name, part in zip(COMPONENTS[:5], value, strict=True)))
            seen += [point] if point else []
            pose = tracks.keypoints[row], tracks.keypoint_scores[row]
            if last is not None:
                elapsed = float(tracks.frame[row] - tracks.frame[last]) / tracks.fps
                before = tracks.keypoints[last], tracks.keypoint_scores[last]
                speeds.append(limb_speed(pose, before, elapsed, heights[track], params.limb_speed_heights))
            last = row
        means = [sum(column) / len(own) for column in zip(*values, strict=True)]
        if params.position_form == "track":
            means[0] = track_position(boxes[own], tracks.width, tracks.height, weights, len(frames))
        known = [speed for speed in speeds if speed is not None]
        limbs = sum(known) / len(known) if known else 0.0
        result[track] = [*means, len(own) / len(frames), limbs]
        total = sum(shares[name] for name in (*COMPONENTS[:5], "limbs"))
        ours = zip((*COMPONENTS[:5], "limbs"), (*means, limbs), strict=True)
        alone[track] = sum(shares[name] * part for name, part in ours) / total if total else 0.0
    return with_partners(tracks, params, frames, heights, result, alone)


def with_partners(tracks, params, frames, heights, values, alone):
    shares, eligible = params.composite_weights.model_dump(), rankable(tracks, params, frames)
    found = pairs(tracks, params, heights, frames)
    result = {}
    for track, (*spec, limbs) in values.items():
        best = (0.0, 0.0, 0.0)
        order = []
        for (one, other), (near, contact) in found.items():
            if one == track and other in eligible:
                worth = shares["closeness"] * near + shares["contact"] * contact + shares["partner"] * alone[other]
                order.append((-round(worth, 12), -near, other, (near, contact, alone[other])))
        if order:
            best = min(order)[3]
        result[track] = [*spec, best[0], best[1], limbs, best[2]]
    return result


def involvement(values, params):
    shares = params.composite_weights.model_dump()
    composite = sum(shares[name] * part for name, part in zip(COMPONENTS, values, strict=True) if name != "persistence")
    return (1 - params.persistence_weight) * composite + params.persistence_weight * values[5]


def adapted(tracks, params, weights, frames):
    for _ in range(params.adaptive_rounds):
        scores = {
            track: involvement(values, params) for track, values in components(tracks, params, weights, frames).items()
        }
        eligible = rankable(tracks, params, frames)
        top = sorted(eligible, key=lambda track: (-scores[track], track))[: params.adaptive_tracks]
        if not top:
            break
        inside, count = dict.fromkeys(REGIONS, 0), 0
        for track, (left, top_, right, bottom) in zip(tracks.track_id, tracks.bboxes.astype(float), strict=True):
            if track in top:
                count += 1
                for name, _ in holding(((left + right) / 2, (top_ + bottom) / 2), tracks.width, tracks.height):
                    inside[name] += 1
        new = {name: 0.7 * weights[name] + 0.3 * inside[name] / count for name in weights}
        change, weights = max(abs(new[name] - weights[name]) for name in weights), new
        if change < 0.05:
            break
    return weights
