"""Which linears get LoRA: by kind and by name, saved with the model, and in PEFT's words."""

import json
from pathlib import Path

import pytest
import torch

from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.models.masks.targets import targeted
from tests.support.checks import NEW, check_greedy_is_plain
from tests.support.toys import FALCON, GPT2, LLAMA, MIXTRAL, OPT, Toy, redraw

PHI3 = Toy("phi3", "Phi3")


def adapter(toy: Toy, *targets: str) -> MaskModel:
    mtp = MaskModel.from_base(toy.model(), MTPConfig(num_masks=3, rank=4, lora_targets=targets))
    redraw(mtp.adapter, 1)
    return mtp


def ends(mtp: MaskModel) -> set[str]:
    return {pair.name.rsplit(".", 1)[-1] for pair in mtp.adapter.pairs}


@pytest.mark.parametrize(
    ("toy", "target", "expected"),
    [
        (LLAMA, "auto", {"gate_proj", "up_proj", "down_proj"}),
        (MIXTRAL, "auto", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        (GPT2, "auto", {"c_fc", "c_proj"}),
        (LLAMA, "all", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (LLAMA, "attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        (LLAMA, "mlp", {"gate_proj", "up_proj", "down_proj"}),
        (LLAMA, "output", {"o_proj", "down_proj"}),
        (OPT, "attention", {"q_proj", "k_proj", "v_proj", "out_proj"}),
        (OPT, "mlp", {"fc1", "fc2"}),
        (OPT, "output", {"out_proj", "fc2"}),
        (GPT2, "attention", {"c_attn", "c_proj"}),
        (GPT2, "output", {"c_proj"}),
        (FALCON, "attention", {"query_key_value", "dense"}),
        (FALCON, "output", {"dense", "dense_4h_to_h"}),
        (PHI3, "output", {"o_proj", "down_proj"}),
        (LLAMA, "self_attn.o_proj", {"o_proj"}),
    ],
)
def test_kinds_and_names(toy: Toy, target: str, expected: set[str]) -> None:
    assert ends(adapter(toy, target)) == expected


def test_several_targets_add_up_and_a_whole_name_is_one_linear() -> None:
    assert ends(adapter(LLAMA, "attention", "down_proj")) == {"q_proj", "k_proj", "v_proj", "o_proj", "down_proj"}
    [pair] = adapter(LLAMA, "model.layers.1.mlp.up_proj").adapter.pairs
    assert pair.name == "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize("toy", [LLAMA, OPT, GPT2, FALCON], ids=lambda toy: toy.name)
@pytest.mark.parametrize("target", ["attention", "mlp", "output"])
def test_greedy_output_is_plains(toy: Toy, target: str) -> None:
    check_greedy_is_plain(adapter(toy, target), toy, DecodeConfig(layout="quadratic", masks=3, max_new_tokens=NEW))


def test_a_layer_whose_experts_are_no_linears_has_lora_on_all_of_its_own() -> None:
    """Other layers of the same base have it on their MLP."""
    dense = [f"model.layers.0.{name}" for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")]
    experts = [f"model.layers.1.self_attn.{name}" for name in ("q_proj", "o_proj")]
    assert targeted([*dense, *experts], ("auto",)) == [*dense[1:], *experts]


def test_a_target_that_the_base_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'c_attn'.*give auto, all, attention.*down_proj"):
        adapter(LLAMA, "attention", "c_attn")
    with pytest.raises(ConfigError, match="empty"):
        MTPConfig(lora_targets=())


@pytest.mark.parametrize(("toy", "whole"), [(LLAMA, False), (GPT2, True)], ids=lambda value: getattr(value, "name", ""))
def test_targets_are_saved_and_peft_is_told(toy: Toy, whole: bool, tmp_path: Path) -> None:
    """By last parts, or by whole names where another linear is called the same."""
    mtp, place = adapter(toy, "mlp"), tmp_path / "saved"
    MultiTokenModel(mtp, None, "toy").save_pretrained(place)
    assert json.loads((place / "foresay.json").read_text())["mtp"]["lora_targets"] == ["mlp"]
    told = json.loads((place / "lora" / "adapter_config.json").read_text())["target_modules"]
    assert set(told) == ({pair.name for pair in mtp.adapter.pairs} if whole else ends(mtp))
    again = MultiTokenModel.from_pretrained(place, base=toy.model())
    assert again.config == mtp.config
    for one, other in zip(again.mask_model.adapter.pairs, mtp.adapter.pairs, strict=True):
        assert one.name == other.name
        assert torch.equal(one.down, other.down)


def test_a_folder_from_before_there_were_targets_has_all(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    MultiTokenModel(adapter(LLAMA, "all"), None, "toy").save_pretrained(place)
    said = json.loads((place / "foresay.json").read_text())
    del said["mtp"]["lora_targets"]
    (place / "foresay.json").write_text(json.dumps(said))
    assert len(MultiTokenModel.from_pretrained(place, base=LLAMA.model()).mask_model.adapter.pairs) == 14


def test_targets_that_are_no_names_are_damage(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    MultiTokenModel(adapter(LLAMA, "all"), None, "toy").save_pretrained(place)
    said = json.loads((place / "foresay.json").read_text())
    said["mtp"]["lora_targets"] = []
    (place / "foresay.json").write_text(json.dumps(said))
    with pytest.raises(ArtefactError, match="damaged"):
        MultiTokenModel.from_pretrained(place, base=LLAMA.model())


def test_a_single_name_may_come_as_itself() -> None:
    assert MTPConfig(lora_targets="mlp") == MTPConfig(lora_targets=("mlp",))  # type: ignore[arg-type]
