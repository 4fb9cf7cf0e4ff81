"""A training that is killed goes on from its last epoch and gives the model that it would have given."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from violence_ops.params import Params, load_params
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.recognition.train import Trained, fit, learning_rate, weighted_cross_entropy

PARAMS = Path(__file__).parents[2] / "params.yaml"


def params(**overrides: object) -> Params:
    small = {"train.start": None, "train.base_channels": 8, "train.epochs": 4}
    small |= {"train.learning_rate": 0.03, "train.mixup": 0.4}
    return load_params(PARAMS, small | {key.replace("__", "."): value for key, value in overrides.items()})


def clips(frames: int = 36) -> list[Skeleton]:
    made = []
    for number in range(12):
        rng = np.random.default_rng(number)
        limbs = rng.normal(size=(2, frames, 17, 2)) * (8 if number % 2 else 1.5)
        points = rng.normal(size=(2, 1, 17, 2)) * 30 + limbs + 300
        made.append(
            Skeleton(clip_id=f"{number:020x}", width=640, height=360, step=2, intensity=0.6,
                     keypoints=points.astype(np.float32), keypoint_scores=np.full((2, frames, 17), 0.75, np.float32))
        )  # fmt: skip
    return made


def train(chosen: Params, checkpoint: Path | None = None, talk: bool = False) -> Trained:
    made = clips()
    labels = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(made)}
    say = (lambda epoch: print(epoch.epoch, flush=True)) if talk else None
    return fit(made[:8], made[8:], labels, chosen.train, chosen.windows, say, checkpoint)


@pytest.mark.slow
def test_a_training_that_was_killed_gives_the_same_bits_as_one_that_was_not(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    with subprocess.Popen([sys.executable, __file__, str(checkpoint)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert process.stdout.readline() == "2\n"
        process.send_signal(signal.SIGKILL)
    done = len(torch.load(checkpoint, weights_only=True)["history"])
    assert 2 <= done < 40
    chosen = params(train__epochs=done + 2, train__min_epochs=40)
    resumed, whole = train(chosen, checkpoint), train(chosen)
    assert all(torch.equal(value, whole.state[name]) for name, value in resumed.state.items())
    assert (resumed.history, resumed.threshold, resumed.best_epoch) == (
        whole.history,
        whole.threshold,
        whole.best_epoch,
    )
    assert resumed.val_probabilities.tolist() == whole.val_probabilities.tolist()


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = train(params(train__epochs=2), tmp_path / "training.pt")
    said: list[int] = []
    made = clips()
    labels = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(made)}
    chosen = params(train__epochs=2)
    again = fit(
        made[:8],
        made[8:],
        labels,
        chosen.train,
        chosen.windows,
        lambda e: said.append(e.epoch),
        tmp_path / "training.pt",
    )
    assert said == []
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())


def test_the_rate_falls_in_steps_or_along_a_cosine() -> None:
    steps = params(train__lr_steps=[2, 3]).train
    assert [learning_rate(steps, n) for n in (1, 2, 3, 4)] == pytest.approx([0.03, 0.03, 0.003, 0.0003])
    cosine = params(train__schedule="cosine").train
    rates = [learning_rate(cosine, n) for n in (1, 2, 3, 4, 5)]
    assert rates == pytest.approx([0.03, 0.03 * (1 + 0.5**0.5) / 2, 0.015, 0.03 * (1 - 0.5**0.5) / 2, 0.0])


def test_the_loss_is_torchs_for_whole_labels_and_smoothing_moves_it_to_the_other_class() -> None:
    scores, labels, weights = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([1.0, 2.0])
    whole = torch.eye(2)[labels]
    expected = torch.nn.functional.cross_entropy(scores, labels, weight=weights)
    assert weighted_cross_entropy(scores, whole, weights).item() == pytest.approx(expected.item(), abs=1e-6)
    sure = 20 * whole - 10
    assert (
        weighted_cross_entropy(sure, 0.9 * whole + 0.05, weights) > weighted_cross_entropy(sure, whole, weights) + 0.5
    )


def test_smoothing_and_mixup_train_and_keep_the_seeds_promise() -> None:
    chosen = params(train__label_smoothing=0.1, train__epochs=2)
    first, again, plain = train(chosen), train(chosen), train(params(train__mixup=0, train__epochs=2))
    assert first.history == again.history
    assert first.history[0].train_loss != plain.history[0].train_loss


if __name__ == "__main__":
    train(params(train__epochs=40, train__min_epochs=40), Path(sys.argv[1]), talk=True)
