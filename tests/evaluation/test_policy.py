"""The gate's promises: what is passed, refused and left undecided, and that nothing bad ever helps."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.evaluation.policy import judge
from violence_ops.evaluation.records import DataChecks, Evaluation, Leakage, Verdict
from violence_ops.evaluation.report import headline
from violence_ops.params import GateParams

Make = Callable[..., Evaluation]
LABELS = [True, False] * 10
RIGHT = [0.9 if label else 0.1 for label in LABELS]
RANK = {"pass": 2, "undecided": 1, "refuse": 0}


def _wrong(*indices: int) -> list[float]:
    return [1 - value if i in indices else value for i, value in enumerate(RIGHT)]


def _policy(gate_params: GateParams, **changes: object) -> GateParams:
    return gate_params.model_copy(update=changes)


def _outcome(verdict: Verdict, name: str) -> str:
    return next(check.outcome for check in verdict.checks if check.name == name)


def test_the_first_model_passes_when_it_is_above_the_floors(make_evaluation: Make, gate_params: GateParams) -> None:
    verdict = judge(make_evaluation(LABELS, RIGHT), gate_params)
    assert verdict.verdict == "pass"
    assert "F1 difference" not in {check.name for check in verdict.checks}


@pytest.mark.parametrize("name", ["F1 floor", "recall floor"])
def test_a_model_below_a_floor_is_refused_with_its_figures(
    make_evaluation: Make, gate_params: GateParams, name: str
) -> None:
    verdict = judge(make_evaluation(LABELS, _wrong(0, 2, 4, 6, 8, 10)), gate_params)
    assert verdict.verdict == "refuse"
    assert _outcome(verdict, name) == "refuse"
    assert any("0.400" in reason or "0.571" in reason for reason in verdict.reasons)


def test_a_model_that_always_says_fight_is_refused_whatever_its_f1(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    verdict = judge(make_evaluation(LABELS, [0.9] * len(LABELS)), gate_params)
    assert verdict.verdict == "refuse"
    assert _outcome(verdict, "specificity floor") == "refuse"


@given(st.floats(0, 1), st.booleans())
@settings(deadline=None, max_examples=20)
def test_a_model_that_cannot_tell_the_classes_apart_is_refused_whatever_its_other_figures(
    make_evaluation: Make, gate_params: GateParams, probability: float, lenient: bool
) -> None:
    policy = _policy(gate_params, min_f1=0.0, min_recall=0.0, min_specificity=0.0, max_ece=1.0)
    verdict = judge(make_evaluation(LABELS, [probability] * len(LABELS)), policy if lenient else gate_params)
    assert verdict.verdict == "refuse"
    assert _outcome(verdict, "AUC floor") == "refuse"


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_more_probability_on_a_fight_never_fails_the_auc_floor(
    make_evaluation: Make, gate_params: GateParams, data: st.DataObject
) -> None:
    own = data.draw(st.lists(st.floats(0, 1), min_size=len(LABELS), max_size=len(LABELS)))
    index = data.draw(st.sampled_from([i for i, label in enumerate(LABELS) if label]))
    raised = [data.draw(st.floats(value, 1)) if i == index else value for i, value in enumerate(own)]
    before, after = (_outcome(judge(make_evaluation(LABELS, made), gate_params), "AUC floor") for made in (own, raised))
    assert RANK[after] >= RANK[before]


def test_one_label_alone_leaves_the_auc_undecided(make_evaluation: Make, gate_params: GateParams) -> None:
    verdict = judge(make_evaluation([True] * 20, [0.9] * 20), gate_params)
    assert _outcome(verdict, "AUC floor") == "undecided"


def test_too_few_clips_of_a_label_are_undecided_not_passed(make_evaluation: Make, gate_params: GateParams) -> None:
    verdict = judge(make_evaluation(LABELS[:8], RIGHT[:8]), gate_params)
    assert (verdict.verdict, _outcome(verdict, "support")) == ("undecided", "undecided")


def test_a_first_model_judged_on_few_source_groups_is_undecided_and_told_how_many(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    few, enough = (
        judge(make_evaluation(LABELS, RIGHT, groups=[f"g{i % groups}" for i in range(len(LABELS))]), gate_params)
        for groups in (4, 5)
    )
    assert few.verdict == "undecided"
    assert few.reasons == [
        "The holdout has 10 Fight and 10 NonFight clips of 4 source groups; 8 of each label (gate.min_clips) and 5 source groups are wanted. "
        "Bring labelled clips of new source groups: the next retraining holds out what is missing (if holdout.auto_freeze is off, "
        "run `violence-ops holdout freeze` before it) and its candidate is judged on all of it."
    ]
    assert enough.verdict == "pass"


def test_a_clearly_better_candidate_passes_and_a_clearly_worse_one_is_refused(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    policy = _policy(gate_params, max_slice_loss=1.0, min_f1=0.0, min_recall=0.0, min_auc=0.0)
    bad = _wrong(*range(12))
    assert judge(make_evaluation(LABELS, RIGHT, bad), policy).verdict == "pass"
    assert judge(make_evaluation(LABELS, bad, RIGHT), policy).verdict == "refuse"


def test_a_difference_that_may_be_chance_is_undecided(make_evaluation: Make, gate_params: GateParams) -> None:
    verdict = judge(make_evaluation(LABELS, _wrong(0, 3), _wrong(5)), gate_params)
    assert _outcome(verdict, "F1 difference") == "undecided"


def test_an_interval_that_reaches_too_deep_is_undecided_although_the_difference_is_not_negative(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    evaluation = make_evaluation(LABELS, _wrong(0, 3, 5), _wrong(2, 7, 9))
    assert evaluation.difference
    assert evaluation.difference.f1 >= 0
    policy = _policy(gate_params, max_interval_loss=0.01, max_slice_loss=1.0)
    assert _outcome(judge(evaluation, policy), "F1 difference") == "undecided"
    assert _outcome(judge(evaluation, _policy(policy, max_interval_loss=0.9)), "F1 difference") == "pass"


def test_a_model_against_itself_is_undecided_unless_a_loss_is_tolerated(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    evaluation = make_evaluation(LABELS, RIGHT, RIGHT)
    assert judge(evaluation, gate_params).verdict == "undecided"
    assert judge(evaluation, _policy(gate_params, max_interval_loss=0.05)).verdict == "pass"
    assert judge(evaluation, _policy(gate_params, min_f1_difference=0.01)).verdict == "refuse"


def test_one_clip_more_is_no_proof_and_the_sentence_says_what_mcnemar_makes_of_it(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    verdict = judge(make_evaluation(LABELS, RIGHT, _wrong(3)), gate_params)
    assert verdict.verdict == "undecided"
    assert "only the candidate has right: 1, only the champion: 0, McNemar p = 1.000" in verdict.reasons[0]
    assert judge(make_evaluation(LABELS, RIGHT, _wrong(2, 3, 4, 5)), gate_params).verdict == "pass"


@pytest.mark.parametrize(
    ("lost", "outcome"),
    [
        pytest.param(3, "pass", id="maybe-chance"),
        pytest.param(5, "undecided", id="chance-among-many-slices"),
        pytest.param(12, "refuse", id="no-chance"),
    ],
)
def test_a_slice_counts_as_far_as_chance_does_not_explain_it(
    make_evaluation: Make, gate_params: GateParams, lost: int, outcome: str
) -> None:
    labels = LABELS * 3
    sure = RIGHT * 3
    own = [1 - value if i % 3 == 0 and i < 3 * lost else value for i, value in enumerate(sure)]  # all of them cam-0's
    policy = _policy(gate_params, max_slice_loss=0.1)
    assert _outcome(judge(make_evaluation(labels, own, sure), policy), "slices") == outcome


GROUPS_OF_EIGHT = [f"g{i // 8}" for i in range(40)]


@pytest.mark.parametrize(
    "changes", [{"max_interval_loss": 0.04}, {"min_f1_difference": 0.01}], ids=["no-pass", "no-refusal"]
)
def test_a_gain_and_a_loss_that_cancel_in_a_group_prove_nothing(
    make_evaluation: Make, gate_params: GateParams, changes: dict[str, float]
) -> None:
    sure = RIGHT * 2
    own, other = ([1 - value if i in wrong else value for i, value in enumerate(sure)] for wrong in ((0, 16), (2, 18)))
    evaluation = make_evaluation(LABELS * 2, own, other, GROUPS_OF_EIGHT)
    assert evaluation.difference
    assert evaluation.difference.by_group.upper == evaluation.difference.by_group.lower == 0
    assert _outcome(judge(evaluation, _policy(gate_params, **changes)), "F1 difference") == "undecided"


def test_a_gain_in_every_group_that_its_clips_do_not_prove_is_undecided_in_verdict_and_headline(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    sure = RIGHT * 2
    own = [1 - value if i % 8 == 0 else value for i, value in enumerate(sure)]
    other = [1 - value if i % 8 in (2, 5) else value for i, value in enumerate(sure)]
    evaluation = make_evaluation(LABELS * 2, own, other, GROUPS_OF_EIGHT)
    assert evaluation.difference
    assert evaluation.difference.by_group.lower > 0
    verdict = judge(evaluation, gate_params)
    assert _outcome(verdict, "F1 difference") == "undecided"
    assert headline(evaluation, verdict).startswith("It is undecided whether candidate 2 is better")


def test_few_source_groups_cannot_carry_a_comparison(make_evaluation: Make, gate_params: GateParams) -> None:
    groups = [f"g{i % 3}" for i in range(len(LABELS))]
    verdict = judge(make_evaluation(LABELS, RIGHT, RIGHT, groups), gate_params)
    assert _outcome(verdict, "F1 difference") == "undecided"


def test_a_gain_in_few_source_groups_is_no_better_model_in_verdict_and_headline(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    lost = _wrong(*(i for i in range(len(LABELS)) if i % 5 < 3))
    evaluation = make_evaluation(LABELS, RIGHT, lost, [f"g{i // 5}" for i in range(len(LABELS))])
    assert evaluation.difference
    assert evaluation.difference.interval.lower > 0
    verdict = judge(evaluation, gate_params)
    assert _outcome(verdict, "F1 difference") == "undecided"
    assert headline(evaluation, verdict).startswith(
        "It is undecided whether candidate 2 is better than champion 1, as fewer than 5 source groups cannot carry a comparison: F1 1.000"
    )


def test_a_loss_in_one_camera_is_refused_although_the_whole_gains(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    labels = LABELS * 2
    own = [1 - value if i % 3 == 0 and i < 24 else value for i, value in enumerate(RIGHT * 2)]  # cam-0 loses 8 of 14
    other = [1 - value if i % 3 and i < 26 else value for i, value in enumerate(RIGHT * 2)]
    verdict = judge(make_evaluation(labels, own, other), gate_params)
    assert _outcome(verdict, "slices") == "refuse"
    assert any("cam-0" in reason for reason in verdict.reasons)
    assert (
        _outcome(judge(make_evaluation(labels, own, other), _policy(gate_params, min_slice_clips=100)), "slices")
        == "pass"
    )


def test_a_slice_that_trades_its_fights_for_false_alarms_is_refused_though_as_many_verdicts_are_right(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    labels = LABELS * 6
    own = [0.9 if label and i % 4 == 0 else 0.1 for i, label in enumerate(labels)]  # misses half, no alarm is false
    other = [0.9 if label or i % 4 == 1 else 0.1 for i, label in enumerate(labels)]  # finds all, half of the others too
    policy = _policy(gate_params, max_slice_loss=0.05)
    evaluation = make_evaluation(labels, own, other)
    cameras = tuple(cut for cut in evaluation.slices if cut.dimension == "camera")
    assert [(cut.only_candidate_right, cut.only_champion_right) for cut in cameras] == [(10, 10)] * 3
    assert _outcome(judge(evaluation.model_copy(update={"slices": cameras}), policy), "slices") == "refuse"


def test_what_few_source_groups_lose_in_a_slice_is_undecided(make_evaluation: Make, gate_params: GateParams) -> None:
    labels, sure = LABELS * 3, RIGHT * 3
    own = [1 - value if i % 3 == 0 and i < 36 else value for i, value in enumerate(sure)]
    policy = _policy(gate_params, max_slice_loss=0.1)
    few, many = ([f"g{i // 12 if few else i}" for i in range(len(labels))] for few in (True, False))
    assert _outcome(judge(make_evaluation(labels, own, sure, few), policy), "slices") == "undecided"
    assert _outcome(judge(make_evaluation(labels, own, sure, many), policy), "slices") == "refuse"


def test_an_evaluation_of_before_slices_were_counted_is_judged_as_then(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    labels, sure = LABELS * 3, RIGHT * 3
    own = [1 - value if i in (0, 3, 6, 9, 12) else value for i, value in enumerate(sure)]
    content = make_evaluation(labels, own, sure).to_dict()
    for one in content["slices"]:
        for counted in [name for name in one if name.startswith(("only_", "losing_"))]:
            del one[counted]
    old = Evaluation.from_json(json.dumps(content), "evaluation.json")
    assert _outcome(judge(old, _policy(gate_params, max_slice_loss=0.1)), "slices") == "refuse"


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(Leakage(clip_ids=("a",)), id="clip"),
        pytest.param(Leakage(source_groups=("g1", "g2")), id="group"),
        pytest.param(Leakage(near_duplicates=(("a", "b"),)), id="near-duplicate"),
    ],
)
def test_anything_shared_with_training_is_refused(
    make_evaluation: Make, gate_params: GateParams, leak: Leakage
) -> None:
    checks = DataChecks(near_duplicate_bits=0, candidate=leak)
    assert judge(make_evaluation(LABELS, RIGHT, checks=checks), gate_params).verdict == "refuse"


@pytest.mark.parametrize(
    ("stale", "says"),
    [({"newer_holdout": "v2"}, "v2 is newer"), ({"relabelled": ("a", "b")}, "2 of its clips have another label by now: freeze another with `violence-ops holdout freeze`, then run `violence-ops evaluate`.")],
    ids=["superseded", "relabelled"],
)  # fmt: skip
def test_a_stale_holdout_releases_nothing(
    make_evaluation: Make, gate_params: GateParams, stale: dict[str, object], says: str
) -> None:
    checks = DataChecks(near_duplicate_bits=0, candidate=Leakage()).model_copy(update=stale)
    verdict = judge(make_evaluation(LABELS, RIGHT, checks=checks), gate_params)
    assert verdict.verdict == "undecided"
    assert says in verdict.reasons[0]


def test_unknown_training_data_is_undecided(make_evaluation: Make, gate_params: GateParams) -> None:
    checks = DataChecks(near_duplicate_bits=0, candidate=None)
    assert judge(make_evaluation(LABELS, RIGHT, checks=checks), gate_params).verdict == "undecided"


def test_a_champion_that_saw_the_holdout_makes_the_comparison_undecided(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    checks = DataChecks(near_duplicate_bits=0, candidate=Leakage(), champion=Leakage(clip_ids=("a",)))
    assert judge(make_evaluation(LABELS, RIGHT, RIGHT, checks=checks), gate_params).verdict == "undecided"


def test_different_holdout_revisions_are_refused(make_evaluation: Make, gate_params: GateParams) -> None:
    evaluation = make_evaluation(LABELS, RIGHT, RIGHT)
    assert evaluation.champion
    moved = evaluation.model_copy(
        update={"champion": evaluation.champion.model_copy(update={"holdout_revision": "f" * 64})}
    )
    assert judge(moved, gate_params).verdict == "refuse"


def test_a_slow_model_is_refused(make_evaluation: Make, gate_params: GateParams) -> None:
    assert judge(make_evaluation(LABELS, RIGHT, p95_ms=501.0), gate_params).verdict == "refuse"


def test_a_dry_run_judges_alike_and_a_disabled_gate_says_that_it_is_off(
    make_evaluation: Make, gate_params: GateParams
) -> None:
    bad = make_evaluation(LABELS, _wrong(*range(12)))
    dry = judge(bad, _policy(gate_params, mode="dry_run"))
    assert (dry.verdict, dry.mode) == ("refuse", "dry_run")
    off = judge(bad, _policy(gate_params, mode="disabled"))
    assert (off.verdict, off.mode) == ("pass", "disabled")
    assert "off" in off.reasons[0]


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_one_more_failure_of_the_candidate_never_helps(
    make_evaluation: Make, gate_params: GateParams, data: st.DataObject
) -> None:
    labels = data.draw(st.lists(st.booleans(), min_size=10, max_size=30))
    sure = [0.9 if label else 0.1 for label in labels]
    own = [1 - value if data.draw(st.booleans()) else value for value in sure]
    other = [1 - value if data.draw(st.booleans()) else value for value in sure]
    groups = [f"g{i % data.draw(st.integers(1, 9))}" for i in range(len(labels))]
    policy = _policy(gate_params, min_clips=2, min_slice_clips=4, max_ece=1.0)
    right = [i for i, value in enumerate(own) if value == sure[i]]
    if right:
        index = data.draw(st.sampled_from(right))
        worse = [1 - value if i == index else value for i, value in enumerate(own)]
        before, after = (judge(make_evaluation(labels, made, other, groups), policy) for made in (own, worse))
        assert RANK[after.verdict] <= RANK[before.verdict]


@given(st.permutations(range(len(LABELS))))
@settings(deadline=None, max_examples=20)
def test_the_order_of_clips_changes_neither_evaluation_nor_verdict(
    make_evaluation: Make, gate_params: GateParams, order: list[int]
) -> None:
    straight = make_evaluation(LABELS, _wrong(1, 5), _wrong(2))
    shuffled = make_evaluation(LABELS, _wrong(1, 5), _wrong(2), order=order)
    assert shuffled == straight
    assert judge(shuffled, gate_params) == judge(straight, gate_params)


def test_every_reason_is_a_sentence(make_evaluation: Make, gate_params: GateParams) -> None:
    for check in judge(make_evaluation(LABELS, RIGHT, _wrong(1)), gate_params).checks:
        assert check.sentence[0].isupper()
        assert check.sentence.endswith(".")
