"""Before training: do the labels stand where the decoder will put its drafts?"""

from collections.abc import Sequence

import torch

from foresay.data.example import Example
from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.sampling.chooser import Greedy
from foresay.foundation.errors import LossMaskError
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.objectives.batches import collate
from foresay.training.objectives.two_pass import mask_rows

PROBED = 3
"""Prompts that are tried."""
SHIFTS = (0, -1, 1)
"""Labels as they are first: where all do equally well, as in a text that repeats one token, they are right."""


def check_labels(model: MaskModel, examples: Sequence[Example]) -> None:
    """Let the decoder verify training's labels as if they were drafts: it must accept them, and not their neighbours.

    The base says a few tokens after the prompts of some examples; of that text the labels are taken as training takes
    them, and drafted. Raises MaskError when labels one token off are accepted more often.
    """
    accepted = dict.fromkeys(SHIFTS, 0)
    for example in examples[:PROBED]:
        room = model.base.limits[0] - model.config.num_masks - 3
        prompt = example.prompt[-room:] if room > 0 else ()
        if prompt:
            for shift in SHIFTS:
                accepted[shift] += _accepted(model, prompt, shift)
    best = max(SHIFTS, key=lambda shift: accepted[shift])
    if best:
        where = f"{examples[0].place}: " if examples[0].place else ""
        raise LossMaskError(
            f"{where}labels stand {-best:+d} token from where the decoder puts its drafts (the base agrees with "
            f"{accepted[0]} of them, and with {accepted[best]} beside them); this is a bug in foresay, please report it"
        )


def labels(model: MaskModel, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
    """What training teaches the block after the last prompt token."""
    text, said = (*prompt, *answer), [False] * len(prompt) + [True] * len(answer)
    example = Example(text, tuple(said))
    batch = collate([example], 0, torch.Generator(), torch.device("cpu"))
    rows = mask_rows(batch, batch.anchors[:, :1], model.config.num_masks, LossConfig())
    return batch.ids[0, rows.places[rows.live] + 1].tolist()  # type: ignore[no-any-return]


def _accepted(model: MaskModel, prompt: Sequence[int], shift: int) -> int:
    """Labels, taken `shift` tokens further on, that the decoder accepts as drafts after the prompt."""
    tokens = model.config.num_masks + 2
    config = DecodeConfig(layout="plain", max_new_tokens=tokens + 1, ignore_stop=True)
    [said] = generate(model, [prompt], config)
    start = len(prompt) + shift
    text = [*prompt, *said.tokens]
    drafts = labels(model, text[:start], text[start:])[: model.config.num_masks]
    taught = GenerationHooks(
        chooser=lambda indices: Greedy(drafter=lambda _, blocks: blocks.newest.new_tensor([drafts]))
    )
    config = DecodeConfig(layout="linear", max_new_tokens=tokens, ignore_stop=True)
    [decoded] = generate(model, [prompt], config, taught)
    return decoded.steps[1].accepted
