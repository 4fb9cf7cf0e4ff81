"""The label can be read from the motion only: nothing else about a clip gives it away."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from violence_ops import synthetic

CLIPS = 200
Features = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """What a file browser shows of each clip, how near and how fast its people are, and its label."""
    folder: Path = tmp_path_factory.mktemp("clips")
    metadata, motion, labels = [], [], []
    for seed in range(CLIPS):
        clip = synthetic.clip(seed, ("Fight", "NonFight")[seed % 2], duration_s=1.0)
        path = folder / f"clip.{clip.scene.container}"
        synthetic.write_clip(clip, path)
        size, first = path.stat().st_size, clip.frame(0)
        metadata.append([clip.width, clip.height, clip.fps, clip.frame_count, len(clip.track_ids), first.mean(),
                         first.std(), size, size / clip.frame_count])  # fmt: skip
        motion.append(_nearness_and_speed(clip))
        labels.append(seed % 2)
    return np.array(metadata), np.array(motion), np.array(labels)


def _nearness_and_speed(clip: synthetic.SyntheticClip) -> list[float]:
    height = (clip.bboxes[..., 3] - clip.bboxes[..., 1]).mean()
    centres = clip.keypoints.mean(axis=2)
    apart = np.linalg.norm(centres[:, :, None] - centres[:, None], axis=-1) + 1e9 * np.eye(centres.shape[1])
    speed = np.linalg.norm(np.diff(clip.keypoints, axis=0), axis=-1) * clip.fps / height
    return [apart.min(axis=(1, 2)).mean() / height, speed.mean(), speed.mean(axis=(0, 2)).max()]


def _accuracy(inputs: np.ndarray, labels: np.ndarray) -> float:
    """The better of two simple classifiers, cross-validated."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    models = (
        RandomForestClassifier(200, min_samples_leaf=3, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
    )
    return max(float(cross_val_score(model, inputs, labels, cv=folds).mean()) for model in models)


@pytest.mark.slow
def test_metadata_do_not_tell_fights(features: Features) -> None:
    metadata, _, labels = features
    assert _accuracy(metadata, labels) < 0.62  # chance is 0.5, its deviation over 200 clips 0.035, two tries


@pytest.mark.slow
def test_nearness_or_speed_alone_tell_little(features: Features) -> None:
    _, motion, labels = features
    assert _accuracy(motion[:, :1], labels) < 0.8
    assert _accuracy(motion[:, 1:], labels) < 0.85
