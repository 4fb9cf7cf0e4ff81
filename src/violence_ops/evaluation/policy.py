"""The gate: may the candidate become the champion? A pure function of an evaluation and the policy in `params.yaml`.

Three answers. `refuse`: the figures speak against a release. `undecided`: they cannot carry one (too few clips, an interval too
wide, training data unknown); a person needs more data, not more courage. `pass`: nothing speaks against it. The verdict is the
worst answer of its checks; turning a right verdict of the candidate into a wrong one never makes an answer better.
"""

from __future__ import annotations

from math import comb
from typing import Final

from violence_ops.evaluation.records import Check, Confusion, DataChecks, Evaluation, Leakage, Outcome, Slice, Verdict
from violence_ops.params import GateParams
from violence_ops.wording import counted

MIN_GROUPS: Final = 5
"""With fewer source groups a bootstrap over them says little of the next camera."""

_ROUNDING: Final = 1e-9


def judge(evaluation: Evaluation, policy: GateParams) -> Verdict:
    """The gate's verdict. `dry_run` judges as `enabled` does; its verdict is recorded but releases nothing."""
    if policy.mode == "disabled":
        off = Check(
            name="gate", outcome="pass", sentence="The gate is off (gate.mode is disabled): nothing was checked and only a person decides."
        )  # fmt: skip
        return Verdict(verdict="pass", mode=policy.mode, checks=(off,))
    checks = [
        _same_holdout(evaluation),
        _leakage(evaluation.checks),
        _support(evaluation, policy),
        _floor("F1", evaluation.candidate.metrics.f1, policy.min_f1, "gate.min_f1"),
        _floor("recall", evaluation.candidate.metrics.recall, policy.min_recall, "gate.min_recall"),
        _floor("specificity", evaluation.candidate.metrics.specificity, policy.min_specificity, "gate.min_specificity"),
        _floor("AUC", evaluation.candidate.metrics.auc, policy.min_auc, "gate.min_auc"),
        _ceiling("calibration", "expected calibration error", evaluation.candidate.metrics.ece, policy.max_ece, "", "gate.max_ece"),
        _ceiling("latency", "95th percentile of the time per clip", evaluation.timings.candidate.p95_ms, policy.max_latency_ms, " ms", "gate.max_latency_ms"),
    ]  # fmt: skip
    if evaluation.champion and evaluation.difference:
        checks[3:3] = [_difference(evaluation, policy), _slices(evaluation, policy)]
    return Verdict(verdict=_worst(checks), mode=policy.mode, checks=tuple(checks))


def _worst(checks: list[Check]) -> Outcome:
    outcomes = {check.outcome for check in checks}
    return "refuse" if "refuse" in outcomes else "undecided" if "undecided" in outcomes else "pass"


def _same_holdout(evaluation: Evaluation) -> Check:
    judged_on = {evaluation.candidate.holdout_revision, evaluation.holdout.revision}
    if evaluation.champion:
        judged_on.add(evaluation.champion.holdout_revision)
    revision = evaluation.holdout.revision[:12]
    if len(judged_on) > 1:
        names = ", ".join(sorted(name[:12] for name in judged_on))
        return Check(
            name="holdout", outcome="refuse", sentence=f"The models were judged on different holdout revisions ({names})."
        )  # fmt: skip
    if newer := evaluation.checks.newer_holdout:
        return Check(
            name="holdout", outcome="undecided",
            sentence=f"Holdout {evaluation.holdout.version} is stale, {newer} is newer: run `violence-ops evaluate` on that one.",
        )  # fmt: skip
    if relabelled := evaluation.checks.relabelled:
        return Check(
            name="holdout", outcome="undecided",
            sentence=f"Holdout {evaluation.holdout.version} is stale, {counted(len(relabelled), 'of its clips has', 'of its clips have')} another label by now: freeze another with `violence-ops holdout freeze`, then run `violence-ops evaluate`.",
        )  # fmt: skip
    return Check(
        name="holdout", outcome="pass",
        sentence=f"Judged on holdout {evaluation.holdout.version}, revision {revision}, {counted(len(evaluation.clips), 'clip')}.",
    )  # fmt: skip


def _leakage(checks: DataChecks) -> Check:
    if checks.candidate is None:
        return Check(
            name="leakage", outcome="undecided", sentence="It is not known which clips the candidate was trained on, so leakage cannot be ruled out."
        )  # fmt: skip
    if checks.candidate.found:
        return Check(
            name="leakage", outcome="refuse", sentence=f"The candidate's training data shares {_shared(checks.candidate)} with the holdout."
        )  # fmt: skip
    if checks.champion and checks.champion.found:
        return Check(
            name="leakage", outcome="undecided",
            sentence=f"The champion's training data shares {_shared(checks.champion)} with the holdout, which flatters the champion: freeze a new holdout.",
        )  # fmt: skip
    return Check(
        name="leakage", outcome="pass", sentence="No clip, no source group and no near-duplicate of the holdout was trained on."
    )  # fmt: skip


def _shared(leakage: Leakage) -> str:
    counts = [
        (len(leakage.clip_ids), "clip"), (len(leakage.source_groups), "source group"), (len(leakage.near_duplicates), "near-duplicate"),
    ]  # fmt: skip
    return " and ".join(counted(count, word) for count, word in counts if count)


def _support(evaluation: Evaluation, policy: GateParams) -> Check:
    counts = evaluation.candidate.metrics.confusion
    fights, others = counts.tp + counts.fn, counts.tn + counts.fp
    groups = len({clip.source_group for clip in evaluation.clips})
    enough = min(fights, others) >= policy.min_clips and groups >= MIN_GROUPS
    remedy = (
        ". Bring labelled clips of new source groups: the next retraining holds out what is missing (if holdout.auto_freeze is off, "
        "run `violence-ops holdout freeze` before it) and its candidate is judged on all of it"
    )
    return Check(
        name="support", outcome="pass" if enough else "undecided",
        sentence=f"The holdout has {fights} Fight and {others} NonFight clips of {counted(groups, 'source group')}; {policy.min_clips} of each label (gate.min_clips) and {MIN_GROUPS} source groups are wanted{'' if enough else remedy}.",
    )  # fmt: skip


def _floor(name: str, value: float | None, floor: float, key: str) -> Check:
    if value is None:
        return Check(
            name=f"{name} floor", outcome="undecided",
            sentence=f"The candidate has no {name}, because the holdout has clips of one label only; at least {floor:.3f} is wanted ({key}).",
        )  # fmt: skip
    passed = value >= floor
    return Check(
        name=f"{name} floor", outcome="pass" if passed else "refuse",
        sentence=f"The candidate's {name} of {value:.3f} is {'at or above' if passed else 'below'} the floor of {floor:.3f} ({key}).",
    )  # fmt: skip


def _ceiling(name: str, what: str, value: float, limit: float, unit: str, key: str) -> Check:
    passed = value <= limit
    return Check(
        name=name, outcome="pass" if passed else "refuse",
        sentence=f"The candidate's {what} of {value:.3g}{unit} is {'within' if passed else 'above'} the limit of {limit:g}{unit} ({key}).",
    )  # fmt: skip


def _difference(evaluation: Evaluation, policy: GateParams) -> Check:
    """The interval decides (`Difference.interval`), with m = min_f1_difference and t = max_interval_loss.

    refuse: upper < m, even the best of the plausible differences is too small. pass: the difference itself is >= m and
    lower > m - t, so that (with t = 0) hardly any model passes that is not better by m. Everything between: undecided.
    """
    assert evaluation.difference
    found, interval = evaluation.difference, evaluation.difference.interval
    wanted, worst = policy.min_f1_difference, policy.min_f1_difference - policy.max_interval_loss
    figures = (
        f"The F1 difference to the champion is {found.f1:+.3f} ({found.confidence:.0%} interval {interval.lower:+.3f} to "
        f"{interval.upper:+.3f}, the wider at each end of one over {counted(interval.units, 'source group')} and one over "
        f"{counted(found.by_clip.units, 'clip')}; clips that only the candidate has right: {found.only_candidate_right}, only the champion: "
        f"{found.only_champion_right}, McNemar p = {found.mcnemar_p:.3f})"
    )
    outcome: Outcome
    if interval.upper < wanted - _ROUNDING:
        outcome, ruling = "refuse", f"the whole interval lies below the {wanted:+.3f} wanted (gate.min_f1_difference)"
    elif interval.units < MIN_GROUPS:
        outcome, ruling = "undecided", f"fewer than {MIN_GROUPS} source groups cannot carry a comparison"
    elif found.f1 < wanted - _ROUNDING:
        outcome, ruling = (
            "undecided",
            f"it is below the {wanted:+.3f} wanted (gate.min_f1_difference), but maybe by chance",
        )
    elif interval.lower <= worst + _ROUNDING:
        outcome, ruling = (
            "undecided",
            f"the interval must lie above {worst:+.3f} (gate.min_f1_difference less gate.max_interval_loss)",
        )
    else:
        outcome, ruling = "pass", f"the whole interval lies above {worst:+.3f}"
    return Check(name="F1 difference", outcome=outcome, sentence=f"{figures}: {ruling}.")


def _slices(evaluation: Evaluation, policy: GateParams) -> Check:
    """A loss above max_slice_loss counts if chance would seldom split the slice's clips so badly: refuse where that holds for
    one slice among all that were looked at (Bonferroni) and what is lost is of several source groups, undecided where it holds
    for the slice alone."""
    judged = [cut for cut in evaluation.slices if cut.champion and is_judged(cut, policy.min_slice_clips)]
    large = [cut for cut in judged if slice_loss(cut, policy.min_slice_clips) > policy.max_slice_loss + _ROUNDING]
    tail = (1 - policy.confidence) / 2
    doubtful = [cut for cut in large if chance_of_loss(cut) <= tail]
    proven = [cut for cut in doubtful if chance_of_loss(cut) * len(judged) <= tail and _is_of_several_groups(cut)]
    if doubtful:
        listed = "; ".join(_slice_sentence(cut, policy.min_slice_clips) for cut in proven or doubtful)
        ruling = (
            "more than chance explains"
            if proven
            else f"maybe by chance among {counted(len(judged), 'slice')} or of fewer than {MIN_GROUPS} source groups"
        )
        return Check(
            name="slices", outcome="refuse" if proven else "undecided",
            sentence=f"The candidate loses more than {policy.max_slice_loss:.2f} (gate.max_slice_loss), {ruling}, in {listed}.",
        )  # fmt: skip
    largest = max((slice_loss(cut, policy.min_slice_clips) for cut in judged), default=0.0)
    chance = ", so few clips that it may well be chance" if large else ""
    return Check(
        name="slices", outcome="pass",
        sentence=f"In the {counted(len(judged), 'slice')} with at least {counted(policy.min_slice_clips, 'clip')} the largest loss is {max(0.0, largest):.3f}{chance}; {policy.max_slice_loss:.2f} is the limit (gate.max_slice_loss).",
    )  # fmt: skip


def is_judged(cut: Slice, min_clips: int) -> bool:
    """A slice with fewer clips is shown but decides nothing."""
    return cut.candidate.clips >= min_clips


def slice_measure(cut: Slice, min_clips: int) -> str:
    """`f1` where at least half of the minimum support are Fights, else `accuracy`: a single Fight would swing F1 from 0 to 1."""
    return "f1" if 2 * (cut.candidate.tp + cut.candidate.fn) >= min_clips else "accuracy"


def slice_loss(cut: Slice, min_clips: int) -> float:
    """Champion minus candidate in the slice's measure."""
    measure = slice_measure(cut, min_clips)
    return float(getattr(cut.champion, measure) - getattr(cut.candidate, measure))


def chance_of_loss(cut: Slice) -> float:
    """How often two equally good models would differ so much to the candidate's disadvantage; 0 where this was not counted.

    The smaller p of two one-sided sign tests: over the clips that exactly one model has right, and over the Fights among them.
    Where as many false alarms are saved as Fights are lost, F1 falls and the first one sees nothing.
    """
    splits = (
        (cut.only_candidate_right, cut.only_champion_right),
        (cut.only_candidate_finds, cut.only_champion_finds),
    )
    return min((_sign_test(won, lost) for won, lost in splits if won is not None and lost is not None), default=0.0)


def _sign_test(won: int, lost: int) -> float:
    """P(X >= lost) of a fair coin tossed won + lost times."""
    tosses = won + lost
    return sum(comb(tosses, heads) for heads in range(lost, tosses + 1)) / 2**tosses


def _is_of_several_groups(cut: Slice) -> bool:
    """Clips of a group are lost together: of few groups the sign test knows too little."""
    return cut.losing_groups is None or cut.losing_groups >= MIN_GROUPS


def _slice_sentence(cut: Slice, min_clips: int) -> str:
    measure = slice_measure(cut, min_clips)
    champion: Confusion | None = cut.champion
    name = {"f1": "F1", "accuracy": "accuracy"}[measure]
    return (
        f"{cut.dimension} {cut.value} ({name} {getattr(cut.candidate, measure):.3f} against {getattr(champion, measure):.3f}, "
        f"{counted(cut.candidate.clips, 'clip')}, p = {chance_of_loss(cut):.3f})"
    )
