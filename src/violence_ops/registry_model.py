"""The code that MLflow runs to load a registered `violence-detector` (models-from-code, so that nothing is unpickled).

MLflow copies this file into the model's artifacts and executes the copy; the package's files lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class ViolenceDetector(mlflow.pyfunc.PythonModel):
    """Input: one row per person and frame, columns as in the model's signature and input example. Output: one row per clip.

    Rows that no clip can have are refused with a sentence. A family that looks at pictures refuses all, because no table brings it
    any; so does one that needs the clips' frame rate if `fps` is not given.
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
        from violence_ops.recognition.request import to_tracks

        if model_input["clip_id"].isna().any():
            raise mlflow.MlflowException.invalid_parameter_value(
                "A row has no `clip_id`: give every row that of its clip."
            )
        rows = []
        for clip_id, table in model_input.groupby("clip_id", sort=True):
            try:
                tracks = to_tracks(str(clip_id), {name: table[name].to_numpy() for name in table.columns})
                prediction = predict_clip(self._package, tracks)
            except UserError as refusal:
                raise mlflow.MlflowException.invalid_parameter_value(str(refusal)) from refusal
            rows.append(
                {
                    "clip_id": prediction.clip_id, "probability": prediction.probability,
                    "threshold": prediction.threshold, "verdict": prediction.verdict,
                }
            )  # fmt: skip
        return pd.DataFrame(rows, columns=["clip_id", "probability", "threshold", "verdict"])


mlflow.models.set_model(ViolenceDetector())
