"""SPEC 4 and 5 written down a second time, person by person and frame by frame, as plainly as they read."""

import math
import statistics

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


def components(tracks, params, weights, frames):
    """The six components of every track, in a dict by id."""
    shares = params.composite_weights.model_dump()
    rows = {}
    for row in sorted(range(len(tracks)), key=lambda row: tracks.frame[row]):
        rows.setdefault(int(tracks.track_id[row]), []).append(row)
    points = [centre(k, s) for k, s in zip(tracks.keypoints, tracks.keypoint_scores, strict=True)]
    result = {}
    for track, own in rows.items():
        heights = [float(tracks.bboxes[row][3] - tracks.bboxes[row][1]) for row in own]
        scale = statistics.median(heights) / params.reference_height_px if params.scale_normalised else 1.0
        seen, composites, values = [], [], []
        for row in own:
            point = points[row]
            position = frame_position(point, tracks.width, tracks.height, weights)
            last = seen[-params.movement_history :]
            movement = 0.5
            if point and len(last) >= 2:
                movement = min(
                    sum(math.dist(point, other) for other in last) / len(last) / (params.movement_px * scale), 1
                )
            interaction = 0.0
            for other in range(len(tracks)):
                if point and points[other] and other != row and tracks.frame[other] == tracks.frame[row]:
                    distance = math.dist(point, points[other])
                    interaction = max(interaction, 1 - distance / (params.interaction_px * scale))
            recent = composites[-params.consistency_history :]
            consistency = 1 / (1 + statistics.pstdev(recent)) if len(recent) >= 3 else 0.5
            value = [position, movement, interaction, detection(tracks.keypoint_scores[row]), consistency]
            values.append(value)
            composites.append(sum(shares[name] * part for name, part in zip(COMPONENTS[:5], value, strict=True)))
            if point:
                seen.append(point)
        means = [sum(column) / len(own) for column in zip(*values, strict=True)]
        if params.position_form == "track":
            means[0] = track_position(
                tracks.bboxes[own].astype(float), tracks.width, tracks.height, weights, len(frames)
            )
        result[track] = [*means, len(own) / len(frames)]
    return result


def involvement(values, params):
    shares = params.composite_weights.model_dump()
    composite = sum(shares[name] * part for name, part in zip(COMPONENTS[:5], values, strict=False))
    return (1 - params.persistence_weight) * composite + params.persistence_weight * values[5]


def adapted(tracks, params, weights, frames):
    for _ in range(params.adaptive_rounds):
        scores = {
            track: involvement(values, params) for track, values in components(tracks, params, weights, frames).items()
        }
        top = sorted(scores, key=lambda track: (-scores[track], track))[: params.adaptive_tracks]
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
