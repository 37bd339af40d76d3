"""The registered model as MLflow runs it ("models from code"): this file is copied beside the weights and runs at load.

There is no pickle: the weights are safetensors, read by `gme_embedder`, whose source travels with the model. Input is a
table with the columns `text`, `image` (the bytes of a picture file, or their base64 as text) and `instruction`, each
optional; output is float32 [n, d], L2-normalised.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # must be imported at run time: MLflow resolves the annotations of `predict`
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class PyfuncEmbedder(PythonModel):
    """`Embedder.encode` behind MLflow's ``predict``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the weights from the artifact ``model``."""
        from gme_embedder.embedder import Embedder

        self._embedder = Embedder.load(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Embeds each row; rows of one instruction are encoded together.

        Returns:
            float32 [n, d], in the order of the rows.
        """
        rows = model_input.reset_index(drop=True)
        vectors: dict[int, np.ndarray] = {}
        for instruction, group in _by_instruction(rows).items():
            encoded = self._embedder.encode([_item(rows, row) for row in group], instruction=instruction)
            vectors.update(zip(group, encoded, strict=True))
        return np.stack([vectors[row] for row in range(len(rows))])


def _by_instruction(rows: pd.DataFrame) -> dict[str | None, list[int]]:
    groups: dict[str | None, list[int]] = {}
    for row in range(len(rows)):
        groups.setdefault(_cell(rows, row, "instruction"), []).append(row)
    return groups


def _item(rows: pd.DataFrame, row: int) -> dict[str, Any]:
    item = {"text": _cell(rows, row, "text"), "image": _decode_image(_cell(rows, row, "image"), row)}
    if not any(item.values()):
        raise ValueError(f"Row {row} has neither text nor image.")
    return {name: value for name, value in item.items() if value}


def _decode_image(value: bytes | str | None, row: int) -> bytes | None:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.rpartition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"Row {row}: the image is neither bytes nor their base64: {error}") from error


def _cell(rows: pd.DataFrame, row: int, column: str) -> Any:  # noqa: ANN401 - text or bytes, by column
    value = rows[column].iloc[row] if column in rows.columns else None
    # A missing cell is None, or the NaN of pandas: no column holds floats.
    return None if value is None or isinstance(value, float) else value


mlflow.models.set_model(PyfuncEmbedder())
