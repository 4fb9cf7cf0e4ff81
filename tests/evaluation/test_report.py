"""The release manager's page: says the verdict, holds every section, and cannot be written by a clip's name."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from violence_ops.errors import WorkspaceError
from violence_ops.evaluation.failures import disagreements, failures
from violence_ops.evaluation.policy import judge
from violence_ops.evaluation.records import Evaluation
from violence_ops.evaluation.report import headline, render
from violence_ops.params import GateParams

Make = Callable[..., Evaluation]
LABELS = [True, False] * 10
RIGHT = [0.9 if label else 0.1 for label in LABELS]
BAD = [1 - value if i < 12 else value for i, value in enumerate(RIGHT)]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    ("own", "other", "starts", "ends"),
    [
        pytest.param(RIGHT, None, "Candidate 2 would be the first champion: F1 1.000", "needs a person's approval.", id="first"),
        pytest.param(RIGHT, BAD, "Candidate 2 is better than champion 1: F1 1.000 against 0.400", "needs a person's approval.", id="better"),
        pytest.param(BAD, RIGHT, "Candidate 2 is worse than champion 1: F1 0.400", "recall floor, AUC floor, calibration.", id="worse"),
        pytest.param(RIGHT, RIGHT, "Candidate 2 gives the same verdicts as champion 1", "open: F1 difference.", id="same"),
    ],
)  # fmt: skip
def test_the_headline_says_it_in_two_sentences(
    make_evaluation: Make, gate_params: GateParams, own: list[float], other: list[float] | None, starts: str, ends: str
) -> None:
    evaluation = make_evaluation(LABELS, own, other)
    text = headline(evaluation, judge(evaluation, gate_params))
    assert text.startswith(starts)
    assert text.endswith(ends)


def test_the_headline_of_a_champion_against_itself_says_so(make_evaluation: Make, gate_params: GateParams) -> None:
    evaluation = make_evaluation(LABELS, RIGHT, RIGHT)
    itself = evaluation.model_copy(update={"champion": evaluation.candidate})
    assert headline(itself).startswith(
        "Version 2 is the champion itself, so there is nothing to compare it to: F1 1.000"
    )


def test_hostile_names_are_shown_not_run(make_evaluation: Make, gate_params: GateParams) -> None:
    evaluation = make_evaluation(LABELS, BAD, RIGHT)
    hostile = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    clips = tuple(
        clip.model_copy(update={"source_path": hostile, "slices": {"camera": hostile}, "source_group": hostile})
        for clip in evaluation.clips
    )
    lineage = evaluation.candidate.model_copy(update={"lineage": {hostile: hostile}})
    bad = evaluation.model_copy(update={"clips": clips, "candidate": lineage})
    page = _Tags()
    page.feed(render(bad, judge(bad, gate_params), gate_params))
    assert not {"script", "img"} & set(page.tags)
    assert "onerror" not in page.attributes


def test_the_page_stands_alone_and_holds_every_section(make_evaluation: Make, gate_params: GateParams) -> None:
    evaluation = make_evaluation(LABELS, BAD, RIGHT)
    page = render(evaluation, judge(evaluation, gate_params), gate_params)
    for title in (
        "The gate",
        "All clips",
        "Slices",
        "Probabilities",
        "only one model has right",
        "Failures of the candidate",
        "Data checks",
        "Lineage",
    ):
        assert f"{title}</h2>" in page
    assert "http://" not in page
    assert "https://" not in page
    assert evaluation.clips[0].clip_id in page
    assert f"violence-ops overlay --failures --report {evaluation.name}\n" in page.replace("</pre>", "\n")
    assert "To release it" not in page  # it is refused


def test_a_first_model_has_a_page_without_a_champion(make_evaluation: Make, gate_params: GateParams) -> None:
    evaluation = make_evaluation(LABELS, RIGHT)
    page = render(evaluation, judge(evaluation, gate_params), gate_params)
    assert "the first model" in page
    assert "promote --approve" in page


def test_failures_name_their_kind_and_low_confidence(make_evaluation: Make) -> None:
    evaluation = make_evaluation([True, False, True, False], [0.1, 0.9, 0.9, 0.5], [0.9, 0.9, 0.9, 0.1])
    found = failures(evaluation.clips, "candidate")
    assert [(item.kind, item.low_confidence) for item in found] == [
        ("false negative", False), ("false positive", False), ("correct", True),
    ]  # fmt: skip
    assert [clip.clip_id for clip in disagreements(evaluation.clips)] == [evaluation.clips[0].clip_id]


def test_an_evaluation_survives_its_json(make_evaluation: Make) -> None:
    import json

    evaluation = make_evaluation(LABELS, RIGHT, BAD)
    assert Evaluation.from_json(json.dumps(evaluation.to_dict()), "evaluation.json") == evaluation


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": 3}'], ids=["empty", "no-keys", "list", "wrong-type"])
def test_a_broken_evaluation_is_refused_in_one_sentence(content: str) -> None:
    with pytest.raises(WorkspaceError, match=r"evaluation\.json is not readable"):
        Evaluation.from_json(content, "evaluation.json")
