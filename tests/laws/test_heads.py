"""The family `heads`: the same text as head 1 alone, and the gradients of the plain sum, for every variant."""

import weakref
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from foresay.data.example import Example
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.decoding.sampling.chooser import Greedy
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.decoding.session import Session
from foresay.foundation.errors import ConfigError, UnsupportedBase
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import PretrainConfig
from foresay.training.loop.distributed import ALONE
from foresay.training.objectives import losses
from foresay.training.objectives.heads import HeadsObjective
from foresay.training.objectives.token_rows import token_rows
from tests.support.checks import (
    NEW,
    assert_close,
    check_drafter_changes_nothing,
    check_greedy_is_plain,
    prompt_batches,
    sometimes_right,
)
from tests.support.layouts import FIXED
from tests.support.toys import (
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    OPT,
    OPT_PROJECTED,
    QWEN3_MOE,
    VOCABULARY,
    Toy,
    random_prompts,
    redraw,
)

LAYERS = 4
VARIANTS = {
    "parallel": HeadsConfig(heads=3),
    "causal": HeadsConfig(heads=3, variant="causal"),
    "anticausal": HeadsConfig(heads=3, variant="anticausal"),
    "linear": HeadsConfig(heads=3, variant="linear"),
    "replicated": HeadsConfig(heads=3, replicated=True),
    "causal replicated": HeadsConfig(heads=3, variant="causal", replicated=True),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


def deeper(toy: Toy) -> Toy:
    """With room for heads among its layers."""
    more = {"num_hidden_layers": LAYERS}
    if "layer_types" in toy.settings:
        more["layer_types"] = toy.settings["layer_types"] * 2  # type: ignore[assignment]
    return Toy(toy.name, toy.kind, toy.settings | more, toy.seed, toy.attention, toy.experts)


DEEP = {toy.name: deeper(toy) for toy in (LLAMA, GPT2, MISTRAL_WINDOW, GEMMA2, GEMMA3, OPT, OPT_PROJECTED, QWEN3_MOE)}


@lru_cache
def with_heads(name: str, config: HeadsConfig) -> HeadsModel:
    """A toy with heads of which every tensor is random; nobody trains it."""
    model = HeadsModel.from_base(DEEP[name].model(), config)
    redraw(model.heads, 1)
    return model


@pytest.mark.parametrize("layout", FIXED)
@every_variant
def test_greedy_is_plain(config: HeadsConfig, layout: LayoutName) -> None:
    model, decode = with_heads("llama", config), DecodeConfig(layout=layout, max_new_tokens=NEW)
    check_greedy_is_plain(model, DEEP["llama"], decode)
    if layout != "plain":
        check_drafter_changes_nothing(model, DEEP["llama"], decode, sometimes_right)


@pytest.mark.parametrize("config", [VARIANTS["parallel"], VARIANTS["anticausal"]], ids=["parallel", "anticausal"])
@pytest.mark.parametrize("name", DEEP)
def test_every_kind_of_layer(name: str, config: HeadsConfig) -> None:
    check_greedy_is_plain(with_heads(name, config), DEEP[name], DecodeConfig(layout="quadratic", max_new_tokens=NEW))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_variant
def test_half_precision_decodes(config: HeadsConfig, dtype: torch.dtype) -> None:
    """Heads are of the base's dtype; the first token comes from a prefill of the same shape as transformers' own."""
    model = HeadsModel.from_base(DEEP["llama"].model().to(dtype), config)
    redraw(model.heads, 1)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    [prompt] = random_prompts((9,))
    first = int(model.model(torch.tensor([prompt])).logits[0, -1].argmax())
    for layout in FIXED:
        [said] = generate(model, [prompt], DecodeConfig(layout=layout, max_new_tokens=NEW))
        assert (said.tokens[0], len(said.tokens)) == (first, NEW)
        assert any(step.drafted for step in said.steps) == (layout != "plain")


def heads_of(model: HeadsModel, ids: Tensor) -> list[Tensor]:
    """States (B, T, D) of heads 1..n after the tail, from a plain forward of whole sequences."""
    points, call = model.points(ids, cut=False)
    states = {point.head: point.made for point in points} | dict(model.branches(points[0].made, call))
    return [model.tail(states[head]) for head in range(1, model.config.heads + 1)]


class Spy:
    """A drafter that compares each block with what the heads say of the whole text up to its anchor."""

    def __init__(self, model: HeadsModel, batch: list[tuple[int, ...]], decode: DecodeConfig) -> None:
        self.compared = 0
        self.session = Session(model, batch, decode, Greedy(drafter=self.draft))
        while self.session.live:
            self.session.step()

    def draft(self, model: HeadsModel, blocks: Blocks) -> Tensor:
        states, tree = blocks.states, blocks.tree
        for live, block in zip(self.session.live, states, strict=True):
            expected = torch.stack(heads_of(model, torch.tensor([live.ids[:-1]]))[1:])[:, 0, -1]
            if self.session.config.layout != "linear":
                assert_close(block, expected[: len(block)], f"after {len(live.ids) - 1} tokens")
                self.compared += 1
        if tree.is_chain:
            best = [model.logits(head, states[:, head - 2]).argmax(-1) for head in range(2, states.shape[1] + 2)]
            assert torch.equal(draft_greedy(model, blocks), torch.stack(best, dim=1))
        # Right often enough that drafts are kept, wrong often enough that slots go stale.
        drafts = draft_greedy(model, blocks)
        right = heads_of(model, torch.tensor([self.session.live[0].ids]))[0][0, -1]
        drafts[0, 0] = model.logits(1, right).argmax() if self.compared % 3 else drafts[0, 0]
        return drafts


@every_variant
@pytest.mark.parametrize("layout", ["quadratic", "tree"])
def test_drafts_are_what_the_heads_say_of_the_whole_text(config: HeadsConfig, layout: LayoutName) -> None:
    model, decode = with_heads("llama", config), DecodeConfig(layout=layout, max_new_tokens=NEW, branches=2, nodes=6)
    for batch in prompt_batches():
        spy = Spy(model, batch, decode)
        assert spy.compared > NEW // 3
        accepted = [step.accepted for said in spy.session.done.values() for step in said.steps]
        assert min(accepted) < max(accepted)


# Training.


def naive_loss(model: HeadsModel, ids: Tensor, carries: Tensor | None = None) -> Tensor:
    """The sum of all heads' mean losses, with all logits at once: Llama's layers called by hand."""
    llama, config, layers = model.model.model, model.config, list(model.model.model.layers)
    states = llama.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    rotary = llama.rotary_emb(states, position_ids=positions)
    inner = {"anticausal": config.heads, "linear": 0}.get(config.variant, 1)

    def run(layer: torch.nn.Module, states: Tensor) -> Tensor:
        if config.variant == "linear" and isinstance(layer, torch.nn.Linear):
            return layer(states)
        return layer(states, attention_mask=None, position_embeddings=rotary, position_ids=positions)

    for layer in layers[: len(layers) - inner]:
        states = run(layer, states)
    match config.variant:
        case "anticausal":
            own = [states := run(layer, states) for layer in layers[len(layers) - inner :]][::-1]
        case "linear":
            own = [states, *(run(layer, states) for layer in model.heads.layers)]
        case "parallel":
            own = [run(layer, states) for layer in (layers[-1], *model.heads.layers)]
        case _:
            own = [states := run(layer, states) for layer in (layers[-1], *model.heads.layers)]
    unembeddings = [model.model.lm_head, *model.heads.unembeddings]
    total = torch.zeros((), dtype=states.dtype)
    for head, states in enumerate(own, 1):
        logits = (unembeddings[head - 1] if config.replicated else unembeddings[0])(llama.norm(states))
        targets = ids[:, head:] if carries is None else ids.masked_fill(~carries, -100)[:, head:]
        total = total + functional.cross_entropy(logits[:, :-head].flatten(0, 1), targets.flatten())
    return total


def gradients(model: HeadsModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("answers_only", [False, True], ids=["all", "answers"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("chunk_rows", [0, 2])
@every_variant
def test_head_by_head_gives_the_gradients_of_the_sum(
    config: HeadsConfig, chunk_rows: int, tied: bool, answers_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 13 * VOCABULARY)
    monkeypatch.setattr("foresay.training.objectives.heads.cross_entropy", exact_cross_entropy)
    model = HeadsModel.from_base(DEEP["llama"].model(tie_word_embeddings=tied).double(), config)
    redraw(model.heads, 1)
    model.requires_grad_(True)
    ids = torch.tensor(random_prompts((12, 12, 12), seed=2))
    # Unequal rows: targets that far heads cannot reach, a long answer, and a chunk in which hardly one carries loss.
    answers = ({1, 2, 9, 10}, set(range(4, 11)), {3})
    examples = [
        Example(tuple(row), tuple(place in own for place in range(12))) for row, own in zip(ids.tolist(), answers)
    ]
    rows = token_rows(examples, ids.shape[1], answers_only)
    naive = naive_loss(model, ids, torch.tensor([example.answer for example in examples]) if answers_only else None)
    naive.backward()
    expected = gradients(model)
    objective = HeadsObjective(model, rows, PretrainConfig(chunk_rows=chunk_rows, answers_only=answers_only))
    paid = objective.step(rows.long(), 1, ALONE)
    assert paid.total == pytest.approx(naive.item(), abs=1e-10)
    assert 0 < paid.base < paid.total
    found = gradients(model)
    assert found.keys() == expected.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6 * gradient.abs().max().item(), rtol=0, msg=name)


def exact_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The trainer's own is float32."""
    return functional.cross_entropy(logits, targets, reduction="none")


@every_variant
def test_head_by_head_in_mixed_precision(config: HeadsConfig) -> None:
    """As near to the plain sum in mixed precision as that is to itself in another order of summing."""
    model = HeadsModel.from_base(DEEP["llama"].model(), config)
    redraw(model.heads, 1)
    model.requires_grad_(True)
    ids = torch.tensor(random_prompts((12, 12, 12), seed=2))
    with torch.autocast("cpu", torch.bfloat16):
        naive = naive_loss(model, ids)
    naive.backward()
    expected = gradients(model)
    HeadsObjective(model, ids.int(), PretrainConfig(dtype="bfloat16")).step(ids, 1, ALONE)
    for name, gradient in gradients(model).items():
        assert (gradient - expected[name]).norm() < 0.05 * expected[name].norm(), name


class Counted:
    """Counts the tensors as wide as the vocabulary that a graph holds at once."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def pack(self, tensor: Tensor) -> "Held":
        held = Held(tensor)
        if tensor.shape[-1:] == (VOCABULARY,) and tensor.requires_grad and not tensor.is_leaf:
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(held, self.drop)
        return held

    def drop(self) -> None:
        self.alive -= 1

    def __enter__(self) -> "Counted":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._hooks.__exit__(*args)  # type: ignore[arg-type]


class Held:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@every_variant
def test_logits_of_one_head_are_held_at_once(config: HeadsConfig) -> None:
    ids = torch.tensor(random_prompts((12, 12), seed=2))
    held = {}
    for heads in (1, 3):
        model = HeadsModel.from_base(DEEP["llama"].model(), replace(config, heads=heads))
        model.requires_grad_(True)
        with Counted() as naive:
            naive_loss(model, ids).backward()
        with Counted() as ours:
            HeadsObjective(model, ids.int(), PretrainConfig()).step(ids, 1, ALONE)
        held[heads] = (naive.most, ours.most)
    assert held[3][0] == 3 * held[1][0] > 0, "the plain sum holds those of all heads"
    assert held[3][1] == held[1][1] > 0


def test_only_matrices_decay() -> None:
    model = HeadsModel.from_base(DEEP["llama"].model(), HeadsConfig(heads=2)).requires_grad_(True)
    [optimizer] = HeadsObjective(model, torch.zeros(1, 8), PretrainConfig(weight_decay=0.3)).optimizers()
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.ndim: decay[id(p)] for p in model.parameters()} == {1: 0.0, 2: 0.3}


# What heads cannot stand on.


class Other(LlamaDecoderLayer):
    """A decoder layer that wants more than its config."""

    def __init__(self, config: LlamaConfig, layer_idx: int, more: int) -> None:
        super().__init__(config, layer_idx)


def test_layers_of_unknown_making_are_refused() -> None:
    model = DEEP["llama"].model()
    model.model.layers[-1] = Other(model.config, LAYERS - 1, 1)
    with pytest.raises(UnsupportedBase, match=r"Other cannot be built from the base's config .*missing 1 required"):
        HeadsModel.from_base(model, HeadsConfig(heads=2))
    HeadsModel.from_base(model, HeadsConfig(heads=2, variant="linear"))


def test_tied_layers_are_refused() -> None:
    model = DEEP["llama"].model()
    model.model.layers[2] = model.model.layers[1]
    with pytest.raises(UnsupportedBase, match="one decoder layer in several places"):
        HeadsModel.from_base(model, HeadsConfig(heads=2))


def test_more_heads_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 anticausal heads were asked for and the base has 4 layers"):
        HeadsModel.from_base(DEEP["llama"].model(), HeadsConfig(heads=4, variant="anticausal"))


def test_compiled_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps with heads cannot be compiled"):
        generate(with_heads("llama", VARIANTS["parallel"]), [(1, 2)], DecodeConfig(compile=True))
