"""Drafts that a grammar leaves no choice about: names of fields, brackets, the end.

vLLM cuts the drafts that a grammar forbids. Where the grammar leaves one text to go on with, its tokens take their
place, and the base verifies them under the grammar as it does any draft.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

MOST_PREFIXES = 32
"""Tokens that may be allowed where one text must come: that text's beginnings. More are a choice."""
Spelled = Callable[[list[int]], list[str]]
"""Token ids -> their text, as a tokenizer's `convert_ids_to_tokens`."""


def with_forced(grammar: Any, name: str, drafts: Sequence[int], most: int, bits: Tensor, spelled: Spelled) -> list[int]:
    """`drafts` of the request `name` as far as its grammar allows them, then tokens that must follow: `most` in all.

    `grammar` is vLLM's `StructuredOutputGrammar`, and is left where it was. `bits` (1, ceil(V / 32)) int32 is written.
    A draft that would spell what must come in other tokens than the grammar allows is forbidden too: it cannot stay.
    """
    said, left = list[int](), list(drafts)
    while len(said) < most and not grammar.is_terminated():
        grammar.fill_bitmask(bits, 0)
        allowed = np.unpackbits(bits[0].numpy().view(np.uint8), bitorder="little")
        token: int | None
        if left and allowed[left[0]]:
            token = left.pop(0)
        else:
            token, left = forced(np.flatnonzero(allowed)[: MOST_PREFIXES + 1].tolist(), spelled), []
        if token is None or not grammar.accept_tokens(name, [token]):
            break
        said.append(token)
    grammar.rollback(len(said))
    return said


def forced(allowed: list[int], spelled: Spelled) -> int | None:
    """The token that comes next where the `allowed` ones begin one text; None: there is a choice.

    llguidance then allows one token. xgrammar allows every token that the text begins with; the longest is likeliest.
    """
    if not 0 < len(allowed) <= MOST_PREFIXES:
        return None
    texts = dict(zip(allowed, spelled(allowed)))
    longest = max(texts, key=lambda token: len(texts[token]))
    return longest if all(texts[longest].startswith(text) for text in texts.values()) else None
