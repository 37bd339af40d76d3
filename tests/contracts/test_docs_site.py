"""The documentation site builds without a warning, fetches nothing, and shows commands and fields that exist."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.chains import pipeline_chain
from flows.config import PipelineConfig, load_pipeline
from gme_cli.main import app
from gme_embedder.embedder import Embedder

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MKDOCS = Path(sys.executable).with_name("mkdocs")
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = {"", "bash", "sh", "console", "text"}
FETCHED = re.compile(
    r"""<(?:script|img|source)\b[^>]*\bsrc=["']?(https?:)?//|<link\b[^>]*stylesheet[^>]*href=["']?(https?:)?//"""
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    if not MKDOCS.exists():
        pytest.skip("mkdocs is not installed: pip install 'gme-foundry[docs]'")
    return subprocess.run(
        [str(MKDOCS), "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": f"{ROOT / 'packages'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr, done.stderr[-4000:]
    return folder


def test_every_page_is_there_and_nothing_else(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    made = {Path("reference/commands.html"), Path("reference/config.html"), Path("404.html")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} == pages | made
    assert not list(site.rglob("*.py"))


def test_the_site_fetches_nothing(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert FETCHED.search(path.read_text(encoding="utf-8")) is None, path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_every_field_of_a_pipeline_file_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "config.html").read_text(encoding="utf-8")
    schema = PipelineConfig.model_json_schema()
    for name, part in {"the-file": schema, **schema["$defs"]}.items():
        if "properties" not in part:
            continue
        section = page.split(f'id="{name.lower()}"')[1].split("<h2")[0]
        missing = [field for field in part["properties"] if f"<code>{field}</code>" not in section]
        assert not missing, (name, missing)


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    names = [name for name in app if not name.startswith("-")]
    assert len(names) > 20
    assert [name for name in names if f'id="gme-{name}"' not in page] == []
    assert "--new-run" in page


def test_docstrings_are_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "embedder.html").read_text(encoding="utf-8")
    section = page.split('id="gme_embedder.embedder.Embedder.encode"')[1].split("<h3")[0]
    text = " ".join(re.sub(r"<[^>]+>", "", section).split())
    docstring = " ".join((inspect.getdoc(Embedder.encode) or "").partition("Args:")[0].split())
    assert docstring in text
    assert "instruction" in section


def test_the_picture_names_every_step(site: Path) -> None:
    picture = (DOCS / "pipeline.svg").read_text(encoding="utf-8")
    steps = pipeline_chain(load_pipeline(Path("configs/tiny.yaml"))).names
    assert [name for name in [*steps, "register", "champion"] if f">{name}</text>" not in picture] == []
    for page in ("index.html", "concepts.html"):
        assert 'class="pipeline-picture"' in (site / page).read_text(encoding="utf-8")


def test_a_dead_link_stops_the_build(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(text)
    for name in ("packages", "flows"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs" / "quickstart.md").write_text("# Quickstart\n\n[a](nowhere.md) [b](concepts.md#none)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#none" in done.stderr


def shown_commands(page: Path) -> list[str]:
    """Lines of a page's blocks that call `gme`, continued lines joined, comments and pipes off."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in BLOCK.findall(text) if language in SHELL]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [re.sub(r"^\$ ", "", line.strip()) for line in lines]
    return [re.split(r"\s#\s|\s\||\s>", call)[0] for call in calls if call.startswith("gme ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shown_commands_exist(page: Path) -> None:
    """Each parses: verb, options and their types, as if it were called."""
    for line in shown_commands(page):
        words = [word for word in shlex.split(line)[1:] if not re.fullmatch(r"\[.*|.*\]|\.\.\.", word)]
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_commands_are_found_in_the_pages() -> None:
    assert sum(len(shown_commands(page)) for page in PAGES) > 40
    with pytest.raises(Exception, match="new-rum"):
        app.parse_args(["pipeline", "--new-rum"], exit_on_error=False, print_error=False)
