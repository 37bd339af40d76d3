"""The real server in a process of its own, its model a constant: for what is about bodies, time and memory.

Arguments: the folder of a model, whose preparer is used; `RequestLimits` as JSON. A text ``slow 3`` takes 3 seconds.
"""

from __future__ import annotations

import json
import signal
import sys
import time

from serving import ConstantEncoder

from gme_embedder.embedder import Embedder
from gme_serve.app import create_app
from gme_serve.config import Batching, RequestLimits
from gme_serve.server import address, bind, run
from gme_serve.service import Service


class SlowEncoder(ConstantEncoder):
    def encode(self, items, instruction, *, batch_tokens):
        self.calls.clear()
        for item in items:
            name, _, seconds = item.get("text", "").partition(" ")
            if name == "slow":
                time.sleep(float(seconds))
        return super().encode(items, instruction, batch_tokens=batch_tokens)


def interrupt(*_):  # as `gme` does
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    folder, limits = sys.argv[1], RequestLimits(**json.loads(sys.argv[2]))
    service = Service("constant", SlowEncoder(Embedder.load(folder).preparer), limits, Batching())
    opened = bind("127.0.0.1", 0)
    run(create_app(service), service, opened, lambda: print(address("127.0.0.1", opened), flush=True))  # noqa: T201
