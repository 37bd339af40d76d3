from __future__ import annotations

import pytest

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_training.config import MiningConfig, PhaseConfig, SourceShare, TrainingConfig, require_sources


def raw(**phase: object) -> dict[str, object]:
    return {"phases": [{"name": "p", "steps": 3, "mixture": [{"source": "a"}], **phase}]}


def test_a_config_goes_through_json_unchanged():
    config = TrainingConfig.model_validate(raw())
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config
    assert MiningConfig() == MiningConfig.model_validate(MiningConfig().model_dump(mode="json"))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (raw(objective="tower"), "language part"),
        (raw(text_learning_rate=0, vision_learning_rate=0), "nothing would be trained"),
        (raw(mixture=[{"source": "a"}, {"source": "a"}]), "twice"),
        (raw(stpes=4), "Did you mean 'steps'"),
        (raw(mixture=[{"source": "a", "batchsize": 4}]), "Did you mean 'batch_size'"),
        ({**raw(), "loss": {"temperature": 0}}, r"loss.temperature: .*greater than or equal to 0\.01"),
        ({**raw(), "loss": {"symmetric": True, "negatives": "own"}}, "no other queries"),
        ({**raw(), "temperature": 0.05}, "temperature: unknown field"),
    ],
)
def test_mistakes_are_named(bad, named):
    with pytest.raises(FoundryError, match=named):
        parse_config(bad, TrainingConfig, where="x.yaml")


def test_a_source_without_examples_is_named_with_those_there_are():
    phase = PhaseConfig(name="mix", steps=1, mixture=(SourceShare(source="flags"),))
    with pytest.raises(FoundryError, match="'flags'") as caught:
        require_sources(TrainingConfig(phases=(phase,)), {("flag", "I->I"), ("shape", "I->I")})
    assert "flag (I->I), shape (I->I)" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({**raw(), "cache": {}}, "cache: this field is called gradient_cache now"),
        ({**raw(), "gradient_cache": {"tokens": 4}}, "gradient_cache.tokens: this field is called micro_batch_tokens"),
        ({**raw(), "loss": {"hardness": 1}}, "loss.hardness: this field is called hardness_strength now"),
        ({**raw(), "optimizer": {"clip": 1}}, "optimizer.clip: this field is called max_grad_norm now"),
        (raw(mixture=[{"source": "a", "negatives": 1}]), "negatives: this field is called num_negatives now"),
    ],
)
def test_a_renamed_field_is_named_by_its_new_name(renamed, message):
    with pytest.raises(FoundryError, match=message):
        parse_config(renamed, TrainingConfig, where="x.yaml")


def test_a_renamed_margin_comes_with_its_sign():
    with pytest.raises(FoundryError, match=r"is called absolute_margin \(with the opposite sign\) now"):
        parse_config({"margin": 0.1}, MiningConfig, where="x.yaml")
