"""The registered model as others use it: through MLflow, from its own copy of the weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from release_miniature import OUTPUTS, build_workspace, load_facts, seal

from gme_release.config import ReleaseConfig
from gme_release.records import RunFacts
from gme_release.registration import register
from gme_release.tracking import open_client


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def served(facts: RunFacts, config: ReleaseConfig) -> Path:
    """A workspace whose champion is a real, untrained Qwen2-VL."""
    from gme_embedder.config import ModelConfig
    from gme_embedder.embedder import Embedder

    folder = facts.model
    for path in folder.iterdir():
        path.unlink()
    Embedder.fresh(ModelConfig(text_layers=1), seed=3).save(folder)
    model = seal(folder, "train-2").content
    evaluation = seal(facts.folder("evaluate"), "evaluate", {"model": model})
    seal(facts.folder("report"), "report", {"evaluation": evaluation.content})
    register(facts.workspace, config, load_facts(facts.workspace))
    return facts.workspace


def test_predict_equals_encode(served: Path) -> None:
    import mlflow
    import pandas as pd

    from gme_embedder.embedder import Embedder

    open_client(served)
    model = mlflow.pyfunc.load_model("models:/gme-tiny@champion")
    flavour = model.metadata.flavors["python_function"]
    assert Path(flavour["model_code_path"]).name == "pyfunc_model.py"
    assert not list(Path(served / "runs" / "mlflow" / "artifacts").rglob("*.pkl"))
    table = pd.DataFrame(
        {
            "text": ["a flag with a red disc", None, "the same in blue", "a flag with a red disc"],
            "image": [None, png("red"), png("blue"), None],
            "instruction": ["Find the flag.", None, "Find the flag.", None],
        }
    )
    found = model.predict(table)

    embedder = Embedder.load(served / OUTPUTS["train-2"])
    told = embedder.encode(
        ["a flag with a red disc", {"text": "the same in blue", "image": png("blue")}], "Find the flag."
    )
    plain = embedder.encode([{"image": png("red")}, "a flag with a red disc"])
    np.testing.assert_allclose(found, np.stack([told[0], plain[0], told[1], plain[1]]), atol=1e-5)
    assert found.dtype == np.float32
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, embedder.dimension)
    assert not np.allclose(found[0], found[3], atol=1e-3)  # the instruction is heard

    texts = model.predict(pd.DataFrame({"text": ["alone"]}))  # every column is optional
    assert texts.shape == (1, embedder.dimension)
    with pytest.raises(ValueError, match="neither text nor image"):
        model.predict(pd.DataFrame({"text": [None], "instruction": ["Find the flag."]}))


def test_workspaces_are_alike(tmp_path: Path) -> None:
    """The miniature itself: equal arguments, equal bytes; another seed, another model."""
    first, second = build_workspace(tmp_path / "a"), build_workspace(tmp_path / "b")
    assert first.model_digest == second.model_digest != build_workspace(tmp_path / "b", seed=1).model_digest
