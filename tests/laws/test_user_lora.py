"""A base that carries its user's own PEFT LoRA: base and LoRA together are what stays as it is."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

import foresay.training.train
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.foundation.errors import ArtefactError, BaseNotFound, ConfigError, MissingPackage, UnsupportedBase
from foresay.model import MultiTokenModel
from foresay.models.artefact.fingerprint import fingerprint
from foresay.models.artefact.tensors import LORA, PEFT_WEIGHTS
from foresay.models.base import load as guest
from foresay.models.base.load import BaseName, load_tokenizer
from foresay.models.base.model import Base
from foresay.models.base.user_lora import attach
from foresay.models.config import LoadConfig, MTPConfig
from foresay.models.masks.targets import targeted
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.train import train
from tests.models.artefact.test_folder import contents
from tests.support.checks import BATCHES, NEW, prompt_batches, require_distinct
from tests.support.layouts import FIXED
from tests.support.toys import GPT2, LLAMA, MISTRAL_WINDOW, QWEN3_MOE, Toy, redraw, with_adapter

TOYS = [LLAMA, GPT2, MISTRAL_WINDOW, QWEN3_MOE]
PARTLY = {"gpt2": ["c_attn", "c_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "some linears": {},
    "dora": {"use_dora": True},
    "head and embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "a whole linear": {"modules_to_save": ["o_proj"]},
}


def with_lora(model: PreTrainedModel, seed: int = 5, **more: Any) -> peft.PeftModel:
    """`model` with a LoRA that changes what it says."""
    targets = PARTLY.get(model.config.model_type, ["q_proj", "v_proj", "down_proj"])
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 4, "target_modules": targets, "task_type": "CAUSAL_LM"} | more)
    attached = peft.get_peft_model(model, config)
    redraw(torch.nn.ParameterList(p for p in attached.parameters() if p.requires_grad), seed)
    return attached.eval()


def own_words(model: peft.PeftModel, prompt: tuple[int, ...]) -> list[int]:
    """What PEFT and transformers answer."""
    ids = torch.tensor([prompt])
    text = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
    return list(text[0, len(prompt) :].tolist())


def check_says_what_peft_says(model: PreTrainedModel, theirs: peft.PeftModel, layout: LayoutName) -> None:
    """Greedy output of `model`, which carries the LoRA, is that of the untouched PeftModel to the token."""
    mtp, done = with_adapter(model, masks=3), []
    for batch in prompt_batches(BATCHES):
        said = generate(mtp, batch, DecodeConfig(layout=layout, max_new_tokens=NEW))
        assert [one.tokens for one in said] == [own_words(theirs, prompt) for prompt in batch]
        done += said
    require_distinct(done, layout)


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_output_is_that_of_the_peft_model(toy: Toy, layout: LayoutName) -> None:
    check_says_what_peft_says(with_lora(toy.model()).get_base_model(), with_lora(toy.model()), layout)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_lora(kind: dict[str, Any]) -> None:
    check_says_what_peft_says(
        with_lora(LLAMA.model(), **kind).get_base_model(), with_lora(LLAMA.model(), **kind), "quadratic"
    )


def test_the_lora_changes_what_is_said() -> None:
    """Else nothing above was shown."""
    prompt = prompt_batches(BATCHES)[1][0]
    with_it = with_lora(LLAMA.model())
    spoken = own_words(with_it, prompt)
    with with_it.disable_adapter():
        assert own_words(with_it, prompt) != spoken


def test_ours_hangs_on_the_same_linears() -> None:
    bare, carrying = Base(LLAMA.model()).linears(), Base(with_lora(LLAMA.model()).get_base_model()).linears()
    assert carrying.adapted.keys() == bare.adapted.keys()
    bare, carrying = (
        Base(model).linears() for model in (QWEN3_MOE.model(), with_lora(QWEN3_MOE.model()).get_base_model())
    )
    assert (carrying.adapted.keys(), carrying.left_alone) == (bare.adapted.keys(), bare.left_alone)


# Training and the artefact.


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a LoRA of its user's, another one, and data."""
    folder = tmp_path_factory.mktemp("home")
    model = LLAMA.model(vocab_size=512)
    model.save_pretrained(folder / "base")
    load_tokenizer("nano").save_pretrained(folder / "base")
    for name, seed in (("mine", 5), ("other", 6)):
        carrying = with_lora(LLAMA.model(vocab_size=512), seed)
        carrying.peft_config["default"].base_model_name_or_path = str(folder / "base")
        carrying.save_pretrained(folder / name)
    rows = [{"prompt": f"{n} and {n}?", "response": f"that is {n + n}"} for n in range(6)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def trained_on(home: Path, out: Path, base: str, adapter: str = "", **more: Any) -> MultiTokenModel:
    recipe = Recipe(
        str(home / base),
        (home / "data.jsonl",),
        out,
        MTPConfig(num_masks=2, rank=2),
        LossConfig(),
        TrainConfig(steps=2, sequences=2, warmup_steps=0, heldout=1, learning_rate=0.05, **more),
        loading=LoadConfig(base_adapter=str(home / adapter) if adapter else ""),
    )
    return train(recipe, lambda news: None).model


@pytest.fixture(scope="module")
def saved(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact trained on base and LoRA."""
    out = tmp_path_factory.mktemp("saved") / "out"
    trained_on(home, out, "base", "mine")
    return out


def test_training_leaves_the_lora_as_it_was(home: Path, saved: Path) -> None:
    before = contents(home / "mine")
    model = MultiTokenModel.from_pretrained(saved)
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(home / "mine")
    ours, own = model.base.model.state_dict(), theirs.get_base_model().state_dict()
    assert ours.keys() == own.keys()
    assert all(torch.equal(ours[name], own[name]) for name in own)
    assert contents(home / "mine") == before
    names = {name.removeprefix("base_model.model.") for name in load_file(saved / LORA / PEFT_WEIGHTS)}
    own_lora = targeted(Base(LLAMA.model()).linears().adapted, MTPConfig().lora_targets)
    assert names == {f"{name}.lora_{half}.weight" for name in own_lora for half in "AB"}
    assert all(
        tensor.shape[0] == 2 or tensor.shape[1] == 2 for tensor in load_file(saved / LORA / PEFT_WEIGHTS).values()
    )


def test_a_lora_as_base_names_its_base(home: Path, saved: Path, tmp_path: Path) -> None:
    model = trained_on(home, tmp_path / "out", "mine")
    assert (model.base_name, model.base_adapter) == (str(home / "base"), str(home / "mine"))
    assert contents(tmp_path / "out")[f"{LORA}/{PEFT_WEIGHTS}"] == contents(saved)[f"{LORA}/{PEFT_WEIGHTS}"]


def test_the_artefact_finds_its_lora_again(home: Path, saved: Path) -> None:
    said = json.loads((saved / "foresay.json").read_text())
    assert said["base_adapter"] == str(home / "mine")
    model = MultiTokenModel.from_pretrained(saved)
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(home / "mine").eval()
    prompt = (5, 7, 9, 11)
    expected = own_words(theirs, prompt)
    ids = torch.tensor([prompt])
    assert model.generate(ids, max_new_tokens=NEW, layout="quadratic")[0, 4:].tolist() == expected
    given = MultiTokenModel.from_pretrained(saved, theirs, load_tokenizer("nano"))
    assert given.generate(ids, max_new_tokens=NEW, layout="quadratic")[0, 4:].tolist() == expected


def test_shards_of_two_dtypes_train_alike(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP takes a base in bfloat16 and a LoRA that PEFT keeps in float32."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    for parallel in ("none", "fsdp"):
        trained_on(home, tmp_path / parallel, "mine", parallel=parallel, dtype="bfloat16")
    weights = [load_file(tmp_path / parallel / LORA / PEFT_WEIGHTS) for parallel in ("none", "fsdp")]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    monkeypatch.setattr(foresay.training.train, "quantization_of", lambda config: "int8")
    with pytest.raises(ConfigError, match="parallel is fsdp, which shards no quantised weights; give --parallel ddp"):
        trained_on(home, tmp_path / "never", "mine", parallel="fsdp")


def test_another_lora_or_none_is_refused(home: Path, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ArtefactError, match=r"with the LoRA .*mine \(\w{16}\), and .*base carries \w{16}; give the one"
    ):
        MultiTokenModel.from_pretrained(saved, loading=LoadConfig(base_adapter=str(home / "other")))
    with pytest.raises(ArtefactError, match=r"carries none; give the one it was trained on"):
        MultiTokenModel.from_pretrained(saved, LLAMA.model(vocab_size=512))
    trained_on(home, tmp_path / "bare", "base")
    with pytest.raises(ArtefactError, match=r"with no LoRA of a user's own, and .*base carries \w{16}; give the bare"):
        MultiTokenModel.from_pretrained(tmp_path / "bare", loading=LoadConfig(base_adapter=str(home / "mine")))


def test_fingerprints_tell_base_and_lora_apart() -> None:
    bare, mine = fingerprint(LLAMA.model(), None), fingerprint(with_lora(LLAMA.model()).get_base_model(), None)
    assert (mine.base, mine.embeddings) == (bare.base, bare.embeddings)
    assert bare.base_adapter is None
    louder = with_lora(LLAMA.model(), lora_alpha=5).get_base_model()
    assert len({mine.base_adapter, fingerprint(louder, None).base_adapter, None}) == 3
    named = peft.get_peft_model(LLAMA.model(), with_lora(LLAMA.model()).peft_config["default"], adapter_name="mine")
    redraw(torch.nn.ParameterList(p for p in named.parameters() if p.requires_grad), 5)
    assert fingerprint(named.get_base_model(), None) == mine, "whatever it was called"


# What cannot be.


def test_what_is_no_lora_is_refused(home: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(home / "base")
    with pytest.raises(BaseNotFound, match=r"has no adapter_config\.json, so it is no PEFT adapter"):
        MultiTokenModel.from_base(base, loading=LoadConfig(base_adapter=base))
    with pytest.raises(BaseNotFound, match="is a foresay model, which acts on mask rows alone"):
        MultiTokenModel.from_base(base, loading=LoadConfig(base_adapter=str(saved)))
    with pytest.raises(BaseNotFound, match="is a foresay model and no base"):
        MultiTokenModel.from_base(str(saved))
    with pytest.raises(ConfigError, match="is a PEFT adapter and so is"):
        BaseName.find(str(home / "mine"), str(home / "other"))
    deeper = LLAMA.model(vocab_size=512, num_hidden_layers=3)
    for wrong in (deeper, LLAMA.model(vocab_size=512, num_hidden_layers=1), GPT2.model()):
        wrong.save_pretrained(tmp_path / "wrong")
        with pytest.raises(BaseNotFound, match=r"disagree on|is no LoRA that peft can attach to"):
            MultiTokenModel.from_base(
                str(tmp_path / "wrong"),
                tokenizer=load_tokenizer("nano"),
                loading=LoadConfig(base_adapter=str(home / "mine")),
            )
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        MissingPackage, match=r"is read by peft, which is not installed here; run pip install 'foresay\[peft\]'"
    ):
        MultiTokenModel.from_base(str(home / "mine"))


def test_other_kinds_of_adapters_are_refused() -> None:
    prompted = peft.get_peft_model(LLAMA.model(), peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(UnsupportedBase, match="carries a PROMPT_TUNING adapter"):
        MultiTokenModel.from_base(prompted)
    woken = with_lora(LLAMA.model(), alora_invocation_tokens=[3])
    with pytest.raises(UnsupportedBase, match="carries a aLoRA adapter"):
        MultiTokenModel.from_base(woken)


def test_the_embedded_base_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network that would be half a minute of retries."""
    asked: list[str] = []
    monkeypatch.setattr(guest, "find_adapter_config_file", asked.append)
    assert BaseName.find("nano") == BaseName("nano")
    assert asked
    assert all(Path(place).is_dir() for place in asked)


@pytest.mark.parametrize(
    "more",
    [{"modules_to_save": ["embed_tokens", "lm_head"]}, {"trainable_token_indices": [96, 97]}],
    ids=lambda more: next(iter(more)),
)
def test_lora_with_tokens_of_its_own_says_how_the_base_is_resized(tmp_path: Path, more: dict[str, Any]) -> None:
    resized = LLAMA.model()
    resized.resize_token_embeddings(98)
    with_lora(resized, **more).save_pretrained(tmp_path / "lora")
    base = LLAMA.model()
    with pytest.raises(
        BaseNotFound, match=r"with 98 or more token embeddings, and .* has 96; .*resize_token_embeddings\(98\)"
    ):
        attach(base, str(tmp_path / "lora"))
    grown = LLAMA.model()
    grown.resize_token_embeddings(98)
    assert len(attach(grown, str(tmp_path / "lora")).get_input_embeddings().weight) == 98
