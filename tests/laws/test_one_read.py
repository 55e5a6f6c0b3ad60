"""A step looks at the device once: whatever is verified, drafted and drawn stays there until then."""

from collections.abc import Callable

import pytest

from foresay.decoding.config import DecodeConfig, LayoutName, QueueConfig, SampleConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.requests import Request
from foresay.decoding.sampling.chooser import Chooser, Greedy, Sampled
from foresay.decoding.sampling.logits_processors import Processing, warpers
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.session import Session
from tests.support.device_reads import check_one_read, counted_reads
from tests.support.toys import GEMMA3, LLAMA, Toy, adapted, random_prompts

SAMPLE = SampleConfig(temperature=0.9, top_k=40, top_p=0.95)
CHOOSERS: dict[str, Callable[[int], Chooser]] = {
    "greedy": lambda sequences: Greedy(),
    "sampled": lambda sequences: Sampled(SeededNumbers(0, range(sequences)), Processing(warpers(SAMPLE))),
    "sampled, best drafts": lambda sequences: Sampled(
        SeededNumbers(0, range(sequences)), Processing(warpers(SAMPLE)), greedy_drafts=True
    ),
}


@pytest.mark.parametrize("chooser", CHOOSERS.values(), ids=CHOOSERS.keys())
@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
@pytest.mark.parametrize(("toy", "lengths"), [(LLAMA, (5,)), (LLAMA, (9, 2, 4)), (GEMMA3, (9, 2, 4))], ids=str)
def test_a_step_reads_once(
    toy: Toy, lengths: tuple[int, ...], layout: LayoutName, chooser: Callable[[int], Chooser]
) -> None:
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=40)
    # Layouts are drawn, and sent to the device, when they are first met.
    generate(adapted(toy), random_prompts(lengths), config, GenerationHooks(lambda indices: chooser(len(indices))))
    session = Session(adapted(toy), random_prompts(lengths), config, chooser(len(lengths)))
    check_one_read(session, uploads=1)  # where the rows go, and random numbers


@pytest.mark.parametrize("samples", [(SampleConfig(),) * 3, (SampleConfig(), SAMPLE, SampleConfig(temperature=2.0))])
def test_a_step_of_the_server_reads_once(samples: tuple[SampleConfig, ...]) -> None:
    config, queue = DecodeConfig(layout="quadratic", masks=3), QueueConfig(sequences=4, max_length=128)
    engine = Engine(adapted(LLAMA), config, queue)
    prompts = random_prompts((5, 9, 3))
    engine.submit([Request(prompt, 30 + 9 * place, samples[place]) for place, prompt in enumerate(prompts)])
    steps = 0
    while engine.busy:
        with counted_reads() as counted:
            engine.step()
        assert counted.reads == ["tolist"], counted.reads
        steps += 1
    assert steps > 10
