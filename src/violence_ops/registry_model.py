"""The code that MLflow runs to load a registered `violence-detector` (models-from-code, so that nothing is unpickled).

MLflow copies this file into the model's artifacts and executes the copy; the package's files lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd


class ViolenceDetector(mlflow.pyfunc.PythonModel):
    """Input: one row per person and frame, columns as in the model's signature and input example. Output: one row per clip.

    A family that looks at pictures refuses with a sentence, because no table brings it any; so does one that needs the clips'
    frame rate if `fps` is not given.
    """

    def load_context(self, context: Any) -> None:
        """Load the package that was logged with the model."""
        from violence_ops.recognition import package

        self._package = package.load(Path(context.artifacts["package"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Probability of Fight, threshold and verdict of every clip_id in the table.

        A refusal is a MlflowException: of no other does a server tell what it says.
        """
        from violence_ops.errors import UserError
        from violence_ops.recognition.predict import predict_clip

        rows = []
        for clip_id, table in model_input.groupby("clip_id", sort=True):
            try:
                prediction = predict_clip(self._package, _tracks(str(clip_id), table))
            except UserError as refusal:
                raise mlflow.MlflowException.invalid_parameter_value(str(refusal)) from refusal
            rows.append(
                {
                    "clip_id": prediction.clip_id, "probability": prediction.probability,
                    "threshold": prediction.threshold, "verdict": prediction.verdict,
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=["clip_id", "probability", "threshold", "verdict"])


def _tracks(clip_id: str, table: pd.DataFrame) -> Any:
    """The rows of one clip as the tracks that the classifier reads; what it does not look at is zero.

    A joint with a coordinate or score that is no number (JSON's null) was not seen, as in poses: score 0 at (0, 0).
    """
    from violence_ops.records import COMPONENTS, JOINTS, ClipTracks

    count = len(table)
    components = np.zeros((count, len(COMPONENTS)), np.float32)
    components[:, COMPONENTS.index("movement")] = table["movement"]
    points = np.array(table["keypoints"].tolist(), np.float32).reshape(-1, JOINTS, 2)
    scores = np.array(table["keypoint_scores"].tolist(), np.float32)
    seen = np.isfinite(points).all(axis=2) & np.isfinite(scores)
    first = table.iloc[0]
    return ClipTracks(
        clip_id=clip_id, width=int(first["width"]), height=int(first["height"]), frame_count=int(first["frame_count"]),
        fps=float(first.get("fps", 0.0)),
        frame=table["frame"].to_numpy(np.int32), bboxes=np.zeros((count, 4), np.float32), scores=np.zeros(count, np.float32),
        keypoints=np.where(seen[..., None], points, np.float32(0)), keypoint_scores=np.where(seen, scores, np.float32(0)), track_id=table["rank"].to_numpy(np.int32),
        rank=table["rank"].to_numpy(np.int32), involvement=np.zeros(count, np.float32), components=components,
    )  # fmt: skip


mlflow.models.set_model(ViolenceDetector())
