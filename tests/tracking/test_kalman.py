import numpy as np
import pytest

from violence_ops.tracking.kalman import Motion


def textbook(measured, steps):
    """One box through the 8-state filter of SORT with matrices; returns mean (8,) and covariance (8, 8)."""

    def noise(height, position, velocity, aspect, aspect_velocity):
        return np.diag(np.square([position * height, position * height, aspect, position * height,
                                  velocity * height, velocity * height, aspect_velocity, velocity * height]))  # fmt: skip

    mean = np.concatenate([measured[0], np.zeros(4)])
    covariance = noise(measured[0][3], 2 / 20, 10 / 160, 1e-2, 1e-5)
    move, observe = np.eye(8), np.eye(4, 8)
    move[:4, 4:] = steps * np.eye(4)
    for seen in measured[1:]:
        covariance = move @ covariance @ move.T + steps * noise(mean[3], 1 / 20, 1 / 160, 1e-2, 1e-5)
        mean = move @ mean
        height = mean[3]
        uncertainty = observe @ covariance @ observe.T + np.diag(
            np.square([height / 20, height / 20, 1e-1, height / 20])
        )
        gain = covariance @ observe.T @ np.linalg.inv(uncertainty)
        mean, covariance = mean + gain @ (seen - observe @ mean), covariance - gain @ uncertainty @ gain.T
    return mean, covariance


@pytest.mark.parametrize("steps", [1.0, 2.0, 3.5])
def test_many_boxes_at_once_follow_the_textbook_filter_of_each(steps):
    rng = np.random.default_rng(0)
    boxes = rng.uniform([100, 100, 0.3, 60], [500, 300, 0.6, 200], (5, 4))
    walks = boxes + np.cumsum(rng.normal(0, [4, 3, 0.01, 2], (8, 5, 4)), axis=0)

    motion = Motion.at(walks[0].T)
    for seen in walks[1:]:
        motion.predict(steps)
        motion.update(seen.T)

    for box in range(5):
        mean, covariance = textbook(walks[:, box], steps)
        np.testing.assert_allclose(np.concatenate([motion.position[box], motion.believed[1, :, box]]), mean, rtol=1e-9)
        np.testing.assert_allclose(motion.believed[2, :, box], np.diag(covariance)[:4], rtol=1e-9)
        np.testing.assert_allclose(motion.believed[4, :, box], np.diag(covariance)[4:], rtol=1e-9)
        np.testing.assert_allclose(motion.believed[3, :, box], np.diag(covariance[:4, 4:]), rtol=1e-9)


def test_a_steady_walk_is_foreseen():
    walk = np.array([[100 + 5.0 * step, 200, 0.4, 100] for step in range(30)])
    motion = Motion.at(walk[:1].T)
    for seen in walk[1:]:
        motion.predict(1.0)
        motion.update(seen[:, None])
    motion.predict(4.0)
    assert motion.position[0, 0] == pytest.approx(walk[-1, 0] + 20, abs=1.0)
