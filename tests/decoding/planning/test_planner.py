"""The planner: its formula against brute force and simulation, what it chooses, and that it leaves `plain` again."""

import itertools
import random
from collections.abc import Sequence

import pytest

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import tally
from foresay.decoding.planning.acceptance import MEMORY, PRIOR_STEPS, AcceptanceEstimate
from foresay.decoding.planning.planner import EXPLORED, MENU, PLAIN, Cost, Costs, Entry, Planner, expected_rate
from tests.support.toys import LLAMA, adapted, own_output, random_prompts

GOOD = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
HOPELESS = (0.02,) + (0.0,) * 7


def costs(row: float) -> Costs:
    """A step costs 1 and `row` for each row more."""
    return {entry: Cost(1 + row * (_rows(entry, True) - 1), 1 + row * (_rows(entry, False) - 1)) for entry in MENU}


def _rows(entry: Entry, drafted: bool) -> int:
    real = 1 + (entry.masks + entry.lookup) * drafted
    return real + {"plain": 0, "linear": entry.masks, "quadratic": real * entry.masks}[entry.layout]


def simulate(entry: Entry, cost: Cost, acceptance: Sequence[float], steps: int) -> float:
    """Tokens a second when drafts fall by chance, step by step."""
    rng = random.Random(0)
    tokens, seconds, drafts = 0, 0.0, entry.masks
    chances = [a / b if b else 0.0 for a, b in zip(acceptance, (1.0, *acceptance))]
    for _ in range(steps):
        kept = 0
        while kept < drafts and rng.random() < chances[kept]:
            kept += 1
        tokens += kept + 1
        seconds += cost.drafted if drafts or entry == PLAIN else cost.undrafted
        # A quadratic step always leaves a block to draft from, a linear one only when every draft was kept.
        drafts = entry.masks if entry.layout == "quadratic" or kept == drafts else 0
    return tokens / seconds


@pytest.mark.parametrize("entry", MENU[:-1], ids=lambda entry: entry.label)
@pytest.mark.parametrize("row", [0.0, 0.02, 0.2])
def test_the_formula_predicts_a_simulation(entry: Entry, row: float) -> None:
    cost = costs(row)[entry]
    assert simulate(entry, cost, GOOD, 20_000) == pytest.approx(expected_rate(entry, cost, GOOD), rel=0.02)


@pytest.mark.parametrize(
    ("row", "shares"), list(itertools.product([0.0, 0.01, 0.05, 0.3], [GOOD, HOPELESS, (0.5, 0.3)]))
)
def test_the_choice_is_the_best_by_brute_force(row: float, shares: tuple[float, ...]) -> None:
    planner = Planner(costs(row), AcceptanceEstimate(shares))
    rates = {
        entry: simulate(entry, cost, (*shares, *[0.0] * (8 - len(shares))), 20_000)
        for entry, cost in planner.costs.items()
        if entry.masks <= len(shares)
    }
    assert rates[planner.best()] >= 0.98 * max(rates.values())


def test_rows_that_cost_too_much_or_drafts_that_never_stay_mean_plain() -> None:
    assert Planner(costs(0.5), AcceptanceEstimate(GOOD)).best() == PLAIN
    assert Planner(costs(0.05), AcceptanceEstimate(HOPELESS)).best() == PLAIN
    assert Planner(costs(0.05), AcceptanceEstimate(GOOD)).best() != PLAIN


@pytest.mark.parametrize("row", [0.02, 0.05, 0.2])
def test_drafts_of_which_training_measured_nothing_and_none_of_which_stays_cost_little(row: float) -> None:
    planner = Planner(costs(row), AcceptanceEstimate.from_training((), 4))
    steps, seconds, texts = 32, 0.0, 2
    for _ in range(texts):
        outlook, drafted = planner.outlook([1], lookup=False), 0
        for _ in range(steps):
            outlook.look(drafted, reads_prompt=False)
            entry = planner.choose([outlook])
            verified = min(drafted, entry.drafts)
            seconds += planner.costs.get(entry, planner.costs[Entry("linear", 4)]).drafted
            planner.observe(outlook, verified, 0, [1])
            drafted = entry.masks if entry.layout == "quadratic" or not verified else 0
    assert texts * steps / seconds >= 0.97


def test_it_probes_from_plain_and_learns_to_leave_it() -> None:
    planner = Planner(costs(0.05), AcceptanceEstimate(HOPELESS))
    entries = [planner.choose() for _ in range(200)]
    assert {entry for entry in entries if entry != PLAIN} == {Entry("linear", 4)}
    assert entries[:20] == [PLAIN] * 20
    for _ in range(40):
        planner.acceptance.observe(drafted=4, accepted=4)
    assert planner.choose() != PLAIN


@pytest.mark.parametrize("row", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("known", [HOPELESS, (0.32, 0.1), (0.5, 0.3), (0.45, 0.3, 0.2, 0.1)])
def test_what_is_tried_costs_at_most_a_hundredth_of_the_time(known: tuple[float, ...], row: float) -> None:
    """In a world where no draft is ever kept, told so: all that is not plain is lost."""
    planner = Planner(costs(row), AcceptanceEstimate(known))
    seconds = drafted = 0.0
    for _ in range(4000):
        entry = planner.choose()
        cost = planner.costs[entry]
        # Drafts of a probe are verified in the step after it.
        seconds += cost.undrafted + row * drafted * (entry == PLAIN)
        drafted = entry.masks
        planner.acceptance.observe(drafted=0, accepted=0)
    assert planner.exploration.lost <= EXPLORED * planner.exploration.spent
    if planner.best() == PLAIN:
        assert planner.exploration.lost > 0
        assert seconds <= (1 + EXPLORED) * 4000 + 1e-6


def test_it_learns_to_give_up() -> None:
    planner = Planner(costs(0.05), AcceptanceEstimate(GOOD))
    for _ in range(200):
        planner.acceptance.observe(drafted=4, accepted=0)
    assert planner.choose() == PLAIN


@pytest.mark.parametrize("row", [0.05, 0.1])
def test_a_text_that_is_never_foretold_goes_plain_within_16_tokens(row: float) -> None:
    """Though texts before it were; and what it shows counts for it most."""
    planner = Planner(costs(row), AcceptanceEstimate(GOOD))
    text = planner.outlook([], lookup=False)
    assert planner.choose([text]).masks > 1
    chosen = []
    for _ in range(16):
        text.look(0, reads_prompt=False)
        chosen.append(planner.choose([text]))
        planner.observe(text, chosen[-1].masks, 0, [1])
    assert chosen[-1] == PLAIN
    assert planner.best() != PLAIN


def test_a_batch_is_planned_for_the_texts_in_it() -> None:
    planner = Planner(costs(0.1), AcceptanceEstimate(GOOD))
    easy, hard = planner.outlook([], lookup=False), planner.outlook([], lookup=False)
    for _ in range(30):
        easy.acceptance.observe(4, 4)
        hard.acceptance.observe(4, 0)
    assert planner.choose([hard]) == planner.choose([hard, hard]) == PLAIN
    assert planner.choose([easy]).masks >= planner.choose([easy, hard]).masks > 0


def test_it_says_why() -> None:
    assert Planner(costs(0.05), AcceptanceEstimate(GOOD)).reason().startswith("linear 4 pays: a step costs 1.40 plain ")
    assert "linear 2 does not pay" in Planner(costs(0.5), AcceptanceEstimate(GOOD)).reason()
    assert Planner({PLAIN: Cost(1, 1)}, AcceptanceEstimate(())).reason() == "there are no masks to choose from"


def test_estimates_start_at_the_prior_and_never_rise_with_the_position() -> None:
    acceptance = AcceptanceEstimate(GOOD)
    assert acceptance.estimate() == pytest.approx(list(GOOD))
    for accepted in (3, 0, 8, 1, 2):
        acceptance.observe(8, accepted)
        estimate = acceptance.estimate()
        assert estimate == sorted(estimate, reverse=True)


@pytest.mark.parametrize("row", [0.0, 0.05, 0.5])
def test_planned_output_is_plain_output(row: float) -> None:
    prompts = random_prompts((5, 9, 2))
    config = DecodeConfig(layout="planned", max_new_tokens=40)
    planner = Planner(costs(row), AcceptanceEstimate(GOOD))
    said = generate(adapted(LLAMA), prompts, config, GenerationHooks(planner=planner))
    assert [g.tokens for g in said] == [own_output(LLAMA, prompt, len(prompt) + 40) for prompt in prompts]
    assert (tally(said).drafted > 0) == (row < 0.5)


def test_hope_is_a_standard_error_that_fades() -> None:
    known = AcceptanceEstimate((0.5, 0.2))
    sure, hoped = known.estimate(), known.estimate(hopeful=True)
    assert sure == pytest.approx([0.5, 0.2])
    error = 0.5 * (PRIOR_STEPS**-0.5 - (1 - MEMORY) ** 0.5)
    assert hoped[0] == pytest.approx(0.5 + error)
    assert hoped[1] == pytest.approx((0.5 + error) * (0.4 + (0.4 * 0.6) ** 0.5 * error / 0.5))
    for step in range(1000):
        known.observe(2, 2 * (step % 2))
    assert known.estimate(hopeful=True) == pytest.approx(known.estimate(), abs=1e-3), "well known: nothing to hope for"


def test_hope_tries_what_the_estimate_alone_would_not() -> None:
    planner = Planner(costs(0.12), AcceptanceEstimate((0.32, 0.1)))
    assert planner.best() == PLAIN
    assert planner.best(hopeful=True) != PLAIN
    chosen = [planner.choose() for _ in range(300)]
    assert set(chosen) == {PLAIN, planner.best(hopeful=True)}
    assert chosen[0] == PLAIN, "nothing may be lost before time was spent"
