"""Great Expectations: the one file that speaks to it. Guards a batch's tables and writes the data docs.

Importing Great Expectations takes many seconds, so that it happens inside the functions only.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import ExpectationsFailed, WorkspaceError
from violence_ops.files import read_json, write_text
from violence_ops.params import ExpectationParams, ValidationParams
from violence_ops.records import CLIPS_SCHEMA, COMPONENTS, LABELS, REASONS
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_DERIVED: Final = ("is_quarantined", "is_unlabelled")
_STYLES: Final = "footer { display: none; }\n"
_ACCEPTED: Final = 'status == "accepted"'
_OURS: Final = {"from": "violence-ops"}
"""Mark (`meta`) of the expectations that this file writes; those without it were added by people and stay."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How many expectations held, and the page that shows them."""

    suite: str
    expectations: int
    data_docs: Path


def check_clips(
    workspace: Workspace, batch_id: str, clips: pd.DataFrame, limits: ValidationParams, shares: ExpectationParams
) -> CheckResult:
    """Check the clips table of a batch: schema, uniqueness, label set, ranges, and, of at least `min_clips`, the shares quarantined and
    unlabelled.

    Raises ExpectationsFailed, naming the expectation, what was observed and what is allowed.
    """
    accepted = clips["status"] == "accepted"
    frame = clips.assign(
        is_quarantined=(~accepted).astype(float), is_unlabelled=(clips["label"].isna() & accepted).astype(float)
    )
    expected = _clip_expectations(limits)
    if len(frame) >= shares.min_clips:
        expected += [
            _mean("is_quarantined", shares.max_share_quarantined, "share of clips in quarantine"),
            _mean("is_unlabelled", shares.max_share_unlabelled, "share of clips that are accepted and without a label"),
        ]
    return _check(workspace, "clips", batch_id, frame, expected)


def check_annotations(
    workspace: Workspace, batch_id: str, summary: pd.DataFrame, shares: ExpectationParams
) -> CheckResult:
    """Check poses and tracks by a summary with one row per accepted clip (`stages.nightly.seal` makes it).

    Raises ExpectationsFailed like `check_clips`.
    """
    expected = _annotation_expectations()
    if len(summary) >= shares.min_clips:
        expected.append(
            _mean("without_person", shares.max_share_without_person, "share of clips in which nobody was found")
        )
    return _check(workspace, "annotations", batch_id, summary, expected)


def _clip_expectations(limits: ValidationParams) -> list[Any]:
    import great_expectations.expectations as gxe

    def ranged(column: str, low: float, high: float, says: str) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=column, min_value=low, max_value=high, row_condition=_ACCEPTED, condition_parser="pandas", description=says
        )  # fmt: skip

    def filled(column: str) -> Any:
        return gxe.ExpectColumnValuesToNotBeNull(
            column=column, row_condition=_ACCEPTED, condition_parser="pandas", description=f"{column} of accepted clips is known"
        )  # fmt: skip

    return [
        gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=[*CLIPS_SCHEMA.names, *_DERIVED], description="the clips table has its columns"
        ),
        gxe.ExpectTableRowCountToBeBetween(min_value=1, description="number of clips"),
        gxe.ExpectColumnValuesToBeUnique(column="clip_id", description="every clip is there once"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="clip_id", regex="^[0-9a-f]{20}$", description="clip_id is 20 hex digits"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(LABELS), description="labels are known ones"),
        gxe.ExpectColumnValuesToBeInSet(
            column="status", value_set=["accepted", "quarantined"], description="every clip has been judged"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="reason", value_set=list(REASONS), description="reasons are known ones"),
        *(filled(column) for column in ("source_group", "fps", "frame_count", "width", "height", "perceptual_hash")),
        ranged("fps", 0.1, 1000, "frames per second"),
        ranged("frame_count", limits.min_frames, limits.max_frames, "number of frames"),
        ranged("duration_s", limits.min_duration_s, limits.max_duration_s, "duration in seconds"),
        ranged("width", limits.min_side_px, limits.max_pixels, "width in px"),
        ranged("height", limits.min_side_px, limits.max_pixels, "height in px"),
        ranged("brightness", 0, 255, "mean brightness"),
    ]


def _annotation_expectations() -> list[Any]:
    import great_expectations.expectations as gxe

    def none(column: str, says: str) -> Any:
        return gxe.ExpectColumnMaxToBeBetween(column=column, min_value=0, max_value=0, description=says)

    def unit(column: str) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=column, min_value=0, max_value=1, description=f"{column.replace('_', ' ')} lies in [0, 1]"
        )

    return [
        gxe.ExpectColumnValuesToBeUnique(column="clip_id", description="every clip is there once"),
        none("schema_differences", "poses and tracks have their columns"),
        none("frames_outside", "frames lie within the clip"),
        none("bad_boxes", "boxes have a positive size"),
        none("not_finite", "coordinates and scores are numbers"),
        none("repeated_tracks", "a track is at most once in a frame"),
        none("tracks_without_poses", "tracks have no more rows than poses"),
        none("bad_ranks", "ranks are 0 or run from 1 without a gap"),
        *(unit(f"{name}_{end}") for name in ("score", "keypoint_score", *COMPONENTS) for end in ("min", "max")),
    ]


def _mean(column: str, largest: float, says: str) -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnMeanToBeBetween(column=column, min_value=0, max_value=largest, description=says)


def _check(workspace: Workspace, name: str, batch_id: str, frame: pd.DataFrame, expectations: list[Any]) -> CheckResult:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    import great_expectations as gx

    with workspace.lock("expectations"):
        context = gx.get_context(mode="file", project_root_dir=str(workspace.root))
        context.variables.progress_bars = {"globally": False}
        _hide_advertising(workspace, context)
        suite = _suite(workspace, context, name, expectations)
        outcome = _checkpoint(context, name).run(
            batch_parameters={"dataframe": frame}, run_id=gx.RunIdentifier(run_name=f"{batch_id} {name}")
        )
    failed = [result for run in outcome.run_results.values() for result in run.results if not result.success]
    if failed:
        sentences = "; ".join(_sentence(result) for result in failed)
        raise ExpectationsFailed(
            f"Batch {batch_id} stops, its {name} are not as expected: {sentences}. Everything stays in place; "
            f"see {workspace.data_docs}, then change the limits in params.yaml (of an expectation of your own, in "
            f"{workspace.suite(name)}) and run the stage again, or take this batch as it is: `violence-ops night --set "
            "expectations.KEY=VALUE`."
        )
    return CheckResult(name, len(suite.expectations), workspace.data_docs)


def _hide_advertising(workspace: Workspace, context: Any) -> None:
    """Take the product's own buttons and footers off the data docs; the newsletter's has no switch but the style sheet."""
    if not workspace.data_docs_styles.is_file() or workspace.data_docs_styles.read_text("utf-8") != _STYLES:
        write_text(workspace.data_docs_styles, _STYLES)
    for name, site in dict(context.variables.data_docs_sites).items():
        if site["show_how_to_buttons"]:
            context.update_data_docs_site(name, {**site, "show_how_to_buttons": False})


def _suite(workspace: Workspace, context: Any, name: str, ours: list[Any]) -> Any:
    """Our expectations as they are now and those that people added, written only if that is not what is there: git tracks it."""
    import great_expectations as gx

    for expectation in ours:
        expectation.meta = _OURS
    if not workspace.suite(name).is_file():
        return context.suites.add(gx.ExpectationSuite(name=name, expectations=ours))
    suite = _read_suite(workspace, context, name)
    ids = {_content(one): one.id for one in suite.expectations if one.meta == _OURS}
    # an earlier version of ours marked nothing, and kept nothing that was added
    added = [one for one in suite.expectations if one.meta != _OURS] if ids else []
    if ids.keys() != {_content(one) for one in ours}:
        for expectation in ours:
            expectation.id = ids.get(_content(expectation))
        suite.expectations = [*ours, *added]
        suite = context.suites.add_or_update(suite)
    return suite


def _read_suite(workspace: Workspace, context: Any, name: str) -> Any:
    """The stored suite. Great Expectations leaves out what it does not understand; here that is a WorkspaceError."""
    path = workspace.suite(name)
    remedy = f"correct what was added there, or take it back with `git checkout -- {path.relative_to(workspace.root)}`"
    stored = read_json(path, remedy)
    try:
        suite = context.suites.get(name)
        left_out = Counter(one["type"] for one in stored["expectations"]) - Counter(
            one.expectation_type for one in suite.expectations
        )
    except Exception as error:  # whatever a mistake in the file leads to
        raise WorkspaceError(f"{path} cannot be read ({' '.join(str(error).split())}): {remedy}.") from error
    if left_out:
        raise WorkspaceError(
            f"{path} cannot be read ({', '.join(left_out)} is unknown or has wrong arguments): {remedy}."
        )
    return suite


def _content(expectation: Any) -> str:
    """All of an expectation but its id."""
    return json.dumps({**expectation.configuration.to_json_dict(), "id": None}, sort_keys=True)


def _checkpoint(context: Any, name: str) -> Any:
    """The stored checkpoint, so that its ids stay; made anew if it is not there or does not fit the rest."""
    import great_expectations as gx
    from great_expectations.exceptions import GreatExpectationsError

    try:
        return context.checkpoints.get(name)
    except (GreatExpectationsError, ValueError):
        source = context.data_sources.add_or_update_pandas(name=name)
        whole = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe(name)
        definition = gx.ValidationDefinition(name=name, data=whole, suite=context.suites.get(name))
        definition = context.validation_definitions.add_or_update(definition)
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], actions=[_data_docs()])
        return context.checkpoints.add_or_update(checkpoint)


def _data_docs() -> Any:
    from great_expectations.checkpoint import UpdateDataDocsAction

    return UpdateDataDocsAction(name="data docs")


def _sentence(result: Any) -> str:
    """Expectation, observed and allowed, from one failed result."""
    config = result.expectation_config
    says = config.description or config.type
    info = result.exception_info or {}
    # one of the whole expectation, or of each figure that it needs
    for one in [info, *(part for part in info.values() if isinstance(part, dict))]:
        if one.get("raised_exception"):
            return f"{says} could not be checked ({one['exception_message']})"
    settings = {
        key: value
        for key, value in config.kwargs.items()
        if key in ("min_value", "max_value", "value_set", "regex", "column_list")
    }
    allowed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)
    observed = result.result.get("observed_value")
    if observed is None:
        unexpected = result.result.get("partial_unexpected_list") or []
        observed = f"{result.result.get('unexpected_count')} other values such as {unexpected[:3]}"
    return f"{says}: observed {observed}, allowed {allowed or 'none other'} ({config.type})"
