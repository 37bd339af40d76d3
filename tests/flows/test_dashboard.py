"""What `gme dashboard` serves of the finished run, as people see it in Chromium: both pages, and what leads to what."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.small import Small

from gme_cli.dashboard import Dashboards, running_dashboards
from gme_release.tracking.client import open_client

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOST = 240_000  # ms; a busy machine is slow
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (looked for chromium, chromium-browser, google-chrome)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(MOST)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def served(page: Any, finished: tuple[Small, dict[str, Any]]) -> Iterator[Dashboards]:
    with running_dashboards(finished[0].workspace) as shown:
        yield shown


def seen(page: Any, *texts: str) -> None:
    for text in texts:
        page.get_by_text(text).first.wait_for()


def test_mlflow_shows_the_run_its_steps_curves_and_plots(
    page: Any, served: Dashboards, finished: tuple[Small, dict[str, Any]], tmp_path: Path
) -> None:
    client = open_client(finished[0].workspace)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    [whole] = [name for name in runs if name.startswith("small ")]
    home = f"{served.mlflow}/#/experiments/{experiment.experiment_id}/runs"

    page.goto(home, timeout=MOST)
    seen(page, "Runs of the weekly pipeline", "small 20", "data/atlas", "10 matching runs")
    page.screenshot(path=tmp_path / "mlflow.png")
    page.goto(f"{home}/{runs[whole]}", timeout=MOST)
    seen(page, whole, "Finished", "data/atlas", "4 train-1")
    page.get_by_text("4 train-1").first.click()
    page.wait_for_url(f"**/{runs['4 train-1']}**", timeout=MOST)
    page.goto(f"{home}/{runs['4 train-1']}/model-metrics", timeout=MOST)
    seen(page, "4 train-1 (accuracy/all)", "similarity", "optimizer")
    page.goto(f"{home}/{runs['4 train-1']}/artifacts", timeout=MOST)
    page.get_by_text("plots").first.click()
    page.get_by_text("loss.svg").first.click()
    seen(page, "plots/loss.svg")
    drawn = "() => [...document.images].some((image) => image.src.startsWith('blob:') && image.naturalWidth > 300)"
    page.wait_for_function(drawn)
    page.goto(f"{served.mlflow}/#/models/small", timeout=MOST)
    seen(page, "Version 1", "champion", "gme.model_digest")


def test_prefect_shows_the_run_and_what_it_leads_to(
    page: Any, served: Dashboards, finished: tuple[Small, dict[str, Any]], tmp_path: Path
) -> None:
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    url, form = served.prefect.url, page.get_by_placeholder("admin:pass")
    page.goto(f"{url}/runs", timeout=MOST)
    form.fill("guessed")
    page.keyboard.press("Enter")
    seen(page, "Authentication failed")
    form.fill(served.prefect.secret)
    page.keyboard.press("Enter")
    seen(page, "gme-pipeline", "Completed", "10 Task runs")
    page.screenshot(path=tmp_path / "prefect.png")
    page.goto(f"{url}/artifacts", timeout=MOST)
    seen(page, "scores", "verdict", "funnel", f"small v{finished[1]['version']} registered and champion")
    page.get_by_text("verdict").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    seen(page, "detail", "floor/place-question-t2t")
    assert asked == {urlsplit(url).netloc}  # and nobody else is told of it
