"""What a served model is asked and answers: the signature, an example of a request, and whether a model can answer it."""

from __future__ import annotations

from typing import Any

from violence_ops.errors import UserError


def signature() -> Any:
    """Input: a row per person and frame of any number of clips. Output: a row per clip."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    numbers = Array(DataType.double)
    inputs = [
        ColSpec("string", "clip_id"), ColSpec("long", "width"), ColSpec("long", "height"), ColSpec("long", "frame_count"),
        ColSpec("double", "fps", required=False), ColSpec("long", "frame"), ColSpec("long", "rank"), ColSpec("double", "movement"),
        ColSpec(numbers, "keypoints"), ColSpec(numbers, "keypoint_scores"),
    ]  # fmt: skip
    outputs = [
        ColSpec("string", "clip_id"), ColSpec("double", "probability"), ColSpec("double", "threshold"), ColSpec("string", "verdict"),
    ]  # fmt: skip
    return ModelSignature(Schema(inputs), Schema(outputs))


def try_out(model: Any) -> None:
    """Raise UserError if a logged model does not answer its input example, of which MLflow itself only warns."""
    try:
        model.predict(request())
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"The model cannot answer its own example of a request, so it is not registered: {reason}"
        ) from error


def request() -> Any:
    """Two persons standing still in two frames."""
    import pandas as pd

    rows = [
        {
            "clip_id": "0" * 20, "width": 640, "height": 360, "frame_count": 2, "fps": 15.0, "frame": frame, "rank": rank, "movement": 0.0,
            "keypoints": [float(80 * rank + 5 * axis + 3 * joint) for joint in range(17) for axis in range(2)],
            "keypoint_scores": [0.9] * 17,
        }
        for frame in range(2)
        for rank in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)
