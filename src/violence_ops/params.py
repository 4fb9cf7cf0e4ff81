"""`params.yaml`, read once into frozen models: the one place of tunables.

Unknown keys, wrong types and values out of range are refused with the key's path and what is allowed.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from violence_ops.errors import ParamsError
from violence_ops.wording import listed

_RECOGNITION: Final = Path(__file__).with_name("recognition")  # its files give the names; its code is too heavy to ask
TEMPLATE: Final = Path(__file__).with_name("template")
"""The params.yaml and dvc.yaml that a workspace starts with."""
FAMILIES: Final = _RECOGNITION / "configs"
STARTS: Final = _RECOGNITION / "weights"
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Hours = Annotated[float, Field(gt=0, le=8760)]
Count = Annotated[int, Field(ge=1)]
RegionWeight = Annotated[float, Field(ge=0, le=2)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestParams(_Section):
    shard_size: Count
    shard_size_mb: Positive
    settle_s: Annotated[float, Field(ge=0)]
    max_clips: Count


class ValidationParams(_Section):
    min_frames: Count
    max_frames: Count
    min_duration_s: Annotated[float, Field(ge=0)]
    max_duration_s: Positive
    max_size_mb: Positive
    min_side_px: Count
    max_pixels: Count
    timeout_s: Positive
    seconds_per_video_second: Annotated[float, Field(ge=0)]
    memory_mb: Annotated[int, Field(ge=256)]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    require_label: bool

    def allowance_s(self, promised_s: float) -> float:
        """How long the check of a clip may take whose header promises this many seconds; 0: it promises nothing, and any length
        is possible."""
        return self.timeout_s + self.seconds_per_video_second * min(promised_s or math.inf, self.max_duration_s)


class PoseParams(_Section):
    source: Literal["rtmo", "topdown"]
    weights: str
    detector: str | None
    keypoints: str | None
    backend: Literal["auto", "torch", "openvino", "onnxruntime"]
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"]
    score_threshold: Share
    nms_threshold: Share
    duplicate_distance: Share
    mini_batch: Count
    max_mini_batch: Count
    max_frames_per_second: Positive
    device: Literal["auto", "cpu", "cuda"]


class TrackingParams(_Section):
    high_score: Share
    new_track_score: Share
    match_iou: Share
    second_match_iou: Share
    keypoint_weight: Share
    buffer_s: Positive
    min_hits: Count
    fill_gap_s: Annotated[float, Field(ge=0)]


class CompositeWeights(_Section):
    """Shares of the components in a person's composite score; they sum to 1, so the score stays in [0, 1].

    A component that a preset does not name has no share.
    """

    position: Share = 0.0
    movement: Share = 0.0
    interaction: Share = 0.0
    detection: Share = 0.0
    consistency: Share = 0.0
    closeness: Share = 0.0
    contact: Share = 0.0
    limbs: Share = 0.0
    partner: Share = 0.0

    @model_validator(mode="after")
    def _sums_to_one(self) -> CompositeWeights:
        total = sum(self.model_dump().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights of an involvement preset must sum to 1, these to {total:g}")
        return self


class RegionWeights(_Section):
    """How much each region of the frame counts for the position of a person."""

    centre: RegionWeight
    top_left: RegionWeight
    top_right: RegionWeight
    bottom_left: RegionWeight
    bottom_right: RegionWeight


class InvolvementParams(_Section):
    preset: str
    regions: str
    position_form: Literal["frame", "track"]
    scale_normalised: bool
    movement_px: Positive
    interaction_px: Positive
    reference_height_px: Positive
    closeness_heights: Positive
    contact_heights: Positive
    limb_speed_heights: Positive
    movement_history: Annotated[int, Field(ge=2, le=100)]
    consistency_history: Annotated[int, Field(ge=3, le=1000)]
    persistence_weight: Share
    min_track_s: Annotated[float, Field(ge=0)]
    min_mean_score: Share
    max_flicker: Share
    adaptive_regions: bool
    adaptive_tracks: Count
    adaptive_rounds: Count
    adaptive_rate: Share
    adaptive_tolerance: Positive
    presets: dict[str, CompositeWeights]
    region_presets: dict[str, RegionWeights]

    @model_validator(mode="after")
    def _names_exist(self) -> InvolvementParams:
        if self.preset not in self.presets:
            raise ValueError(f"involvement.preset must be one of {', '.join(self.presets)}, not {self.preset!r}")
        if self.regions not in self.region_presets:
            raise ValueError(
                f"involvement.regions must be one of {', '.join(self.region_presets)}, not {self.regions!r}"
            )
        return self

    @property
    def composite_weights(self) -> CompositeWeights:
        """The chosen preset."""
        return self.presets[self.preset]

    @property
    def involvement_shares(self) -> dict[str, float]:
        """How much each component counts in the involvement of a whole track; they sum to 1."""
        rest = 1 - self.persistence_weight
        shares = {name: rest * share for name, share in self.composite_weights.model_dump().items()}
        return shares | {"persistence": self.persistence_weight}

    @property
    def region_weights(self) -> RegionWeights:
        """The chosen preset of the five regions."""
        return self.region_presets[self.regions]


class AnnotationParams(_Section):
    timeout_s: Positive
    seconds_per_video_second: Annotated[float, Field(ge=0)]
    workers: Annotated[int, Field(ge=0, le=256)]
    crowd: Annotated[int, Field(ge=2)]
    overlay: Literal["none", "fights", "all"]

    def allowance_s(self, duration_s: float | None) -> float:
        """How long the work on a clip of this duration may take."""
        return self.timeout_s + self.seconds_per_video_second * (duration_s or 0.0)


class WindowParams(_Section):
    mode: Literal["fixed", "adaptive"]
    size: Annotated[int, Field(ge=4, le=512)]
    stride: Count
    persons: Annotated[int, Field(ge=1, le=10)]
    frames_per_second: Positive | None = None  # packages of before it do not name it


class DatasetParams(_Section):
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    min_clips_per_label: Count
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]


class HoldoutParams(_Section):
    share: Annotated[float, Field(gt=0, lt=1)]
    seed: int
    auto_freeze: bool


class TrainParams(_Section):
    family: str
    streams: Annotated[tuple[Literal["joint", "bone", "joint_motion", "bone_motion"], ...], Field(min_length=1)]
    start: Annotated[str, Field(min_length=1)] | None
    start_share: Annotated[float, Field(ge=0, lt=1)]
    epochs: Count
    mini_batch: Count
    learning_rate: Positive
    momentum: Share
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive
    schedule: Literal["step", "cosine"]
    lr_steps: tuple[int, ...]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    mixup: Annotated[float, Field(ge=0, le=8)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    base_channels: Annotated[int, Field(ge=8, le=256, multiple_of=4)]
    class_weights: Literal["balanced", "fixed"]
    patience: Count
    min_epochs: Annotated[int, Field(ge=0)]
    seed: int
    min_new_clips: Annotated[int, Field(ge=0)]

    @field_validator("family")
    @classmethod
    def _is_family(cls, name: str) -> str:
        if fault := family_fault(name):
            raise ValueError(fault)
        return name

    @field_validator("start")
    @classmethod
    def _is_start(cls, name: str | None) -> str | None:
        known = shipped_starts()
        if name is not None and name not in known and not name.endswith(".safetensors"):
            raise ValueError(
                f"train.start is {name!r} but must be null, {', '.join(known)}, or a path that ends in .safetensors"
            )
        return name


class GateParams(_Section):
    mode: Literal["enabled", "dry_run", "disabled"]
    min_f1: Share
    min_recall: Share
    min_specificity: Share
    min_auc: Share
    min_clips: Count
    min_f1_difference: Annotated[float, Field(ge=-1, le=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    max_interval_loss: Share
    resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    max_slice_loss: Share
    min_slice_clips: Count
    max_ece: Share
    max_latency_ms: Positive
    approval_timeout_h: Hours
    approvers: tuple[str, ...]


class ExpectationParams(_Section):
    min_clips: Count
    max_share_quarantined: Share
    max_share_without_person: Share
    max_share_unlabelled: Share


class DriftParams(_Section):
    significance: Annotated[float, Field(gt=0, lt=0.5)]
    psi: Positive
    bins: Annotated[int, Field(ge=2, le=50)]
    min_clips: Annotated[int, Field(ge=5)]
    trigger: bool


class ShadowParams(_Section):
    nights: Count


class ScheduleParams(_Section):
    nightly: str
    timezone: str
    retries: Annotated[int, Field(ge=0, le=20)]
    retry_delay_s: Annotated[float, Field(gt=0, le=86400)]
    max_retry_delay_s: Annotated[float, Field(gt=0, le=86400)]
    task_timeout_h: Hours
    late_after_h: Hours | None

    @field_validator("nightly")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        from croniter import CroniterError, croniter  # Airflow has it loaded where DAG files are read

        try:
            croniter(text).get_next()  # also raises if there is no such day
            fields = 5 if text.startswith("@") else len(text.split())
        except CroniterError:
            fields = 0
        if fields != 5:
            raise ValueError(f"schedule.nightly is {text!r} but must be a cron expression of 5 fields like '0 2 * * *'")
        return text

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"schedule.timezone is {name!r} but must be an IANA name like UTC or Europe/Berlin"
            ) from None
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The clock that nights go by."""
        return ZoneInfo(self.timezone)


class Params(_Section):
    """All sections of `params.yaml`; the file carries the defaults, so nothing has one here."""

    ingest: IngestParams
    validation: ValidationParams
    pose: PoseParams
    tracking: TrackingParams
    involvement: InvolvementParams
    annotation: AnnotationParams
    windows: WindowParams
    dataset: DatasetParams
    holdout: HoldoutParams
    train: TrainParams
    gate: GateParams
    expectations: ExpectationParams
    drift: DriftParams
    shadow: ShadowParams
    schedule: ScheduleParams

    @model_validator(mode="after")
    def _orders(self) -> Params:
        if self.windows.stride > self.windows.size:
            raise ValueError("windows.stride must be at most windows.size")
        if self.pose.max_mini_batch < self.pose.mini_batch:
            raise ValueError("pose.max_mini_batch must be at least pose.mini_batch")
        if self.validation.min_frames > self.validation.max_frames:
            raise ValueError("validation.min_frames must be at most validation.max_frames")
        return self


def families() -> list[str]:
    """The model families that can be trained: a file of `recognition/configs` each, but for parts of others (`_…`)."""
    return sorted(path.stem for path in FAMILIES.glob("*.py") if not path.stem.startswith("_"))


def family_fault(name: str) -> str | None:
    """Why no family of that name can be trained; None if there is one."""
    known = families()
    return None if name in known else f"train.family is {name!r} but must be one of {', '.join(known)}"


def export_fault(name: str) -> str | None:
    """Why MMAction2's own tools cannot train that family on skeletons; None if they can. Costs no import of a network's library."""
    if runpy.run_path(str(FAMILIES / f"{name}.py")).get("_base_") == "_skeletons.py":
        return None
    return f"train.family {name} is no network of MMAction2 on skeletons: choose one that is, such as -S train.family=stgcnpp"


def shipped_params(overrides: dict[str, Any] | None = None) -> Params:
    """The parameters that a workspace starts with. Raises ParamsError for a bad override."""
    return load_params(TEMPLATE / "params.yaml", overrides)


def shipped_starts() -> list[str]:
    """The names of the starts that are shipped."""
    return sorted(path.stem for path in STARTS.glob("*.safetensors"))


class _Loader(yaml.SafeLoader):
    """Reads YAML without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """What a YAML text says. Raises YAMLError, also of an alias (`*name`) and of what is nested too deeply, and ValueError."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except RecursionError:
        raise yaml.YAMLError("too many levels") from None


def read_sections(path: Path) -> dict[str, Any]:
    """What `params.yaml` says, whether that is allowed or not. Raises ParamsError if the file is missing or holds no sections in YAML."""
    try:
        content = read_yaml(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} does not exist: run this inside a workspace, or make one with `violence-ops init DIR`."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise ParamsError(f"{path} is not readable as YAML{line} ({problem}): fix its syntax.") from None
    if not isinstance(content, dict):
        raise ParamsError(
            f"{path} holds no sections: remove it, and `violence-ops init` on the workspace writes a new one."
        )
    return content


def load_params(path: Path, overrides: dict[str, Any] | None = None) -> Params:
    """Read `params.yaml`.

    `overrides` maps dotted keys (`train.epochs`) to values that win over the file's.
    Raises ParamsError, naming the key, what is allowed and whether file or overrides gave it, if the file is missing, is no YAML, or a
    value is bad.
    """
    content = read_sections(path)
    overrides, changed = overrides or {}, dict(content)
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if not name or not isinstance(content.get(section), dict):
            raise ParamsError(f"{key} is not a parameter: write SECTION.KEY=VALUE with a key of params.yaml.")
        changed[section] = changed[section] | {name: value}
    try:
        return Params.model_validate(changed)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    own = {(fault["loc"], fault["msg"]) for fault in _faults(content)}
    if given := [fault for fault in faults if _came_with(overrides, fault, own)]:
        raise ParamsError(f"Set with --set (-S): {_sentence(given)}")
    raise ParamsError(f"{path}: {_sentence(faults)}")


def _faults(content: dict[str, Any]) -> list[ErrorDetails]:
    try:
        Params.model_validate(content)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _came_with(overrides: dict[str, Any], fault: ErrorDetails, own: Collection[tuple[Any, str]]) -> bool:
    """Whether a fault is not the file's: that of an overridden key, or one between several keys that is none of its `own`."""
    key = fault["loc"][:2]
    return ".".join(map(str, key)) in overrides if len(key) == 2 else (fault["loc"], fault["msg"]) not in own


def _sentence(faults: Sequence[ErrorDetails]) -> str:
    problems, missing = [], []
    for item in faults:
        key = ".".join(str(part) for part in item["loc"])
        match item["type"]:
            case "extra_forbidden":
                problems.append(f"{key} is not a known key; remove it or correct its name")
            case "missing" if len(item["loc"]) > 2:
                problems.append(f"{key} is missing; add it")
            case "missing":
                missing.append(key)
            case "value_error":
                problems.append(str(item["ctx"]["error"]))
            case _:
                allowed = item["msg"].removeprefix("Input ").replace("should be", "must be")
                problems.append(f"{key} is {item['input']!r} but {allowed}")
    if missing:
        are = "is" if len(missing) == 1 else "are"
        problems.append(
            f"{listed(missing)} {are} missing; `violence-ops init` on the workspace adds what an older version lacks"
        )
    return "; ".join(problems) + "."
