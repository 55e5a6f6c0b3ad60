"""On a GPU too: greedy output is plain decoding's, in half precision but for ties, and sampling has no bias."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig, LayoutName, SampleConfig
from foresay.decoding.generate import generate
from foresay.evaluation.baseline import plain_answer
from foresay.evaluation.config import CheckConfig
from foresay.evaluation.lossless.greedy import Checker, first_difference
from foresay.evaluation.lossless.sampling import check_sampling
from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig, LoadConfig
from foresay.models.drafting import DraftingModel
from foresay.models.heads.model import HeadsModel
from tests.gpu import REHEARSED
from tests.support.toys import GEMMA2, LLAMA, MISTRAL_WINDOW, Toy, random_prompts, with_adapter

LAYOUTS: tuple[LayoutName, ...] = ("linear", "quadratic", "tree", "planned")
TOYS = [LLAMA] if REHEARSED else [LLAMA, MISTRAL_WINDOW, GEMMA2]
BATCHES = (1, 3) if REHEARSED else (1, 3, 8)
NEW, TOY_NEW = (6, 6) if REHEARSED else (32, 16)
LENGTHS = (5, 9, 2) if REHEARSED else (5, 9, 2, 7, 4, 1, 6, 13)


@pytest.fixture(scope="module")
def plain(nano: MultiTokenModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """What transformers' own `generate` says to each prompt alone."""
    return [plain_answer(nano, prompt.ids, NEW) for prompt in prompts]


def margin(model: DraftingModel, prompt: Sequence[int], said: Sequence[int]) -> float:
    """Between the two best logits after `prompt` and `said`: how near to a tie the place was."""
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *said]], device=model.base.device)
        best = model.model(ids, use_cache=False).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def assert_plain(
    model: DraftingModel, prompts: Sequence[Sequence[int]], plain: Sequence[list[int]], config: DecodeConfig, batch: int
) -> int:
    """Every batch says what plain decoding does; how many drafts were accepted."""
    accepted = 0
    for start in range(0, len(prompts), batch):
        group = prompts[start : start + batch]
        for prompt, generation, own in zip(group, generate(model, group, config), plain[start:]):
            at = first_difference(own, generation.tokens)
            assert generation.tokens == own, (
                f"{config.layout}, batch {batch}: token {at} differs, where the two best logits are "
                f"{margin(model, prompt, own[:at]):.1e} apart"
            )
            accepted += sum(step.accepted for step in generation.steps)
    return accepted


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_is_plain(
    nano: MultiTokenModel, prompts: Sequence[Prompt], plain: list[list[int]], layout: LayoutName, batch: int
) -> None:
    config = DecodeConfig(layout=layout, max_new_tokens=NEW)
    accepted = assert_plain(nano.mask_model, [prompt.ids for prompt in prompts], plain, config, batch)
    assert accepted or layout == "planned", "nothing was drafted well, so that nothing was shown"


@pytest.mark.parametrize("layout", LAYOUTS[:3])
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_greedy_is_plain_on_other_architectures(toy: Toy, layout: LayoutName, device: str) -> None:
    model = with_adapter(toy.model().to(device), masks=3)
    prompts = random_prompts(LENGTHS)
    own = [transformers_says(model, prompt, TOY_NEW) for prompt in prompts]
    config = DecodeConfig(layout=layout, max_new_tokens=TOY_NEW, branches=2, nodes=6)
    for batch in BATCHES:
        assert_plain(model, prompts, own, config, batch)


def test_greedy_is_plain_with_heads(device: str) -> None:
    model = HeadsModel.from_base(LLAMA.model(num_hidden_layers=3).to(device), HeadsConfig(heads=3))
    prompts = random_prompts(LENGTHS)
    own = [transformers_says(model, prompt, TOY_NEW) for prompt in prompts]
    assert_plain(model, prompts, own, DecodeConfig(layout="quadratic", max_new_tokens=TOY_NEW), 3)


def transformers_says(model: DraftingModel, prompt: Sequence[int], tokens: int) -> list[int]:
    model.detach_hooks()
    ids = torch.tensor([prompt], device=model.base.device)
    settings = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": None, "pad_token_id": 0}
    said = model.model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return [int(token) for token in said[0, len(prompt) :]]


def test_in_half_precision_all_differences_are_ties(
    half: MultiTokenModel, prompts: Sequence[Prompt], loading: LoadConfig
) -> None:
    config = CheckConfig(max_new_tokens=NEW, batch_sizes=(3,) if REHEARSED else (1, 8), layouts=LAYOUTS)
    checker = Checker(half, config, lambda dtype: MultiTokenModel.from_pretrained("nano", dtype=dtype, loading=loading))
    found = checker.run(prompts)
    bugs = [divergence for divergence in found.divergences if divergence.verdict == "bug"]
    assert not bugs, f"{len(bugs)} of {len(found.divergences)} differences are no ties: {bugs[0]}"


def test_sampling_has_no_bias_and_a_broken_verifier_is_caught(
    nano: MultiTokenModel, prompts: Sequence[Prompt], device: str
) -> None:
    layouts: tuple[LayoutName, ...] = ("linear", "quadratic", "tree")
    config, asked = CheckConfig(layouts=layouts, shift=0.1), prompts
    if REHEARSED:  # on a toy, whose bad drafts show in few samples
        nano = MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")
        config, asked = replace(config, layouts=layouts[1:2], shift=0.2), [Prompt((5, 6, 7), "toy", "")]
    report = check_sampling(nano, asked, SampleConfig(temperature=1.0), config)
    assert report is not None
    assert report.has_power, report.sentence
    assert not report.biased, report.sentence
