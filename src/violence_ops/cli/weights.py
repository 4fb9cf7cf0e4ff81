"""Verbs of the pose model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from violence_ops.cli.common import JsonOption, WorkspaceOption, app, open_workspace, progress_bar, show
from violence_ops.pose.config import OWN

weights_app = typer.Typer(help="The pose model's weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def weights_list(as_json: JsonOption = False) -> None:
    """Which weights are there or can be pulled, with size, hash, licence and origin."""
    from violence_ops.stages.poses import pull as stage

    show(stage.available(), as_json)


@weights_app.command("pull")
def weights_pull(
    name: Annotated[str, typer.Argument(help="rtmo-t, rtmo-s, rtmo-m or rtmo-l.")],
    source: Annotated[
        str | None, typer.Option("--from", help="A mirror: an address or a folder that holds the published file.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="A folder; default: $VIOLENCE_OPS_WEIGHTS or the user's cache.")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="The published file's whole SHA-256; without it, its name's 8 digits are checked."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch official RTMO weights (OpenMMLab, body7), check and convert them; an interrupted pull goes on."""
    from violence_ops.stages.poses import pull as stage

    with progress_bar() as progress:
        result = stage.run(name, source=source, to=to, sha256=sha256, progress=progress)
    show(result, as_json)


@weights_app.command("train")
def weights_train(
    out: Annotated[Path, typer.Argument(help="The .safetensors to write; an interrupted training goes on.")],
    steps: Annotated[int, typer.Option(min=1, help="Training iterations in all.")] = 20_000,
    start: Annotated[str, typer.Option(help="Weights of rtmo_small to start from, or `none`.")] = OWN,
    clips: Annotated[
        Path | None,
        typer.Option(help="A folder of real clips; half of the pictures are then frames of them. Needs --teachers."),
    ] = None,
    teachers: Annotated[
        Path | None,
        typer.Option(help="A folder with a YOLOX .onnx and a MoveNet .tflite, which label the frames of --clips once."),
    ] = None,
    refiner: Annotated[
        bool, typer.Option("--refiner", help="Leave the network as it is; train only the refiner of its joints.")
    ] = False,
    seed: Annotated[int, typer.Option(help="What the pictures and their order depend on.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tracking: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow, http(s)://HOST:PORT or sqlite:///FILE: one run with curves, pictures and final figures.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the small RTMO on synthetic images and, with teachers, on real ones.

    The network learns together with the refiner that its weights have, if any. Weights without one get it with `--refiner`, at half
    the cost of a step: with one, joints are found much more precisely. The pulled weights are of other networks, which are not
    trained here.

    `OUT.run/` holds the checkpoint, from which an interrupted training goes on, `log.jsonl` with the losses, and `pictures/`. A finished
    one goes on with more `--steps`; with another start, seed, clips or anything else that it depends on it is refused.
    """
    from violence_ops.stages.poses import weights as stage

    begin = None if start == "none" else start
    with progress_bar() as progress:
        result = stage.train(
            out, steps=steps, start=begin, clips=clips, teachers=teachers, seed=seed, device=device, tracking=tracking,
            refiner=refiner, progress=progress,
        )  # fmt: skip
    show(result, as_json)


@weights_app.command("evaluate")
def weights_evaluate(
    name: Annotated[str, typer.Argument(help="A shipped name or a .safetensors file.")] = OWN,
    clips: Annotated[int, typer.Option(min=1, help="Held-out synthetic scenes, two frames each.")] = 150,
    backend: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"],
        typer.Option(help="auto: as in params.yaml, on a processor."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16", "int8"], typer.Option(help="int8 needs `weights calibrate` before.")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Average precision and recall on synthetic scenes that no training has seen."""
    from violence_ops.stages.poses import weights as stage

    show(stage.evaluate(name, clips=clips, backend=backend, precision=precision), as_json)


@weights_app.command("calibrate")
def weights_calibrate(
    clips: Annotated[
        Path | None, typer.Option(help="A folder of videos; default: the inbox and the newest batches.")
    ] = None,
    name: Annotated[str | None, typer.Option("--weights", help="Default: pose.weights.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames to calibrate with, for each input size.")] = 150,
    scenes: Annotated[int, typer.Option(min=1, help="Held-out synthetic scenes to judge by, two frames each.")] = 40,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make INT8 networks with the site's own frames (pose.precision int8) and print what they lose and save."""
    from violence_ops.stages.poses import calibrate as stage

    opened, params = open_workspace(workspace)
    with progress_bar() as progress:
        result = stage.run(opened, params, clips=clips, name=name, frames=frames, scenes=scenes, progress=progress)
    show(result, as_json)
