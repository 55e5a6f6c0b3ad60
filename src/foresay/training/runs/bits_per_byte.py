"""How well a model says text that it has not learnt: bits per byte, which no tokenizer can flatter."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from foresay.data.example import Example
from foresay.models.base.model import Base
from foresay.training.objectives.losses import chunks, cross_entropy

SEQUENCES = 8
"""Sequences that run together."""


@torch.no_grad()
def bits_per_byte(base: Base, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> dict[str, float]:
    """By domain: the bits that the base needs for every token but the first of each example, over their bytes.

    Special tokens cost bits and are no bytes.
    """
    bits: dict[str, float] = {}
    sizes: dict[str, int] = {}
    ordered = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(ordered), SEQUENCES):
        some = ordered[start : start + SEQUENCES]
        for example, nats in zip(some, _nats(base, [example.ids for example in some])):
            domain = example.domain or "heldout"
            text: str = tokenizer.decode(example.ids[1:], skip_special_tokens=True)
            bits[domain] = bits.get(domain, 0.0) + nats / math.log(2)
            sizes[domain] = sizes.get(domain, 0) + len(text.encode())
    return {domain: bits[domain] / max(sizes[domain], 1) for domain in sorted(bits)}


def _nats(base: Base, sequences: Sequence[Sequence[int]]) -> list[float]:
    """What each sequence costs, its first token free; padding stands after them, where nobody looks."""
    ids = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True).to(base.device)
    states = base.read(ids)[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    costs = [cross_entropy(base.unembed(states[some]), targets[some]) for some in chunks(len(states), base.vocabulary)]
    paid: Tensor = torch.cat(costs).view(len(ids), -1)
    return [row[: len(sequence) - 1].sum().item() for row, sequence in zip(paid, sequences)]
