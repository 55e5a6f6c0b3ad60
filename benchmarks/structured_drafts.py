"""Why drafts are lost under a schema inside vLLM, and what brings them back: drafts at every place of known answers.

    python benchmarks/structured_drafts.py smollm2 --out smollm2-structured-drafts.json
    python benchmarks/structured_drafts.py --show smollm2-structured-drafts.json

The answers are plain decoding's under the schemas of `structured.py`. After every token of them the drafts are made
that the draft model makes inside vLLM: the base's own next token, then one for each mask. Then it is counted how many
passes the answers take with these, with tokens that must come in place of what the grammar cuts off (as the plugin
does), and with drafts that are guessed under the grammar (as our own engine does). Counts alone, without vLLM.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foresay import DecodeConfig, MultiTokenModel
from foresay.decoding.generate import prepare
from foresay.decoding.sampling.draft import Blocks, draft_allowed, draft_greedy
from foresay.decoding.sampling.grammar import Constraint
from foresay.evaluation.statistics import ratio_interval
from foresay.foundation.provenance import provenance
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.layout.tree import Tree
from foresay.serving.vllm.plugin.forced_drafts import with_forced
from structured import ASKED, asked_for, held_to, ids_of, options

WAYS = ("as drafted", "and what must come", "guessed under the grammar")


@dataclass
class Held:
    """Our grammar of one answer, as vLLM's `StructuredOutputGrammar`."""

    constraint: Constraint
    said: list[int] = field(default_factory=list)

    def is_terminated(self) -> bool:
        return bool(self.said) and self.said[-1] in self.constraint.grammar.stops

    def accept_tokens(self, _: str, tokens: Sequence[int]) -> bool:
        for token in tokens:
            if self.is_terminated() or not self.constraint.allowed(self.said)[token]:
                return False
            self.said.append(token)
        return True

    def fill_bitmask(self, bits: Tensor, index: int) -> None:
        allowed = np.packbits(self.constraint.allowed(self.said).numpy(), bitorder="little")
        bits[index].view(torch.uint8)[: len(allowed)] = torch.from_numpy(allowed)

    def rollback(self, tokens: int) -> None:
        del self.said[len(self.said) - tokens :]


class Answer:
    """One answer, and the model's states at every token of it."""

    def __init__(self, model: MultiTokenModel, prompt: Sequence[int], text: Sequence[int], constraint: Constraint):
        self.core, self.text, self.constraint = model._core, list(text), constraint
        self.masks = model.drafts
        self.spelled = model.require_tokenizer().convert_ids_to_tokens
        self.constraint.prompt = 0
        self._read(prompt)

    @torch.no_grad()
    def _read(self, prompt: Sequence[int]) -> None:
        first, rows = len(prompt), len(prompt) + len(self.text)
        layout = Layout.training(rows, tuple(range(first, rows)), self.masks)
        ids, cache = torch.tensor([[*prompt, *self.text]]), self.core.cache(layout.rows + 1, self.masks)
        with self.core.decoding():
            seen = self.core.see(ids, Call(layout, torch.zeros(1, dtype=torch.int64)), cache, len(self.text) + 1)
        self.logits = seen.logits[0]
        self.states = seen.states[0][layout.draw(ids.device).block_rows[first:]]

    def block(self, place: int, next_token: Tensor) -> Blocks:
        """The masks after token `place`, of which the first draft is `next_token` (1,)."""
        texts = [[*self.text[: place + 1], int(next_token)]]
        return Blocks(self.states[place, None], next_token, Tree.chain(self.masks), texts=texts)

    @torch.no_grad()
    def drafted(self, place: int) -> list[int]:
        """Drafts after token `place`, without the grammar."""
        own = self.logits[place + 1].argmax()[None]
        return [int(own), *draft_greedy(self.core, self.block(place, own))[0].tolist()]

    @torch.no_grad()
    def guessed(self, place: int) -> list[int]:
        """The same under the grammar."""
        forbidden = ~self.constraint.allowed(self.text[: place + 1])
        own = self.logits[place + 1].masked_fill(forbidden, -torch.inf).argmax()[None]
        return [int(own), *draft_allowed(self.core, self.block(place, own), self.constraint).tolist()]

    def allowed(self, place: int, drafts: Sequence[int]) -> list[int]:
        """Those that the grammar lets stand after token `place`."""
        grammar = Held(self.constraint, self.text[: place + 1])
        return list(takewhile(lambda token: grammar.accept_tokens("", [token]), drafts))

    def and_forced(self, place: int, drafts: Sequence[int]) -> list[int]:
        """These, and the tokens that must come after them."""
        bits = torch.zeros(1, -(-self.constraint.grammar.vocabulary // 32), dtype=torch.int32)
        grammar = Held(self.constraint, self.text[: place + 1])
        return with_forced(grammar, "", drafts, self.masks + 1, bits, self.spelled)

    def passes(self, drafts: Sequence[Sequence[int]]) -> int:
        """Passes that verify, where `drafts` are made after each token; the prompt's is the first."""
        place, count = 0, 1
        while place < len(self.text) - 1:
            pairs = zip(drafts[place], self.text[place + 1 :])
            place += 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            count += 1
        return count

    def counts(self) -> dict[str, int]:
        """What is shown of it."""
        places = range(len(self.text) - 1)
        drafted, guessed = [self.drafted(place) for place in places], [self.guessed(place) for place in places]
        allowed = [self.allowed(place, drafts) for place, drafts in zip(places, drafted)]
        forced = [self.and_forced(place, drafts) for place, drafts in zip(places, allowed)]
        steered = [int(logits.argmax()) != token for logits, token in zip(self.logits, self.text)]
        must = [bool(self.and_forced(place, ())) for place in places]
        return {
            "tokens": len(self.text),
            "steered": sum(steered),
            "must_come": sum(must),
            "steered_where_it_must": sum(one and other for one, other in zip(steered[1:], must)),
            "drafts": sum(map(len, drafted)),
            "forbidden": sum(map(len, drafted)) - sum(map(len, allowed)),
            **dict(zip(WAYS, (self.passes(some) for some in (allowed, forced, guessed)))),
        }


def measure(model: MultiTokenModel, most: int) -> Iterator[dict[str, Any]]:
    """Counts of every answer."""
    decode = DecodeConfig(layout="plain", max_new_tokens=most)
    prepare(model._core, decode)
    for schema in ASKED:
        prompts, grammar = ids_of(model, asked_for(schema)), model.grammar(held_to(schema))
        assert grammar is not None
        for prompt, said in zip(prompts, model.answer(prompts, decode, structured=grammar)):
            yield {"prompts": schema, **Answer(model, prompt, said.tokens, grammar.constraint(0)).counts()}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A markdown table."""
    print(f"| prompts | steered | must come | both | forbidden | {' | '.join(WAYS)} |\n|{'---|' * (5 + len(WAYS))}")
    for name in (*dict.fromkeys(one["prompts"] for one in rows), "all"):
        some = [one for one in rows if name in ("all", one["prompts"])]
        total = {key: sum(one[key] for one in some) for key in some[0] if key != "prompts"}
        shares = [total[key] / total["tokens"] for key in ("steered", "must_come", "steered_where_it_must")]
        cells = [f"{share:.0%}" for share in (*shares, total["forbidden"] / total["drafts"])]
        for way in WAYS:
            low, high = ratio_interval([one["tokens"] for one in some], [one[way] for one in some]) or (0.0, 0.0)
            cells.append(f"{total['tokens'] / total[way]:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    given = options(__doc__).parse_args()
    if given.show:
        show(json.loads(given.show.read_text())["rows"])
        return
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    rows = list(measure(model, given.tokens))
    if given.out:
        said = provenance(**model.described, tokens=given.tokens, masks=model.drafts)
        given.out.write_text(json.dumps({"rows": rows, "provenance": said}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
