"""Makes ``workspace.tar.xz``: what a workspace of commit f7cb828 holds after two registered runs and a release.

Runs with that commit's code, not with today's, from the root of a checkout of it:

    PYTHONPATH=.:packages:tests:tests/gme_release python .../tests/gme_release/f7cb828/make.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import release_miniature as miniature
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2VLConfig, Qwen2VLModel

from gme_cli.main import run
from gme_embedder.checkpoint import Settings, save_model
from gme_embedder.processing.prompt import END, IM_END, IM_START, PAD, VISION_TOKENS
from gme_release.config import ReleaseConfig
from gme_release.registration import register
from gme_release.release.create import create_release
from gme_release.release.signing import make_key

HOME = Path("/srv/gme")
"""Where the records say that the workspace lies: MLflow's addresses are absolute."""
TEXTS = ("Santiago is the capital of Chile.", "Lima", "A river of 1,204 km")


def byte_tokenizer() -> Tokenizer:
    """A token a byte, and the marks of the prompt."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in (END, IM_START, IM_END, *VISION_TOKENS)])
    return made


def small_qwen(tokenizer: Tokenizer, seed: int) -> Qwen2VLModel:
    """A random Qwen2-VL of 16 dimensions."""
    torch.manual_seed(seed)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
            "bos_token_id": tokenizer.token_to_id(IM_START), "eos_token_id": tokenizer.token_to_id(IM_END),
            "pad_token_id": tokenizer.token_to_id(END),
        },
        vision_config={"depth": 1, "embed_dim": 8, "num_heads": 1, "mlp_ratio": 2, "hidden_size": 16},
        image_token_id=tokenizer.token_to_id(PAD),
    )  # fmt: skip
    return Qwen2VLModel(config).eval()


def write_model(folder: Path, seed: int) -> None:
    """In the place of the miniature's weights, which no embedder loads."""
    tokenizer = byte_tokenizer()
    save_model(folder, small_qwen(tokenizer, seed), tokenizer, Settings())
    points = [{"stage": 2, "phase": "mix", "source": "flag", "step": n, "loss": 3.0 / n} for n in range(1, 6)]
    (folder / "curves.json").write_text(miniature.json.dumps({"series": points}))


def embed_corpus() -> None:
    """Three passages, and their vectors as `gme embed` wrote them."""
    rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    pq.write_table(pa.Table.from_pylist(rows), HOME / "corpus.parquet")
    arguments = ["--input", HOME / "corpus.parquet", "--output", HOME / "vectors", "--workspace", HOME]
    assert run(["embed", *map(str, arguments)]) == 0


def clean_checkout(folder: Path) -> Path:
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy==2.4.6\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "."]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def main(target: Path) -> None:
    miniature.write_model = write_model
    HOME.mkdir(parents=True)
    for seed in (1, 2):
        found = register(HOME, ReleaseConfig(), miniature.build_workspace(HOME, seed))
        assert found.champion == str(seed), found
    public = make_key(HOME.parent / "release.pem")
    create_release(HOME, ReleaseConfig(), "v1", HOME.parent / "release.pem", checkout=clean_checkout(HOME.parent / "c"))
    shutil.copy(public, HOME)
    embed_corpus()
    with tarfile.open(target, "w:xz", preset=9) as archive:
        archive.add(HOME, ".", filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("workspace.tar.xz")))
