"""What is learned from a teacher: the divergence is the plain one, and a teacher thinks what its model thinks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.catalogs import catalog_of
from support.shapes import draw, make_examples

from gme_data.examples import write_examples
from gme_data.images import ImageStore, write_images
from gme_data.items import Item
from gme_data.steps import StepContext
from gme_embedder.embedder import Embedder
from gme_embedder.frozen import EfficientNetLite0, MiniLM
from gme_training.config import DistillConfig, PhaseConfig, SourceShare, TrainingConfig
from gme_training.data.batches import BatchSampler
from gme_training.data.catalog import Catalog
from gme_training.losses import teachers
from gme_training.losses.distillation import distillation_loss
from gme_training.losses.teachers import TeacherVectors, ensure_teacher_vectors
from gme_training.step import train


def unit(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1)


def test_the_divergence_is_the_sum_over_queries_of_the_plain_formula():
    queries, candidates, teacher = unit(3, 8, seed=1), unit(5, 8, seed=2), unit(3, 4, seed=3) @ unit(5, 4, seed=4).T
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    excluded[0, 3] = excluded[2, 0] = True
    expected = 0.0
    for row in range(3):
        included = ~excluded[row]
        by_teacher = torch.softmax(teacher[row, included] / 0.3, 0)
        by_student = torch.softmax(candidates[included] @ queries[row] * 20.0, 0)
        expected += float((by_teacher * (by_teacher / by_student).log()).sum())
    actual = distillation_loss(queries, candidates, teacher, excluded, torch.tensor(20.0, dtype=torch.float64), 0.3)
    assert float(actual) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1


def test_a_student_who_thinks_as_the_teacher_has_nothing_to_learn():
    queries, candidates = unit(3, 8, seed=1).requires_grad_(), unit(5, 8, seed=2)
    teacher = (queries @ candidates.T).detach()
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    loss = distillation_loss(queries, candidates, teacher, excluded, torch.tensor(1 / 0.3, dtype=torch.float64), 0.3)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
    assert torch.autograd.grad(loss, queries)[0].abs().max() < 1e-9


@pytest.fixture(scope="module")
def images(world: dict[str, Path]) -> ImageStore:
    return ImageStore([world["corpus"] / "images"])


CATALOG = catalog_of(make_examples()[0])


def phase(source: str, *, batch_size: int = 8, **changes: object) -> PhaseConfig:
    share = SourceShare(source=source, batch_size=batch_size, grouped=0)
    return PhaseConfig(name=source, steps=1, mixture=(share,), **{"distill": DistillConfig(), **changes})


def plan(source: str, catalog: Catalog = CATALOG, **changes: Any) -> BatchSampler:
    return BatchSampler(catalog, phase(source, **changes), number=0, seed=5)


@pytest.fixture(scope="module")
def teacher_folder(images: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    ensure_teacher_vectors([plan("question"), plan("shape"), plan("shape-name")], CATALOG, images, folder)
    return folder


def cosines(folder: Path, source: str) -> tuple[np.ndarray, list[Item], list[Item]]:
    """Of a batch by the teachers, and the batch's queries and candidates."""
    batch = plan(source).batch(0)
    actual = TeacherVectors(folder).cosines(CATALOG, batch, np.arange(len(batch.rows)))
    assert actual is not None
    return (
        actual.numpy(),
        [CATALOG.items[number] for number in CATALOG.query[batch.rows].tolist()],
        [CATALOG.items[number] for number in batch.candidates.tolist()],
    )


def test_minilm_encodes_texts(teacher_folder: Path):
    actual, queries, candidates = cosines(teacher_folder, "question")
    query_vectors, candidate_vectors = (
        MiniLM().encode([item.text or "" for item in items]) for items in (queries, candidates)
    )
    np.testing.assert_allclose(actual, query_vectors @ candidate_vectors.T, atol=2e-3)


def test_efficientnet_encodes_pictures_without_what_they_have_in_common(teacher_folder: Path, images: ImageStore):
    actual, queries, candidates = cosines(teacher_folder, "shape")
    model = EfficientNetLite0(size=112)
    sampled = np.concatenate([plan(source).sampled_rows() for source in ("question", "shape", "shape-name")])
    numbers = np.unique(np.concatenate([CATALOG.query[sampled], CATALOG.positive[sampled]])).tolist()
    pictures = [item for item in (CATALOG.items[number] for number in numbers) if item.image and not item.text]
    vectors = model.encode([images.load(item.image or "") for item in pictures])
    vectors = vectors - vectors.mean(0)
    by_item = dict(zip(pictures, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    expected = np.stack([by_item[item] for item in queries]) @ np.stack([by_item[item] for item in candidates]).T
    np.testing.assert_allclose(actual, expected, atol=5e-3)


def test_between_names_and_pictures_the_names_speak_for_both(teacher_folder: Path):
    actual, queries, candidates = cosines(teacher_folder, "shape-name")
    assert all(item.image for item in candidates)
    names = MiniLM().encode([item.text or "" for item in queries])
    targets = actual.argmax(1)
    np.testing.assert_allclose(actual[:, targets], names @ names.T, atol=2e-3)


def test_an_item_of_both_kinds_has_no_teacher(images: ImageStore, tmp_path: Path):
    shapes = [example for example in make_examples()[0] if example.source == "shape"]
    catalog = catalog_of([replace(example, query=Item("which?", example.query.image)) for example in shapes])
    ensure_teacher_vectors([plan("shape", catalog)], catalog, images, tmp_path / "teachers")
    batch = plan("shape", catalog).batch(0)
    assert TeacherVectors(tmp_path / "teachers").cosines(catalog, batch, np.arange(8)) is None


def test_teachers_are_asked_once_and_by_phases_that_distil_alone(
    teacher_folder: Path, images: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(teachers, "_text_encoder", lambda: pytest.fail("MiniLM was loaded"))
    ensure_teacher_vectors([plan("question")], CATALOG, images, teacher_folder)
    ensure_teacher_vectors([plan("question", distill=None)], CATALOG, images, tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_what_is_drawn_is_encoded(images: ImageStore, tmp_path: Path):
    two = plan("question", batch_size=2)
    ensure_teacher_vectors([two], CATALOG, images, tmp_path)
    batch = two.batch(0)
    sampled = {*CATALOG.query[batch.rows].tolist(), *batch.candidates.tolist()}
    assert {
        number for number in range(len(CATALOG.items)) if np.load(tmp_path / "text_row.npy")[number] >= 0
    } == sampled


def trained(config: TrainingConfig, inputs: dict[str, Path], folder: Path) -> dict[str, float]:
    (folder / "log").mkdir(parents=True)
    return dict(train(config, inputs, StepContext(folder, "key", folder / "log")))


def divergence_from_teachers(model: Path, teachers_folder: Path, images: ImageStore) -> float:
    """Of a trained model, on a batch of questions."""
    batch = plan("question").batch(0)
    rows = np.arange(len(batch.rows))
    teacher = TeacherVectors(teachers_folder).cosines(CATALOG, batch, rows)
    assert teacher is not None
    embedder = Embedder.load(model)
    queries, candidates = (
        torch.from_numpy(embedder.encode([CATALOG.items[number] for number in numbers.tolist()], None, images))
        for numbers in (CATALOG.query[batch.rows], batch.candidates)
    )
    nothing = torch.zeros(len(queries), len(candidates), dtype=torch.bool)
    return float(distillation_loss(queries, candidates, teacher, nothing, torch.tensor(1 / 0.03), 0.05))


@pytest.mark.usefixtures("only_rank")
def test_a_stage_learns_from_teachers(
    small_config, world: dict[str, Path], teacher_folder: Path, images: ImageStore, tmp_path: Path
):
    for name, distill in (("taught", DistillConfig(weight=100.0)), ("alone", None)):
        mixture = (SourceShare(source="question", batch_size=16, grouped=0),)
        changed = small_config().phases[1].model_copy(update={"distill": distill, "steps": 16, "mixture": mixture})
        trained(small_config(phases=(changed,), ranks=1), world, tmp_path / name)
    taught, alone = (divergence_from_teachers(tmp_path / name, teacher_folder, images) for name in ("taught", "alone"))
    assert taught < 0.9 * alone
    assert not (tmp_path / "alone" / ".teachers").exists()


@pytest.mark.usefixtures("only_rank")
def test_a_stage_learns_from_extra_examples_and_their_pictures(small_config, world: dict[str, Path], tmp_path: Path):
    shapes = [replace(example, source="extra-shape") for example in make_examples()[0] if example.source == "shape"]
    write_examples(tmp_path / "extra" / "train", shapes)
    shutil.copytree(world["corpus"] / "images", tmp_path / "extra" / "images")
    (tmp_path / "corpus" / "images").mkdir(parents=True)
    texts = [example for example in make_examples()[0] if example.source == "question"]
    write_examples(tmp_path / "synthetic" / "train", texts)
    write_images(tmp_path / "corpus" / "images", [draw("pink", "bar", outlined=False)])
    mixture = tuple(SourceShare(source=source, batch_size=8, grouped=0) for source in ("extra-shape", "question"))
    config = small_config(
        phases=(small_config().phases[1].model_copy(update={"mixture": mixture, "steps": 4}),), ranks=1
    )
    counts = trained(config, {name: tmp_path / name for name in ("corpus", "synthetic", "extra")}, tmp_path / "out")
    assert counts["steps"] == 4
