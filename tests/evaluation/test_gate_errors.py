"""How often the default policy errs, on drawn models whose true F1 is known (the whole table: `python -m benchmarks.gate`)."""

from __future__ import annotations

from benchmarks.gate import simulate
from violence_ops.params import GateParams


def test_the_default_policy_seldom_passes_what_is_not_better_and_seldom_refuses_what_is(
    gate_params: GateParams,
) -> None:
    policies = {"default": gate_params.model_copy(update={"resamples": 400})}
    found = {
        cell.difference: cell.verdicts
        for cell in simulate(policies, sizes=(100,), differences=(-0.05, 0.0, 0.1), champion_f1=0.8, trials=60)
    }
    # 60 draws: 5 % shows as at most 15 % but once in a thousand times
    assert found[-0.05]["pass"] <= 0.1
    assert found[0.0]["pass"] <= 0.15
    assert found[0.1]["pass"] >= 0.6
    assert found[0.1]["refuse"] <= 0.1
