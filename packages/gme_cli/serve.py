"""`gme serve`: serve a model over HTTP, with a search page over an embedded corpus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gme_cli.options import Common, Inputs, find_model, print_inputs_note, print_json, say, say_plan
from gme_data.errors import FoundryError
from gme_serve.config import Batching, RequestLimits, parse_keys

if TYPE_CHECKING:
    from gme_serve.live import LiveCorpus

_COMMON, _LIMITS, _BATCHING = Common(), RequestLimits(), Batching()


def serve(
    *,
    model: str = "champion",
    inputs: Inputs | None = None,
    name: str | None = None,
    corpus: Path | None = None,
    source: Path | None = None,
    images: Path | None = None,
    watch_seconds: float = 5.0,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_host: tuple[str, ...] = (),
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    api_key: Annotated[str | None, Parameter(env_var="GME_API_KEY", show_default=False)] = None,
    limits: Annotated[RequestLimits, Parameter(name="*")] = _LIMITS,
    batching: Annotated[Batching, Parameter(name="*")] = _BATCHING,
    common: Common = _COMMON,
) -> None:
    """Serve a model: an OpenAI-style /v1/embeddings, and a page to search an embedded corpus. Ctrl-C stops it.

    Parameters
    ----------
    model
        A folder, a hub name, or the alias of a registered model.
    inputs
        gme: make its inputs as GME's, though the folder does not say that they are, as that of Qwen2-VL itself.
    name
        Name of the model for clients; by default that of the folder, hub or alias.
    corpus
        Folder of vectors made by `gme embed` with the same model: what the page searches.
    source
        The tables that were embedded: what the page shows of the items.
    images
        Folder of images-*.parquet in which the image ids of the source are looked up.
    watch_seconds
        Seconds between checks for a new version of the corpus, published by `gme embed --update`, which is then served.
    host
        Where to listen. 0.0.0.0 lets other machines in, and needs an API key.
    port
        0 for any free one.
    allowed_host
        A further name by which clients know the server, such as that of a proxy in front; may be given several times.
    device
        Where the model runs.
    dtype
        Precision of the computation.
    api_key
        What clients must send as Bearer; several with commas between them. Better set GME_API_KEY: others on this
        machine can read command lines.
    """
    keys = parse_keys(api_key)
    if (source and not corpus) or (images and not source):
        raise FoundryError("--source needs --corpus, and --images needs --source.", hint="Give them together.")
    if not watch_seconds > 0:
        raise FoundryError(f"--watch-seconds {watch_seconds}: expected more than 0.")
    _, folder = find_model(model, common)
    model_name = name or (Path(model).resolve().name if Path(model).is_dir() else model)
    if corpus:
        from gme_embedder.corpus.job import read_job

        read_job(corpus)  # before the slow imports, so that a folder without vectors is refused at once
    from gme_serve.gate import Host, parse_hosts
    from gme_serve.server import address, bind, require_key, run

    hosts = parse_hosts(allowed_host)
    require_key(host, keys)
    if common.dry_run:
        searched = f"searching {corpus}" if corpus else "without a corpus"
        key = f"{'with' if keys else 'without'} an API key"
        say_plan(f"Would serve {folder} as '{model_name}' on {host}:{port}, {searched}, {key}.", json=common.json)
        return
    listener = bind(host, port)  # before the slow imports, so that a port in use is refused at once
    print_inputs_note(folder, inputs)
    from gme_embedder.corpus.job import identify_model, precision_notes
    from gme_embedder.embedder import Embedder
    from gme_embedder.model_files.locate import locate
    from gme_serve.app import create_app
    from gme_serve.live import CorpusLocation, LiveCorpus
    from gme_serve.service import Service

    located = locate(folder)
    embedder = Embedder.load(located, device=device, dtype=dtype, inputs=inputs)
    live_corpus = None
    if corpus:
        place = CorpusLocation(corpus, identify_model(embedder, model), source, images)
        live_corpus = LiveCorpus.open(place, embedder, watch_seconds)
        for note in precision_notes(live_corpus.current.job.precision, dtype):
            sys.stderr.write(f"{note}\n")
    service = Service(model_name, embedder, limits, batching)
    app = create_app(service, live_corpus, keys, [*hosts, Host(host.lower(), listener.getsockname()[1])])
    url = address(host, listener)
    run(app, service, listener, lambda: _announce(url, model_name, live_corpus, common), live_corpus)


def _announce(url: str, model_name: str, corpus: LiveCorpus | None, common: Common) -> None:
    items = len(corpus.current.ids) if corpus else None
    if common.json:
        index = corpus.current.index if corpus else None
        print_json({"url": url, "model": model_name, "items": items, "index": index})
    else:
        say(f"{model_name} at {url}" + (f", searching {items:,} items" if items is not None else ""))
    sys.stdout.flush()  # a program that started this in a pipe waits for the line
