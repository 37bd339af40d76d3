"""`gme export`: write a model in the format of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gme_cli.options import Common, Inputs, find_model, print_inputs_note, print_json, say, say_plan
from gme_data.errors import FoundryError

_COMMON = Common()
Format = Literal["sentence-transformers", "adapter"]


def export(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: str = "champion",
    inputs: Inputs | None = None,
    format: Format = "sentence-transformers",  # noqa: A002 - the flag's name
    query_instruction: str = "",
    base: str | None = None,
    rank: int | None = None,
    common: Common = _COMMON,
) -> None:
    """Write a model for SentenceTransformer and AutoModel, or as LoRA adapters of its base; checked by loading it back.

    Parameters
    ----------
    output
        A new folder.
    model
        A folder, a hub name, or the alias of a registered model.
    inputs
        gme: make its inputs as GME's, though the folder does not say that they are, as that of Qwen2-VL itself.
    format
        Library that reads it. The folder for sentence-transformers is also one for transformers' AutoModel.
    query_instruction
        sentence-transformers: the instruction that `encode_query` puts before a query.
    base
        adapter: folder or hub name of the model that it was trained from.
    rank
        adapter: rank of the adapters that it was trained with.
    """
    if format == "adapter" and (base is None or rank is None):
        raise FoundryError("--format adapter needs --base and --rank.", hint="gme export --help tells what they are.")
    name, folder = find_model(model, common)
    if common.dry_run:
        say_plan(f"Would write {name} for {format} into {output}.", json=common.json)
        return
    from gme_embedder.embedder import Embedder
    from gme_embedder.export import export_sentence_transformer
    from gme_embedder.export_adapter import export_adapter

    print_inputs_note(folder, inputs)
    embedder = Embedder.load(folder, inputs=inputs)
    if base is not None and rank is not None and format == "adapter":
        export_adapter(embedder, base, output, rank=rank)
    else:
        export_sentence_transformer(embedder, output, query_instruction=query_instruction)
    if common.json:
        print_json({"output": output, "format": format, "model": name})
        return
    say(f"{output}: loaded back, the same vectors.")
