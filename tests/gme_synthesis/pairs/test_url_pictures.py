"""Pictures that pairs name by address are fetched once, before the import, which asks no network."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bad_server import Answer, Asked, Stub, path_of, serve
from PIL import Image

from flows.chains import PAIRS
from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.parquet import read_shards
from gme_data.steps import PlannedStep, execute
from gme_synthesis.pairs.config import PairsConfig
from gme_synthesis.pairs.importing import pairs_of
from gme_synthesis.pairs.url_pictures import FAILURES, FetchSummary, fetch_pictures, url_stem
from gme_synthesis.steps.fetching import FetchConfig, FetchedFile, Fetcher

ROWS = 12


def picture(shade: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 0, 0)).save(written, "PNG")
    return written.getvalue()


def reply(asked: Asked) -> Answer:
    number = int(path_of(asked).strip("/") or 0)
    if number == 3:
        return Answer(404)
    return Answer(body=b"<html>" if number == 4 else picture(20 * number))


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve(reply) as running:
        yield running


def config_of(folder: Path, stub: Stub, **given: object) -> PairsConfig:
    rows = [
        {"query": f"thing {number}", "positive_picture": f"{stub.url}/{number}", "entity": str(number)}
        for number in range(1, ROWS + 1)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"pairs": folder / "pairs.jsonl", "pictures": folder / "pictures", "dev": 0, "test": 0, **given}
    return PairsConfig.model_validate(settings)


def fetch(config: PairsConfig, *, retry_failed: bool = False) -> FetchSummary:
    """With a fetcher for which this machine counts as public."""
    assert config.pictures is not None
    settings = FetchConfig(obey_robots_txt=False, timeout_seconds=5)
    with closing(Fetcher(settings, allowed=lambda address: str(address) == "127.0.0.1")) as fetcher:
        return fetch_pictures(pairs_of(config), config.pictures, fetcher, retry_failed=retry_failed)


def test_what_was_fetched_is_imported_and_what_failed_is_told(tmp_path: Path, stub: Stub) -> None:
    config = config_of(tmp_path, stub)
    assert fetch(config) == FetchSummary(ROWS, ROWS - 2, {"status-404": 1, "not-a-picture": 1})
    asked = len(stub.asked)
    folder = execute(PlannedStep(PAIRS, config.sealed(), {}), tmp_path / "work").folder
    assert len(stub.asked) == asked, "an import asks no network"
    assert len(list(read_examples(folder / "train"))) == ROWS - 2
    rejects = {row["reason"]: row["text"] for row in read_shards(folder / "rejects", "rejects")}
    assert rejects.keys() == {"picture-status-404", "picture-not-a-picture"}
    assert f"{stub.url}/3" in rejects["picture-status-404"]


def test_a_second_fetch_asks_for_nothing_but_on_demand_for_what_failed(tmp_path: Path, stub: Stub) -> None:
    config = config_of(tmp_path, stub)
    first = fetch(config)
    asked = len(stub.asked)
    assert fetch(config) == FetchSummary(ROWS, 0, first.failed)
    assert len(stub.asked) == asked
    fetch(config, retry_failed=True)
    assert len(stub.asked) == asked + 2


def test_a_killed_fetch_goes_on(tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, stub)
    assert config.pictures is not None
    monkeypatch.setattr("gme_synthesis.pairs.url_pictures._URLS_PER_BATCH", 4)

    class Killed:
        """Dies before its second batch of addresses."""

        calls = 0

        def fetch(self, urls: list[str]) -> list[FetchedFile | str]:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return [FetchedFile(picture(20), url) if url[-1] != "3" else "timeout" for url in urls]

    with pytest.raises(KeyboardInterrupt):
        fetch_pictures(pairs_of(config), config.pictures, Killed())
    with (config.pictures / FAILURES).open("a") as journal:
        journal.write('{"url": "http://torn')
    assert not stub.asked
    assert fetch(config) == FetchSummary(ROWS, ROWS - 4, {"timeout": 1})
    assert len(stub.asked) == ROWS - 4
    assert (config.pictures / f"{url_stem(f'{stub.url}/12')}.png").read_bytes() == picture(240)


def test_addresses_need_a_fetch_before_the_import(tmp_path: Path, stub: Stub) -> None:
    config = config_of(tmp_path, stub)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FoundryError, match=r"pairs.jsonl, line 1: .*run `gme corpus fetch`"):
        execute(PlannedStep(PAIRS, config.sealed(), {}), tmp_path / "work")


def test_the_bounds_of_a_fetch_are_no_part_of_what_is_imported(tmp_path: Path, stub: Stub) -> None:
    slow = config_of(tmp_path, stub, fetch={"timeout_seconds": 99})
    assert slow.model_dump(mode="json") == config_of(tmp_path, stub).model_dump(mode="json")
