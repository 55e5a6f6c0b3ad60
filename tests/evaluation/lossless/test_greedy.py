"""The verb `check`: a sound decoder passes, a broken one cannot, and only rounding is excused."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_greedy
from foresay.decoding.steps import Generation
from foresay.evaluation.baseline import plain_answer
from foresay.evaluation.config import CheckConfig
from foresay.evaluation.lossless.certificate import Certificate
from foresay.evaluation.lossless.greedy import ROUNDING, Checker, first_difference, noise_floor
from foresay.model import MultiTokenModel
from foresay.models.config import DType
from tests.support.toys import LLAMA, random_prompts, with_adapter

CONFIG = CheckConfig(max_new_tokens=24, batch_sizes=(4,), layouts=("linear", "quadratic"))
KEYS = {"prompts", "tokens", "dtype", "identical", "ties", "bugs", "tokens_per_step", "divergences"}


@pytest.fixture(scope="module")
def exact() -> MultiTokenModel:
    """A toy in float32; nobody changes it."""
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")


@pytest.fixture(scope="module")
def rounded() -> MultiTokenModel:
    """The same in bfloat16."""
    return MultiTokenModel(with_adapter(LLAMA.model().to(torch.bfloat16), masks=3), None, "toy")


def prompts(count: int = 6) -> list[Prompt]:
    return [Prompt(ids, "random", "") for ids in random_prompts([3 + place for place in range(count)])]


def check(model: MultiTokenModel, exact: MultiTokenModel, config: CheckConfig = CONFIG) -> Certificate:
    """A run whose float32 model is `exact`."""

    def reopen(dtype: DType) -> MultiTokenModel:
        assert dtype == "float32"
        return exact

    return Checker(model, config, reopen).run(prompts())


def test_what_is_decoded_with_by_default_is_checked_by_default() -> None:
    assert DecodeConfig().layout in CheckConfig().layouts


# Broken and half-broken verifiers.


def accept_everything(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
    """Keep every draft, right or wrong."""
    own = verify_greedy(logits, asked)
    path = (asked.roots[:, None] + torch.arange(asked.tokens.shape[1])).clamp(max=asked.tokens.shape[1] - 1)
    tokens = torch.cat((asked.tokens[:, 1:], logits[:, -1:].argmax(dim=-1)), dim=1)
    return replace(own, accepted=torch.tensor(asked.counts), path=path, tokens=tokens.gather(1, path))


def second_everywhere(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
    """Take the base's second choice, however far after it is."""
    return verify_greedy(logits.scatter(-1, logits.topk(1).indices, torch.finfo(logits.dtype).min), asked)


def third_where_close(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
    """Take the base's third choice where bfloat16 can confuse its first two, and not the third with them."""
    best = logits.float().topk(3)
    rounding = ROUNDING * torch.finfo(torch.bfloat16).eps * logits.float().abs().amax(-1)
    first, second, third = best.values.unbind(-1)
    close = (first - second < rounding / 2) & (first - third > 2 * rounding)
    lowered = logits.scatter(-1, best.indices[..., :2], torch.finfo(logits.dtype).min)
    return verify_greedy(torch.where(close[..., None], lowered, logits), asked)


def second_where_close(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
    """Take the base's second choice where bfloat16 could confuse it with the first, and with no other."""
    best = logits.float().topk(3)
    rounding = ROUNDING * torch.finfo(torch.bfloat16).eps * logits.float().abs().amax(-1)
    first, second, third = best.values.unbind(-1)
    close = (first - second < rounding / 2) & (second - third > rounding)
    lowered = logits.scatter(-1, best.indices[..., :1], torch.finfo(logits.dtype).min)
    return verify_greedy(torch.where(close[..., None], lowered, logits), asked)


Verify = Callable[[torch.Tensor, DraftsToVerify], Verification]


def only_in_bfloat16(verify: Verify) -> Verify:
    """Sound in float32: logits that bfloat16 holds exactly come from a model in bfloat16."""

    def verdict(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
        rounded = torch.equal(logits.to(torch.bfloat16).to(logits.dtype), logits)
        return (verify if rounded else verify_greedy)(logits, asked)

    return verdict


# Verdicts.


def test_a_sound_decoder_is_lossless(exact: MultiTokenModel) -> None:
    def never(dtype: DType) -> MultiTokenModel:
        raise AssertionError("nothing diverged, so there is nothing to repeat")

    watched = []
    found = Checker(exact, CONFIG, never, watched.append).run(prompts())
    assert (found.prompts, found.answers, found.identical) == (6, 12, 12)
    assert (found.ties, found.bugs, found.divergences, found.noise) == (0, 0, (), None)
    assert found.tokens == 12 * 24
    assert found.sentence == "Lossless: 12 of 12 answers are identical to plain decoding."
    assert found.dtype == "float32"
    assert set(found.tokens_per_step) == {"linear", "quadratic"}
    assert all(value >= 1 for value in found.tokens_per_step.values())
    assert sorted(watched) == ["linear"] * 6 + ["plain"] * 6 + ["quadratic"] * 6


def test_a_certificate_says_how_it_was_made(exact: MultiTokenModel) -> None:
    found = asdict(check(exact, exact, replace(CONFIG, layouts=("linear",))))
    assert found.keys() >= KEYS
    said = {"base": "toy", "adapter": {}, "rounding": ROUNDING}
    loaded = {"device": "cpu", "dtype": "float32"}
    assert found["provenance"]["settings"] == said | loaded | asdict(replace(CONFIG, layouts=("linear",)))
    assert found["fingerprints"] == asdict(exact.fingerprints())
    assert found["domains"] == {"random": 6}
    assert found["answers"] == 6
    assert found["tokens_per_step"].keys() == {"linear"}


def test_a_verifier_that_accepts_everything_is_a_bug(exact: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "verify_greedy", accept_everything)
    found = check(exact, exact)
    assert found.bugs == len(found.divergences) == 12
    assert (found.identical, found.ties) == (0, 0)
    assert found.sentence.startswith("NOT lossless: 12 of 12 answers differ")
    for divergence in found.divergences:
        assert divergence.verdict == "bug"
        assert divergence.diverges_in_float32
        assert divergence.plain_token != divergence.accelerated_token


def test_every_layout_is_checked_at_every_batch_size(exact: MultiTokenModel) -> None:
    found = check(exact, exact, replace(CONFIG, batch_sizes=(1, 4)))
    assert [(count.layout, count.batch_size, count.identical) for count in found.counts] == [
        (layout, size, 6) for size in (1, 4) for layout in ("linear", "quadratic")
    ]
    assert (found.answers, found.identical, found.tokens) == (24, 24, 24 * 24)
    assert found.bugs_at_most == found.divergences_at_most == pytest.approx(1 - 0.05 ** (1 / 6))
    assert found.surety == (
        "Of 6 prompts 0 have a bug and 0 differ at all: with 95 % confidence at most 39.30% and 39.30% of such "
        "prompts do"
    )


def test_a_fault_of_batches_alone_is_a_bug(exact: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_together(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
        return (accept_everything if len(asked.counts) > 1 else verify_greedy)(logits, asked)

    monkeypatch.setattr(choose, "verify_greedy", only_together)
    found = check(exact, exact, replace(CONFIG, batch_sizes=(1, 3)))
    assert [(count.batch_size, count.bugs) for count in found.counts] == [(1, 0), (1, 0), (3, 6), (3, 6)]
    assert all(divergence.diverges_in_float32 for divergence in found.divergences)
    assert found.bugs_at_most == 1


def test_a_fault_of_one_prompt_of_a_batch_is_its_own(exact: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = prompts()[2].ids

    def of_one(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
        sound, broken = verify_greedy(logits, asked), accept_everything(logits, asked)
        mine = torch.tensor([text[: len(faulty)] == list(faulty) for text in asked.texts])
        names = ("accepted", "tokens", "path")
        pairs = {name: (getattr(broken, name), getattr(sound, name)) for name in names}
        return replace(
            sound, **{name: torch.where(mine.view(-1, *[1] * (a.ndim - 1)), a, b) for name, (a, b) in pairs.items()}
        )

    monkeypatch.setattr(choose, "verify_greedy", of_one)
    found = check(exact, exact, replace(CONFIG, batch_sizes=(3,), layouts=("linear",)))
    assert [(one.prompt, one.diverges_in_float32, one.verdict) for one in found.divergences] == [(2, True, "bug")]
    assert (found.identical, found.bugs) == (5, 1)


def quadratic(model: MultiTokenModel) -> list[Generation]:
    """What `check` decodes, in its batches."""
    ids, [size] = [prompt.ids for prompt in prompts()], CONFIG.batch_sizes
    decode = DecodeConfig(layout="quadratic", max_new_tokens=CONFIG.max_new_tokens)
    return [said for start in range(0, 6, size) for said in model.decode(ids[start : start + size], decode)]


def test_the_first_unequal_token_is_named(exact: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, layouts=("quadratic",))
    sound = [said.tokens for said in quadratic(exact)]
    monkeypatch.setattr(choose, "verify_greedy", accept_everything)
    broken = [said.tokens for said in quadratic(exact)]
    for index, divergence in enumerate(check(exact, exact, config).divergences):
        place = first_difference(sound[index], broken[index])
        assert (divergence.prompt, divergence.domain, divergence.layout) == (index, "random", "quadratic")
        assert divergence.position == place
        assert divergence.plain_token == sound[index][place]
        assert divergence.accelerated_token == broken[index][place]


def test_a_tie_in_bfloat16_is_excused(
    exact: MultiTokenModel, rounded: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "verify_greedy", only_in_bfloat16(second_where_close))
    found = check(rounded, exact)
    assert found.dtype == "bfloat16"
    assert found.ties == len(found.divergences) > 0
    assert found.bugs == 0
    assert f"{found.ties} differ by a tie that bfloat16 rounding explains" in found.sentence
    assert found.sentence.startswith(f"Lossless: {12 - found.ties} of 12")
    assert found.noise is not None
    assert f"Noise floor: of transformers' own answers, {found.noise.differing} of 6" in found.surety
    for divergence in found.divergences:
        assert divergence.verdict == "tie"
        assert not divergence.diverges_in_float32
        assert 0 <= divergence.margin <= divergence.bound


def test_a_small_margin_excuses_nothing_that_float32_repeats(
    exact: MultiTokenModel, rounded: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "verify_greedy", second_where_close)
    found = check(rounded, exact)
    repeated = [divergence for divergence in found.divergences if divergence.diverges_in_float32]
    assert repeated
    assert all(divergence.margin <= divergence.bound for divergence in repeated)
    assert all(divergence.verdict == "bug" for divergence in repeated)
    assert found.bugs == len(repeated)


def test_agreement_in_float32_excuses_no_large_margin(
    exact: MultiTokenModel, rounded: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "verify_greedy", only_in_bfloat16(second_everywhere))
    found = check(rounded, exact)
    assert len(found.divergences) == 12
    wide = [divergence for divergence in found.divergences if divergence.margin > divergence.bound]
    assert wide
    assert all(divergence.verdict == "bug" and not divergence.diverges_in_float32 for divergence in wide)


def test_a_close_margin_excuses_no_third_token(
    exact: MultiTokenModel, rounded: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "verify_greedy", only_in_bfloat16(third_where_close))
    found = check(rounded, exact)
    assert found.bugs == len(found.divergences) > 0
    for divergence in found.divergences:
        assert divergence.margin > divergence.bound
        assert not divergence.diverges_in_float32


def third_of_three(logits: torch.Tensor, asked: DraftsToVerify) -> Verification:
    """Take the base's third choice where bfloat16 confuses all of its first three."""
    best = logits.float().topk(3)
    rounding = ROUNDING * torch.finfo(torch.bfloat16).eps * logits.float().abs().amax(-1)
    close = best.values[..., 0] - best.values[..., 2] < rounding / 2
    lowered = logits.scatter(-1, best.indices[..., :2], torch.finfo(logits.dtype).min)
    return verify_greedy(torch.where(close[..., None], lowered, logits), asked)


def test_any_number_of_tokens_may_tie(
    exact: MultiTokenModel, rounded: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "verify_greedy", only_in_bfloat16(third_of_three))
    found = Checker(rounded, replace(CONFIG, max_new_tokens=64), lambda dtype: exact).run(prompts(24))
    assert found.ties == len(found.divergences) > 0
    assert found.bugs == 0


def test_noise_floor_stands_beside_what_differs(exact: MultiTokenModel, rounded: MultiTokenModel) -> None:
    plain = [plain_answer(rounded, prompt.ids, 24) for prompt in prompts()]
    watched: list[str] = []
    noise = noise_floor(rounded, prompts(), plain, 24, watched.append)
    assert (noise.batch_size, noise.prompts, len(watched)) == (4, 6, 6)
    wrong = [[*answer[:3], (answer[3] + 1) % 96, *answer[4:]] for answer in plain]
    assert noise_floor(rounded, prompts(), wrong, 24).differing == 6
    own = [plain_answer(exact, prompt.ids, 24) for prompt in prompts()]
    assert noise_floor(exact, prompts(), own, 24).differing == 0, "float32 does not depend on the batch here"


def test_an_answer_that_ends_too_soon_is_a_bug(exact: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(*args: Any) -> list[Generation]:
        return [replace(said, steps=said.steps[:-1]) for said in generate(*args)]

    monkeypatch.setattr("foresay.model.generate", shorter)
    found = check(exact, exact)
    assert found.bugs == len(found.divergences) == 12
    for divergence in found.divergences:
        assert divergence.accelerated_token is None
        assert divergence.plain_token is not None


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [([1, 2, 3], [1, 9, 3], 1), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([], [1], 0), ([4], [5], 0)],
)
def test_first_difference(left: list[int], right: list[int], place: int) -> None:
    assert first_difference(left, right) == place
