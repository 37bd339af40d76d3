"""The cards of a release, each a function of its record: the model's, with a model-index, and the datasets'."""

from __future__ import annotations

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from gme_release.release.record import ReleaseRecord, TaskScoreRecord, release_id

MODEL_CARD = "README.md"
"""File of the model's card in a bundle."""
DATASET_CARD = "DATASETS.md"
"""File of the datasets' card in a bundle."""


def model_card(record: ReleaseRecord) -> str:
    """Returns the model card. Its metadata hold each score as the record has it; its tables round to three places."""
    data = ModelCardData(
        model_name=f"{record.name}-{record.tag}",
        license="other",
        license_name=record.licence,
        library_name="gme-foundry",
        pipeline_tag="feature-extraction",
        tags=["multimodal", "retrieval", "embeddings", "gme-foundry"],
        base_model=record.base_model.get("hub"),
        eval_results=[_eval_result(record, task) for task in record.tasks],
    )
    types = [f"| {kind} | {value:.3f} |" for kind, value in record.types.items()]
    tasks = [
        f"| {t.name} | {t.task_type} | {t.metric} | {t.value:.3f} | [{t.interval[0]:.3f}, {t.interval[1]:.3f}] "
        f"| {t.queries} | {t.pool} |"
        for t in record.tasks
    ]
    text = f"""# {record.name} {record.tag}

A universal multimodal embedder: texts, pictures and both in one vector space. Generated from `record.json`
(`{release_id(record)}`); nothing here was written by hand.

```python
from gme_embedder.embedder import Embedder

embedder = Embedder.load("model")
vectors = embedder.encode(["a flag with a red disc", {{"image": "flag.png"}}])
```

## Scores

Mean over {len(record.tasks)} tasks: {record.overall:.3f}. Intervals are 95 % bootstrap intervals over queries.

| task type | mean |
|---|---|
{chr(10).join(types)}

| task | type | metric | value | interval | queries | pool |
|---|---|---|---|---|---|---|
{chr(10).join(tasks)}

## Made from

* Code: commit `{record.source.commit}`, packages pinned by `requirements.txt` (`{record.source.lock[:12]}`).
* Base: {record.base_model["name"]}.
* Data: {", ".join(f"{d.path} (`{d.content[:12]}`)" for d in record.datasets)}; see `{DATASET_CARD}`.
* Seeds: {", ".join(f"{name} = {value}" for name, value in record.seeds.items())}.

## Check it

`gme release verify FOLDER` re-checks bytes and signature, with `--rescore TASK` a score as well; `gme release reproduce
FOLDER` trains it again from the record.
"""
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def dataset_card(record: ReleaseRecord) -> str:
    """Returns the card of the datasets that the release was made from."""
    licences = sorted({licence for dataset in record.datasets for licence in dataset.licences})
    data = DatasetCardData(license="other", license_name=" AND ".join(licences), tags=["multimodal-retrieval"])
    lines = [f"# Data of {record.name} {record.tag}\n"]
    for dataset in record.datasets:
        lines += [
            f"## {dataset.path}\n",
            f"Made by the step `{dataset.step}`; {dataset.bytes / 1e6:.1f} MB.\n",
            f"* sha256 of names and bytes: `{dataset.content}`",
            f"* DVC: `{dataset.dvc}`",
            *(f"* licence of items: {licence}" for licence in dataset.licences),
            "",
        ]
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines)))


def _eval_result(record: ReleaseRecord, task: TaskScoreRecord) -> EvalResult:
    return EvalResult(
        task_type="retrieval",
        task_name=task.task_type,
        dataset_type=f"gme-foundry/{task.name}",
        dataset_name=task.name,
        dataset_split="test",
        dataset_revision=record.evaluation,
        metric_type=task.metric,
        metric_name=task.metric,
        metric_value=task.value,
    )
