"""Configurations as an attacker or a broken disk writes them: exit 2 with the file, at once, and nothing else."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.harness import EXAMPLES, try_damaged

from gme_cli.main import run
from gme_data.digests import canonical_json, sha256_json
from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_data.structured import parse_yaml
from gme_training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = (ROOT / "configs" / "tiny.yaml").read_text()
BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 3)}]\n" for n in range(1, 21))
VERBS = {"plan": ("plan",), "own": ("corpus", "import"), "study": ("study",)}


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """What hangs is killed, not waited for."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(300)
    yield
    signal.alarm(0)


def refused(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    code = run([*arguments, str(path)])
    said = capsys.readouterr().err
    assert code == 2, said
    assert path.name in said
    assert "Internal error" not in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "aliases"),
        ("a: &a [*a]", "inside of what it stands for"),
        ("[" * 3000 + "]" * 3000, "nested more than 64 deep"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested more than 64 deep"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 0x" + "f" * 5000, "beyond 64 bits"),
        ("seed: .nan", "not finite"),
        ("seed: -.inf", "not finite"),
        ('name: "\\ud800"', "not valid YAML"),
        ("name: !!binary /w==", "bytes"),
        ('name: !!int ""', "not valid YAML"),
        ("name: !!timestamp x", "not valid YAML"),
        ("name: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("name: a\nname: b", "twice"),
        ("7: x", "Keys should be strings"),
        ("[]", "expected a mapping"),
        ("name: [", "not valid YAML"),
        ("name: \0", "not valid YAML"),
    ],
)
@pytest.mark.hardening("attacks", "A16", "Hostile configs: alias bombs, pipes, depth, huge numbers")
def test_a_hostile_file_ends_with_2_and_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    assert why in refused(capsys, path, "plan", "--workspace", str(tmp_path), "--config")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "not utf-8"])
@pytest.mark.hardening("attacks", "A16", "Hostile configs: alias bombs, pipes, depth, huge numbers")
def test_what_is_no_regular_file_of_text_is_refused_by_every_reader_of_configs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, kind: str
) -> None:
    path = tmp_path / "hostile.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"name: \xff\xfe")
    option = () if verb == "study" else ("--config",)
    refused(capsys, path, *VERBS[verb], "--workspace", str(tmp_path / "ws"), *option)


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.seed=.nan",
        "stage_1.phases.0.text_learning_rate=.inf",
        "stage_1.phases.0.text_learning_rate='nan'",
        "stage_1.seed=" + "9" * 5000,
        "name='\udcff'",
        "name=\udcff",
        "\udcff=1",
        "stage_1={a: " * 90,
        "=1",
        "stage_1.phases.99.steps=1",
        "stage_1.seed.x=1",
    ],
)
@pytest.mark.hardening("attacks", "A16", "Hostile configs: alias bombs, pipes, depth, huge numbers")
def test_a_hostile_override_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str) -> None:
    config = str(ROOT / "configs" / "tiny.yaml")
    code = run(["plan", "--workspace", str(tmp_path), "--config", config, "--set", override])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Internal error" not in said


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 30)])
@pytest.mark.parametrize(
    "command",
    [
        "embed --model NAME --input NAME --output out", "search --image NAME", "plan --config NAME",
        "plan --workspace NAME", "corpus import --config NAME", "serve --corpus NAME", "umrb run --model NAME",
        "promote 1 --workspace NAME", "release verify NAME", "study NAME", "export --model NAME --output out",
        "doctor --workspace NAME", "pipeline --config NAME",
    ],
)  # fmt: skip
@pytest.mark.hardening("attacks", "A16", "Hostile configs: alias bombs, pipes, depth, huge numbers")
def test_a_name_that_no_file_can_have_ends_with_2(capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    code = run(command.replace("NAME", name).split())
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Internal error" not in said


@pytest.mark.hardening("fuzz", "Z6", "configs")
def test_mutated_configs_are_refused_or_can_be_digested() -> None:
    text = re.search(r"(?ms)^stage_1:\n(.*?)^\S", TINY)
    assert text
    whole = re.sub(r"(?m)^  ", "", text[1]).encode()

    def read(data: bytes) -> None:
        value = parse_yaml(data, where="mutated")
        assert sha256_json(parse_config(value, TrainingConfig, where="mutated").model_dump(mode="json"))

    tokens = (b".nan", b".inf", b"&a ", b"*a", b"[" * 80, b'"\\ud800"', b"!!binary ", b": ")
    refused = try_damaged(whole, read, share=0.5, tokens=tokens, fields=True)
    assert 0 < refused < 0.5 * EXAMPLES


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf")])
def test_what_a_program_gives_and_has_no_digest_is_refused(value: object) -> None:
    with pytest.raises(FoundryError, match="can't be put on record"):
        sha256_json([value])
    with pytest.raises(ValueError, match=r"surrogates|JSON"):
        canonical_json([value]).encode()


def test_a_pipe_as_picture_or_funnel_or_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gme_cli.search import _read_picture

    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(FoundryError, match="no regular file"):
        _read_picture(pipe)
    refused(capsys, pipe, "synthesize", "--plan", "--funnel")
    own = ["--config", str(ROOT / "examples" / "own-corpus" / "own.yaml"), "--workspace", str(tmp_path / "ws")]
    assert run(["corpus", "import", *own, "--set", f"corpus.passages={pipe}"]) == 2
    assert pipe.name in capsys.readouterr().err


def test_a_defect_of_ours_is_told_below_the_workspace_and_want_of_memory_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, elsewhere = tmp_path / "ws", tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def fail(error: Exception) -> int:
        def app(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("gme_cli.main.app", app)
        return run(["plan", "--workspace", str(workspace)])

    assert fail(ZeroDivisionError("a defect")) == 70
    assert "a defect" in (workspace / "runs" / "crash.log").read_text()
    assert not list(elsewhere.iterdir())
    capsys.readouterr()
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        OSError(12, "x"),
    ):
        assert fail(error) == 1
        said = capsys.readouterr().err
        assert "Out of memory" in said
        assert "report" not in said
