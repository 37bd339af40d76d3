"""The example corpus, imported, and a language model for it that is a real server with a deterministic mind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bad_server import Answer, Asked, asked_for, chat

from flows.chains import IMPORT
from gme_data.steps import Outcome, PlannedStep, execute
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.import_config import ImportConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-corpus"


def import_flags(workspace: Path, passages: Path = EXAMPLE / "passages.jsonl") -> Outcome:
    config = ImportConfig(
        passages=passages,
        pictures=EXAMPLE / "pictures",
        columns={"text": "body", "title": "name"},
        licence="CC0-1.0",
        source="signal-flags",
    )
    return execute(PlannedStep(IMPORT, config.sealed(), {}), workspace)


def config(url: str = "", **changes: Any) -> SynthesisConfig:
    """Synthesis of the flags: by the model at `url`, or by rules."""
    endpoint = {"url": f"{url}/v1", "model": "stub", "concurrency": 4, "backoff_seconds": 0.01, "retries": 2}
    writer = {"kind": "endpoint", "endpoint": {**endpoint, **changes.pop("endpoint", {})}} if url else {"kind": "rules"}
    settings = {"writer": writer, "shard": 8, "dev": 0.1, "test": 0.2, "search": {"min_similarity": 0.97}}
    return SynthesisConfig.model_validate({**settings, **changes})


def write(asked: Asked) -> Answer:
    """What the model says: a question about the flag's look or letter, or the rewrite of one."""
    text = asked_for(asked)
    flag = re.search(r"signal flag (\w+)", text)
    name = flag.group(1) if flag else "nothing"
    if asked.body["response_format"]["json_schema"]["name"] == "entity":
        question = re.sub(r"</?question>", "", text).strip().replace(f"signal flag {name}", "this flag")
        reply = {"entity": f"signal flag {name}", "question": question}
    elif colours := re.search(rf"{name} is ([\w ,]+)\.", text):
        reply = {"answer": colours.group(1), "question": f"Which colours does signal flag {name} have?"}
    else:
        reply = {"answer": "International Code of Signals", "question": f"In which code does signal flag {name} stand?"}
    return chat(json.dumps(reply), prompt_tokens=100, completion_tokens=20)
