"""Numbers in sentences."""

from __future__ import annotations

import pytest

from violence_ops.cli.common import show
from violence_ops.stages.releasing.ledger_log import VerifyResult
from violence_ops.store.index import RebuildResult
from violence_ops.wording import clock, counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 clips wait"), (1, "1 clip waits"), (2, "2 clips wait")])
def test_one_is_singular_and_every_other_number_plural(number: int, said: str) -> None:
    assert counted(number, "clip waits", "clips wait") == said
    assert counted(number, "clip") == " ".join(said.split()[:2])


def test_results_count_on_the_terminal_in_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    show(VerifyResult(1, None), as_json=False)
    show(RebuildResult({"sealed": 1}, {"accepted": 15, "quarantined": 1}), as_json=False)
    held, _, *counts = capsys.readouterr().out.splitlines()
    assert held == "The ledger holds: 1 line, each bound to the one before and in git."
    assert counts == ["batches  1 sealed", "clips    15 accepted, 1 quarantined"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "0:00"), (7.9, "0:07"), (750.0, "12:30"), (3600.0, "1:00:00"), (3725.5, "1:02:05")]
)
def test_a_time_in_a_video_reads_as_on_a_player(seconds: float, said: str) -> None:
    assert clock(seconds) == said
