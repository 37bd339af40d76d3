"""The registered model as others use it: through MLflow, from its own copy of the weights."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from release_miniature import OUTPUTS, build_workspace, load_facts, seal

from gme_release.config import ReleaseConfig
from gme_release.registry.registration import register
from gme_release.run_facts import RunFacts
from gme_release.tracking.client import open_client


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

    encoded = [base64.b64encode(png(colour)).decode() for colour in ("red", "blue")]
    mixed = model.predict(pd.DataFrame({"text": [None, "the same in blue"], "image": encoded}))
    np.testing.assert_allclose(mixed[0], plain[0], atol=1e-5)
    with pytest.raises(ValueError, match="neither bytes nor their base64"):
        model.predict(pd.DataFrame({"image": ["a flag.png"]}))

    texts = model.predict(pd.DataFrame({"text": ["alone"]}))  # every column is optional
    assert texts.shape == (1, embedder.dimension)
    with pytest.raises(ValueError, match="neither text nor image"):
        model.predict(pd.DataFrame({"text": [None], "instruction": ["Find the flag."]}))


_ALONE = """
import base64, sys
import mlflow, numpy, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/gme-tiny@champion")
picture = base64.b64encode(open(sys.argv[2], "rb").read()).decode()
rows = pandas.DataFrame({"text": ["a flag", None, "a flag"], "image": [None, picture, picture]})
numpy.save(sys.argv[3], model.predict(rows))
import gme_embedder
print(gme_embedder.__file__)
"""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_loads_in_a_clean_environment(served: Path, tmp_path: Path) -> None:
    """The model's own requirements, installed into an empty environment, are all that it needs."""
    import mlflow

    from gme_embedder.embedder import Embedder

    open_client(served)
    requirements = mlflow.pyfunc.get_model_dependencies("models:/gme-tiny@champion")
    pins = [line for line in Path(requirements).read_text().splitlines() if line]
    assert all("==" in pin for pin in pins)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "clean")], check=True)
    python = tmp_path / "clean" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", *pins], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip(f"no package index here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    (tmp_path / "red.png").write_bytes(png("red"))
    uri = f"sqlite:///{(served / 'runs' / 'mlflow' / 'mlflow.db').resolve()}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    alone = subprocess.run(
        [str(python), "-c", _ALONE, uri, str(tmp_path / "red.png"), str(tmp_path / "found.npy")],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-3000:]
    assert str(Path(__file__).resolve().parents[3]) not in alone.stdout
    embedder = Embedder.load(served / OUTPUTS["train-2"])
    expected = embedder.encode(["a flag", {"image": png("red")}, {"text": "a flag", "image": png("red")}])
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)


def test_workspaces_are_alike(tmp_path: Path) -> None:
    """The miniature itself: equal arguments, equal bytes; another seed, another model."""
    first, second = build_workspace(tmp_path / "a"), build_workspace(tmp_path / "b")
    assert first.model_digest == second.model_digest != build_workspace(tmp_path / "b", seed=1).model_digest
