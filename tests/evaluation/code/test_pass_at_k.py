"""pass@k: the estimator, and plain and accelerated decoding on problems that any text may solve."""

import json
from dataclasses import replace
from itertools import combinations
from math import comb, prod
from pathlib import Path

import pytest

from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_greedy
from foresay.evaluation.code.pass_at_k import CodeQuality, count_passes, pass_at_k, read_sets
from foresay.evaluation.code.problems import Problem, ProblemSet
from foresay.evaluation.config import CodeConfig
from foresay.foundation.errors import ConfigError, PromptError
from foresay.model import MultiTokenModel

CONFIG = CodeConfig(code_layouts=("quadratic", "planned"), code_tokens=12, code_batch_size=3)
SAMPLED = replace(CONFIG, code_answers=4, pass_at=(1, 2, 4), code_temperatures=(1.0,))


def odd(name: str, opening: str) -> Problem:
    """Solved by every text that goes on with `opening` by an odd number of characters."""
    return Problem(
        name, f"x = r'''{opening}", opening, f"'''[:-1]\nassert len(x) % 2 != {len(opening) % 2}", stops=("'",)
    )


ODD = ProblemSet("odd", tuple(odd(f"odd/{n}", text) for n, text in enumerate(("Once upon", "Tom has 4", "The cat"))))


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano", dtype="float32")


@pytest.fixture(scope="module")
def sampled(nano: MultiTokenModel) -> CodeQuality:
    return count_passes(nano, [ODD], SAMPLED)


@pytest.mark.parametrize("answers", range(1, 7))
def test_the_estimator_is_the_share_of_draws_that_hold_a_right_answer(answers: int) -> None:
    for passed in range(answers + 1):
        right = [number < passed for number in range(answers)]
        for k in range(1, answers + 1):
            draws = [any(draw) for draw in combinations(right, k)]
            assert pass_at_k(answers, passed, k) == pytest.approx(sum(draws) / comb(answers, k))


def test_the_estimator_is_the_product_of_the_paper_where_numbers_are_large() -> None:
    for passed in (0, 1, 17, 99, 101, 200):
        product = prod(1 - 100 / i for i in range(200 - passed + 1, 201))
        assert pass_at_k(200, passed, 100) == pytest.approx(1 - product)


def test_accelerated_answers_and_figures_are_plain_decoding_s_greedy_and_sampled(
    nano: MultiTokenModel, sampled: CodeQuality
) -> None:
    for found, answers in ((count_passes(nano, [ODD], CONFIG), 3), (sampled, 12)):
        plain, *others = found.results
        assert [result.layout for result in found.results] == ["plain", "quadratic", "planned"]
        assert [result.identical for result in found.results] == [answers] * 3
        assert all(other.passed == plain.passed and other.pass_at == plain.pass_at for other in others)
        assert (
            found.sentence
            == f"{2 * answers} of {2 * answers} accelerated answers to problems are plain decoding's own texts."
        )
    assert 0 < sum(sampled.results[0].passed.values()) < 12, "some pass, some do not"
    assert plain.tokens_per_step == 1 < others[0].tokens_per_step


def test_the_figures_are_those_of_the_answers_that_passed(sampled: CodeQuality) -> None:
    result = sampled.results[0]
    assert sum(result.verdicts.values()) == 12
    assert result.verdicts["passed"] == sum(result.passed.values())
    assert set(result.verdicts) == {"passed", "failed AssertionError"}
    assert list(result.passed) == ["odd/0", "odd/1", "odd/2"]
    for rate in result.pass_at:
        assert rate.value == sum(pass_at_k(4, passed, rate.k) for passed in result.passed.values()) / 3
        assert rate.low <= rate.value <= rate.high
    assert [rate.k for rate in result.pass_at] == [1, 2, 4]


def test_answers_do_not_depend_on_the_batch_and_do_on_the_seed(nano: MultiTokenModel, sampled: CodeQuality) -> None:
    plain = replace(SAMPLED, code_layouts=())
    [again] = count_passes(nano, [ODD], replace(plain, code_batch_size=12)).results
    assert again.passed == sampled.results[0].passed
    seeds = [count_passes(nano, [ODD], replace(plain, code_seed=seed)).results[0].passed for seed in (100, 200)]
    assert any(passed != again.passed for passed in seeds)


def test_a_broken_decoder_is_seen(nano: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def second_best(logits: object, asked: DraftsToVerify) -> Verification:
        return verify_greedy(logits.scatter(-1, logits.topk(1).indices, -1e9), asked)  # type: ignore[attr-defined]

    told: list[int] = []

    def watch(answers: int) -> None:
        told.append(answers)
        monkeypatch.setattr(choose, "verify_greedy", second_best)  # plain decoding has been right

    found = count_passes(nano, [ODD], replace(CONFIG, code_layouts=("quadratic",)), watch)
    assert told == [3, 3]
    assert [result.identical for result in found.results] == [3, 0]
    assert not found.results[1].agrees


def test_a_text_ends_at_a_stop_string(nano: MultiTokenModel) -> None:
    stopped = ProblemSet("stopped", tuple(replace(one, stops=(" ",)) for one in ODD.problems))
    config = replace(CONFIG, code_layouts=())
    [long], [short] = (count_passes(nano, [some], config).results for some in (ODD, stopped))
    assert short.tokens < long.tokens, "what would be cut off is not generated"


def test_what_cannot_be_asked_is_told(nano: MultiTokenModel, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "word " * 2000, "test_list": ["assert True"]}) + "\n")
    with pytest.raises(PromptError, match="the base's context is"):
        read_sets(nano, replace(CONFIG, code=(str(file),)))
    tokenizer = nano.require_tokenizer()
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ConfigError, match="no chat template; give --code-prompts completion"):
            read_sets(nano, replace(CONFIG, code_prompts="chat"))
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"code_answers": 2, "pass_at": (1,)}, "greedy answers to a problem are all alike"),
        ({"pass_at": (1, 10)}, "pass_at is .* with 1 answers"),
        ({"code_temperatures": ()}, "needs one or more from 0 up"),
        ({"code_memory_mib": 1}, "code_memory_mib is 1; give 64 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CodeConfig(**settings)  # type: ignore[arg-type]
