"""Packed linears and shared first products of LoRA: the output stays plain's, and the base is left as it was found."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from foresay.data.example import Example
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.decoding.session import Session
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.base.packed_linears import Cover
from foresay.models.base.shared_inputs import noting_inputs
from foresay.models.config import HeadsConfig, LoadConfig, MTPConfig, Pack
from foresay.models.heads.model import HeadsModel
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.masks.lora import LoraGroup
from foresay.models.masks.model import MaskModel
from foresay.training.config import TrainConfig
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives.masks import MaskObjective
from tests.support.checks import NEW, assert_close, check_greedy_is_plain
from tests.support.toys import FALCON, GPT2, LLAMA, OPT, TOYS, Toy, random_prompts, redraw, with_adapter

TIED = Toy("llama-tied", "Llama", {"tie_word_embeddings": True})
IDS = torch.arange(12)[None]


def packed(toy: Toy, seed: int = 1) -> MaskModel:
    """The toy, decoding on packed linears."""
    mtp = with_adapter(toy.model(), seed=seed)
    mtp.packing.want("on")
    return mtp


def covered(model: PreTrainedModel) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(vars(part).get("forward"), Cover)]


def decode(mtp: MaskModel, layout: LayoutName = "quadratic") -> list[list[int]]:
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    return [generation.tokens for generation in generate(mtp, random_prompts((9, 2)), config)]


@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
@pytest.mark.parametrize("toy", [*TOYS, TIED], ids=lambda toy: toy.name)
def test_every_architecture_says_what_transformers_says(toy: Toy, layout: LayoutName) -> None:
    mtp = packed(toy)
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    check_greedy_is_plain(mtp, toy, config)
    # Falcon's linears multiply in their own way and stay: its unembedding is packed.
    assert len(covered(mtp.model)) == (1 if toy is FALCON else 1 + len(mtp.base.linears().adapted))


@torch.no_grad()
@pytest.mark.parametrize("toy", [toy for toy in TOYS if not toy.experts], ids=lambda toy: toy.name)
def test_a_closed_gate_is_the_packed_base_to_the_bit(toy: Toy) -> None:
    """Without an adapter's hooks, with them, and beside masks of one adapter and another."""
    mtp, other = packed(toy), with_adapter(toy.model(), seed=2)

    def logits(layout: Layout, attached: bool) -> Tensor:
        call, cache = Call(layout, torch.zeros(1, dtype=torch.int64)), mtp.cache(60, layout.masks)
        with mtp.decoding():
            if not layout.masks:
                (mtp.attach_hooks if attached else mtp.detach_hooks)()
                embeds = mtp.base.embedding(IDS)
                cache.place(call.slots(), call.used)
                masks = mtp.base.attention_masks(lambda window: call.visible(call.used, window))
                return mtp.base.run(embeds, call.positions(), masks, cache, torch.arange(IDS.shape[1])).logits
            return mtp.see(IDS, call, cache, IDS.shape[1]).logits

    plain, beside = Layout.plain(IDS.shape[1]), Layout.linear(IDS.shape[1], 3)
    assert torch.equal(logits(plain, False), logits(plain, True))
    mine = logits(beside, True)
    mtp.adapter.load_state_dict(other.adapter.state_dict())
    assert torch.equal(mine, logits(beside, True))


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("targets", [("all",), ("attention",), ("q_proj", "gate_proj")], ids="-".join)
def test_lora_adds_the_same_to_one_product_and_to_each_linear(targets: tuple[str, ...], batch: int) -> None:
    """Packed and not, in turns: what is attached to one is not lost on the other, nor added twice."""
    mtp = MaskModel.from_base(LLAMA.model(), MTPConfig(num_masks=3, rank=4, lora_targets=targets))
    redraw(mtp.adapter, 1)
    mtp.packing.want("on")
    ids, call = IDS[:, :6].repeat(batch, 1), Call(Layout.quadratic(6, 3), torch.zeros(batch, dtype=torch.int64))

    def masks(within: AbstractContextManager[None]) -> Tensor:
        with within:
            return mtp.see(ids, call, mtp.cache(60, 3), 6).states[:, 6:]

    weaker = masks(nullcontext())
    for pair in mtp.adapter.pairs:
        pair.up.mul_(4)
    plain = masks(nullcontext())
    assert (plain - weaker).abs().max() > 0.1, "LoRA counts"
    for within in (mtp.decoding, nullcontext, mtp.decoding, mtp.decoding):
        assert_close(masks(within()), plain, within.__name__)
    hooked = [linear for linear in mtp.base.linears().adapted.values() if linear._forward_hooks]
    assert not hooked, "what runs packed needs no hooks"


@pytest.mark.parametrize("toy", [LLAMA, GPT2, OPT, TIED], ids=lambda toy: toy.name)
def test_a_packed_weight_is_held_once(toy: Toy) -> None:
    """But for what is looked up: the unembedding, and an embedding tied to it."""
    mtp = packed(toy)
    whole = {name: p.untyped_storage().nbytes() for name, p in mtp.model.named_parameters()}
    decode(mtp)
    for name, linear in mtp.base.linears().adapted.items():
        weight = linear.weight
        assert isinstance(weight, Tensor)
        assert weight.isnan().all(), f"{name} is held twice"
        assert weight.untyped_storage().nbytes() == weight.element_size() < whole[f"{name}.weight"]
    for kept in (mtp.base.head, mtp.base.embedding):
        assert kept.weight.isfinite().all()


def outside_call(mtp: MaskModel) -> None:
    with torch.no_grad():
        mtp.model(IDS)


def read_state(mtp: MaskModel) -> None:
    mtp.model.state_dict()


def close(mtp: MaskModel) -> None:
    MultiTokenModel(mtp, None, "toy").close()


def train(mtp: MaskModel) -> None:
    examples = [Example(text, (False, False, *[True] * (len(text) - 2))) for text in random_prompts((12, 9))]
    config = TrainConfig(steps=1, sequences=2, anchors=4, learning_rate=1e-2, warmup_steps=1)
    Trainer(MaskObjective(mtp, examples, config), config).run()


def wish(mtp: MaskModel) -> None:
    mtp.packing.want("off")


@pytest.mark.parametrize("look", [outside_call, read_state, close, train, wish], ids=lambda look: look.__name__)
@pytest.mark.parametrize("toy", [LLAMA, GPT2, TIED], ids=lambda toy: toy.name)
def test_the_base_is_left_as_found(toy: Toy, look: Callable[[MaskModel], None]) -> None:
    """To the bit, in the same parameters, each with memory of its own; and then decoding goes on as before."""
    mtp = packed(toy)
    before = {name: (parameter, parameter.clone()) for name, parameter in mtp.model.named_parameters()}
    with torch.no_grad():
        logits = mtp.model(IDS).logits
    said = decode(mtp)
    assert covered(mtp.model)
    look(mtp)
    assert not covered(mtp.model)
    after = dict(mtp.model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, value) in before.items():
        assert after[name] is parameter
        assert torch.equal(parameter, value), name
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.nbytes, f"{name} shares its memory"
    with torch.no_grad():
        assert torch.equal(mtp.model(IDS).logits, logits)
    if look is not train:
        assert decode(mtp) == said


def test_closing_leaves_no_hook() -> None:
    mtp = packed(LLAMA)
    close(mtp)
    before = hooks(mtp.model)
    decode(mtp)
    assert hooks(mtp.model) > before
    close(mtp)
    assert hooks(mtp.model) == before


def hooks(model: PreTrainedModel) -> int:
    return sum(len(vars(part)[kind]) for part in model.modules() for kind in vars(part) if kind.endswith("_hooks"))


def test_what_changes_is_packed_anew() -> None:
    """The unembedding is kept beside its packed copy, and so is the sampler; a change of either shows."""
    mtp = packed(LLAMA)
    decode(mtp)
    redraw(mtp.base.head, 5)
    mtp.adapter.sampler.reset(torch.Generator().manual_seed(3))
    changed = LLAMA.model()
    redraw(changed.lm_head, 5)
    fresh = with_adapter(changed)
    fresh.adapter.sampler.reset(torch.Generator().manual_seed(3))
    assert decode(mtp) == decode(fresh)
    config, counts = DecodeConfig(layout="linear"), []
    for model in (mtp, fresh):
        [said] = generate(model, random_prompts((9,)), config)
        counts.append([len(step.tokens) for step in said.steps])
    assert counts[0] == counts[1]


def test_two_models_on_one_base_take_turns() -> None:
    base = LLAMA.model()
    one, other = with_adapter(base), with_adapter(base, seed=2)
    for mtp in (one, other):
        mtp.packing.want("on")
    said = decode(one)
    assert decode(other) == said == decode(one) == decode(with_adapter(LLAMA.model()))


def test_a_step_that_breaks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = packed(LLAMA)
    said = decode(mtp)
    session = Session(mtp, random_prompts((9,)), DecodeConfig(layout="linear", max_new_tokens=NEW))
    with monkeypatch.context() as patch:
        patch.setattr(mtp.base.linears().adapted["model.layers.1.self_attn.k_proj"], "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.step()
    assert not mtp.packing._linears.running
    assert all(group.inputs is None for group in mtp.packing._linears._groups)
    assert decode(mtp) == said


def interrupt(states: Tensor) -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize("variant", ["parallel", "causal", "anticausal", "linear"])
def test_heads_run_packed_too(variant: str) -> None:
    mtp = HeadsModel.from_base(LLAMA.model(num_hidden_layers=4), HeadsConfig(heads=3, variant=variant))  # type: ignore[arg-type]
    redraw(mtp.heads, 1)
    config = DecodeConfig(layout="linear", max_new_tokens=NEW)
    plain = [generate(mtp, random_prompts((9, 2)), config) for wanted in ("off", "on") if not mtp.packing.want(wanted)]  # type: ignore[arg-type, func-returns-value]
    assert mtp.packing._linears.packed
    assert [one.tokens for one in plain[0]] == [one.tokens for one in plain[1]]


# What shares an input.


def names(mtp: MaskModel) -> list[str]:
    known = {linear: name.rsplit(".", 1)[-1] for name, linear in mtp.base.linears().adapted.items()}
    return [" ".join(known[linear] for linear in group) for group in mtp.groups]


@pytest.mark.parametrize(
    ("toy", "expected"),
    [
        (LLAMA, ["q_proj k_proj v_proj", "o_proj", "gate_proj up_proj", "down_proj"]),
        (OPT, ["q_proj k_proj v_proj", "out_proj", "fc1", "fc2"]),
        (GPT2, ["c_attn", "c_proj", "c_fc", "c_proj"]),
        (next(toy for toy in TOYS if toy.name == "phi"), ["q_proj k_proj v_proj fc1", "dense", "fc2"]),
    ],
    ids=lambda value: value.name if isinstance(value, Toy) else "",
)
def test_linears_with_the_same_input_are_found(toy: Toy, expected: list[str]) -> None:
    assert names(with_adapter(toy.model())) == expected * 2


def test_an_input_that_was_changed_between_two_calls_is_not_shared() -> None:
    one, other, third = (nn.Linear(4, 4) for _ in range(3))
    with torch.no_grad(), noting_inputs([other, one, third]) as groups:
        states = torch.ones(1, 4)
        one(states), third(states)
        states.add_(1)
        other(states)
    assert groups == [(one, third), (other,)]


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_shared_first_products_are_each_pairs_own(toy: Toy) -> None:
    """Without autograd, where they are shared, states are those with autograd, where every pair computes its own."""
    mtp = with_adapter(toy.model())
    ids = torch.arange(6)[None]
    call = Call(Layout.quadratic(6, 3), torch.zeros(1, dtype=torch.int64))
    seen = []
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            seen.append(mtp.see(ids, call, mtp.cache(60, 3), 6).states.detach())
    assert (seen[0] - seen[1]).abs().max() <= 2e-5 * seen[1].abs().max()
    shared = [group for group in mtp._loras if len(group.pairs) > 1]
    assert bool(shared) == any(len(group) > 1 for group in mtp.groups)


class ProductsWith(TorchDispatchMode):
    """Counts the products with some tensors, by the columns that they give."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.places, self.columns = {tensor.data_ptr() for tensor in tensors}, list[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if str(func).startswith(("aten.mm", "aten.bmm")) and args[1].data_ptr() in self.places:
            self.columns.append(made.shape[-1])
        return made


@pytest.mark.parametrize("batch", [1, 2])
def test_first_products_are_as_few_as_inputs(batch: int) -> None:
    mtp = with_adapter(LLAMA.model())
    prompts = random_prompts(batch * (9,))
    session = Session(mtp, prompts, DecodeConfig(layout="linear", masks=3, max_new_tokens=NEW))
    session.step()
    with ProductsWith(pair.down for pair in mtp.adapter.pairs) as products:
        session.step()
    assert products.columns == 2 * [3 * 4, 4, 2 * 4, 4]  # rank 4: q with k and v, o, gate with up, down


@pytest.mark.parametrize("pack", ["on", "off"])
def test_turning_from_masks_to_plain_steps_and_back_makes_no_group_anew(pack: Pack) -> None:
    mtp = with_adapter(LLAMA.model())
    mtp.packing.want(pack)
    groups = []
    for layout in ("linear", "plain", "quadratic"):
        session = Session(mtp, random_prompts((9,)), DecodeConfig(layout=layout, max_new_tokens=NEW))
        session.step()
        session.step()
        groups.append(mtp._loras)
    assert groups[0] is groups[1] is groups[2]
    assert len(groups[0]) == len({id(group) for group in mtp._loras}) > 0


@pytest.mark.parametrize("change", [lambda m: m.adapter.double().float(), lambda m: redraw(m.adapter, 7)])
def test_pairs_that_were_moved_or_trained_are_not_out_of_date(change: Callable[[MaskModel], None]) -> None:
    mtp, fresh = with_adapter(LLAMA.model()), with_adapter(LLAMA.model())
    decode(mtp)
    assert any(isinstance(group, LoraGroup) and group.fits for group in mtp._loras)
    for one in (mtp, fresh):
        change(one)
    with torch.no_grad():
        for pair in (*mtp.adapter.pairs, *fresh.adapter.pairs):
            pair.down.mul_(2)
    call = Call(Layout.linear(4, 3), torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        states = [one.see(IDS[:, :4], call, one.cache(60, 3), 4).states for one in (mtp, fresh)]
    assert torch.equal(*states)


def test_what_cannot_be_packed_is_refused_or_left() -> None:
    mtp = with_adapter(LLAMA.model().double())
    with pytest.raises(ConfigError, match="packed linears were asked for"):
        mtp.packing.want("on")
    mtp.packing.want("auto")
    assert not mtp.packing.packs


def test_the_front_door_packs_as_it_is_told() -> None:
    for wanted in ("on", "off"):
        model = MultiTokenModel.from_base(LLAMA.model(), loading=LoadConfig(pack_linears=wanted))  # type: ignore[arg-type]
        assert model._core.packing.packs == (wanted == "on")
