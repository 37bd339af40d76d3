"""The page as people see it, in headless Chromium: by words, by a dropped picture, with a key, without a corpus."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator

import pytest
from serving import KEY, TEXTS, in_thread, png

from gme_embedder.corpus.job import identify_model
from gme_embedder.embedder import Embedder
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.live import CorpusLocation, LiveCorpus
from gme_serve.service import Service

pytestmark = pytest.mark.xdist_group("serve")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]
DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type: "image/png" }));
  const target = document.getElementById("drop");
  for (const kind of ["dragenter", "dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (looked for chromium, chromium-browser, google-chrome)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.complaints = []
    page.asked = set()
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.add(request.url))
    yield page
    page.close()


def until(page, true: str) -> None:
    """Wait for a JavaScript expression; the page's policy forbids Playwright's own way, which is eval in the page."""
    deadline = time.monotonic() + 20
    while not page.evaluate(true):
        assert time.monotonic() < deadline, true
        page.wait_for_timeout(20)


def first_card(page):
    until(page, "document.querySelectorAll('#hits:not(.stale) .hit').length === 12")
    return page.locator(".hit").first


def test_typed_words_find_their_text(page, servers):
    page.goto(servers["open"].url)
    page.keyboard.type(TEXTS[0])  # the field has the focus
    page.keyboard.press("Enter")
    card = first_card(page)
    assert TEXTS[0] in card.inner_text()
    assert "#1" in card.inner_text()
    assert "1.000" in card.inner_text()
    assert page.locator("#status").inner_text() == "The 12 nearest items"
    assert page.locator("#about").inner_text() == "12 items · model"
    assert page.complaints == []


def test_a_dropped_picture_finds_itself(page, servers):
    page.goto(servers["open"].url)
    page.evaluate(DROP, ["flag.png", base64.b64encode(png(4)).decode()])
    card = first_card(page)
    assert "picture-4" in card.inner_text()
    until(page, "document.querySelector('.hit img').naturalWidth > 0")
    assert page.locator("#name").inner_text() == "flag.png"
    assert page.locator("#preview").evaluate("image => image.naturalWidth") == 80
    assert page.complaints == []
    assert all(url.startswith((servers["open"].url, "blob:", "data:")) for url in page.asked), page.asked


def test_a_chosen_picture_finds_itself_and_can_be_taken_away(page, servers, tmp_path):
    (tmp_path / "flag.png").write_bytes(png(2))
    page.goto(servers["open"].url)
    page.set_input_files("#file", tmp_path / "flag.png")
    assert "picture-2" in first_card(page).inner_text()
    page.get_by_role("button", name="Remove picture").click()
    page.get_by_label("Words to search for").fill(TEXTS[1])
    page.get_by_role("button", name="Search").click()
    until(page, "document.querySelector('.hit .id').textContent === 'text-1'")


def test_texts_of_the_corpus_are_never_markup(page, servers):
    page.goto(servers["open"].url)
    page.fill("#text", TEXTS[3])
    page.keyboard.press("Enter")
    assert TEXTS[3] in first_card(page).inner_text()
    assert page.locator(".hit b, .hit p img").count() == 0


def test_mistakes_are_said(page, servers, tmp_path):
    page.goto(servers["open"].url)
    page.get_by_role("button", name="Search").click()
    assert page.locator("#status").inner_text() == "Type some words or choose a picture."
    (tmp_path / "broken.png").write_bytes(png(1)[:-40])
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#status.bad")
    assert "picture is damaged" in page.locator("#status").inner_text()
    assert page.locator(".hit").count() == 0


def test_the_key_is_asked_for_and_used(page, home):
    embedder = Embedder.load(home / "model")
    place = CorpusLocation(home / "vectors", identify_model(embedder, "model"), home / "corpus.parquet")
    corpus = LiveCorpus.open(place, embedder, seconds=5)
    service = Service("model", embedder, RequestLimits(), Batching())
    with in_thread(create_app(service, corpus, [KEY])) as url:
        page.goto(url)
        page.fill("#text", TEXTS[2])
        page.keyboard.press("Enter")
        page.wait_for_selector("#status.bad")
        assert page.locator("#status").inner_text() == "Enter the API key first."
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('status').textContent.includes('not accepted')")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        assert TEXTS[2] in first_card(page).inner_text()
        until(page, "[...document.querySelectorAll('.hit img')].every((image) => image.naturalWidth > 0)")


def test_without_a_corpus_it_says_how_to_make_one(page, strict_url):
    page.goto(strict_url)
    page.wait_for_selector("#hint:visible")
    assert "gme embed --input corpus.parquet" in page.locator("#hint").inner_text()
    assert not page.locator("#form").is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_it_fits_narrow_and_wide_windows_light_and_dark(browser, servers, tmp_path, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(servers["open"].url)
    page.fill("#text", "flag")
    page.keyboard.press("Enter")
    first_card(page)
    page.screenshot(path=tmp_path / "page.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    brightness = {
        name: sum(int(part) for part in value[4:-1].split(",")) for name, value in (("g", ground), ("i", ink))
    }
    assert (brightness["g"] > brightness["i"]) == (scheme == "light")
    page.close()


def test_the_policy_lets_nothing_else_in(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in client.get("/", headers={"Origin": "http://evil.example"}).headers
    for outside in ("http://", "https://", "//cdn"):
        assert outside not in answer.text
