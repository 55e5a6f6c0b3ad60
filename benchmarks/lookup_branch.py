"""Whether a looked-up match pays as a second branch beside the model's drafts, in one step: a replay, without seconds.

`planned` verifies in a step either the model's drafts or a match. Both in one tree would say the longer of the two. The
greedy answers fix what any step would accept: at every token of an answer, the model's drafts there (one forward with
masks after every token) and the match there are compared with what follows. Two planners then walk through the same
answers at batch 1, with the costs that `foresay calibrate --json` printed: today's, and one that may take both at once
by the same estimates. A step with both is charged as the layout plus the rows of a match (what `lookup` costs over a
plain step), which is the least that it can cost.

    python benchmarks/lookup_branch.py smollm2 benchmarks/results/seconds/smollm2-costs.json > lookup-branch.json
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from foresay import DecodeConfig, MultiTokenModel
from foresay.data.prompts import Prompt, by_domain, embedded_prompts, file_prompts
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import LOOKUP, PLAIN, Cost, Costs, Entry, Outlook, Planner
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.foundation.provenance import provenance
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.layout.tree import Tree


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer, and how far the model's drafts after each of its tokens agree with it."""

    domain: str
    prompt: int
    """Tokens of the prompt."""
    ids: list[int]
    agreed: dict[int, int]
    """By position of the token that drafts follow: how many of them, from the first, were said."""


@torch.no_grad()
def drafts_everywhere(model: MultiTokenModel, ids: Sequence[int], first: int, masks: int) -> dict[int, int]:
    """How many drafts agree with `ids` after each token from position `first` on, but for the last."""
    core, anchors = model._core, tuple(range(first - 1, len(ids) - 2))
    layout = Layout.training(len(ids) - 1, anchors, masks)
    cache = core.cache(layout.rows, masks)
    with core.decoding():
        seen = core.see(torch.tensor([ids[:-1]]), Call(layout, torch.zeros(1, dtype=torch.int64)), cache, 1)
        rows = layout.draw(seen.states.device).block_rows[list(anchors)]
        # Drafts after row a follow the token that row a said, which stands at a + 1.
        blocks = Blocks(seen.states[0, rows], torch.tensor(ids[first : len(ids) - 1]), Tree.chain(masks))
        drafts = draft_greedy(core, blocks).tolist()
    return {a + 1: common(drafted, ids[a + 2 :]) for a, drafted in zip(anchors, drafts)}


def common(some: Sequence[int], others: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others)))


@dataclass(slots=True)
class Walk:
    """One planner's way through answers."""

    planner: Planner
    branches: bool
    """May verify drafts and a match in one step."""
    seconds: float = 0.0
    steps: int = 0
    both: int = 0

    def through(self, answer: Answer) -> None:
        """From the first token that was said to the end."""
        text = list(answer.ids[: answer.prompt + 1])
        outlook, drafted = self.planner.outlook(text, True), 0
        while len(text) < len(answer.ids):
            outlook.look(drafted, reads_prompt=False)
            entry = self.planner.choose([outlook])
            both = self.branches and self._adds(outlook)
            drafted = self._step(answer, text, outlook, entry, both)

    def _adds(self, outlook: Outlook) -> bool:
        """Whether the best layout's step with both is expected to gain more than every way there is today."""
        planner, known = self.planner, outlook.acceptance.estimate()
        best = planner.best(outlooks=[outlook])
        if outlook.match is None or not outlook.drafted or not best.masks:
            return False
        rate = planner._rate(best, known)
        own = known[: min(outlook.drafted, best.masks)]
        chance = outlook.lookup.chance(outlook.match.length)
        found = [chance**place for place in range(1, len(outlook.match.tokens) + 1)]
        own += [0.0] * (len(found) - len(own))
        expected = 1 + sum(1 - (1 - a) * (1 - b) for a, b in zip(own, found))
        # Where the match went further no block stands after it, and the next step has no drafts.
        owed = found[0] * max(planner.costs[best].undrafted - 1 / rate, 0.0)
        gain = expected / rate - both_cost(best, planner.costs) - owed
        return gain > max(variant.gain for variant in planner._variants(best, known, [outlook]))

    def _step(self, answer: Answer, text: list[int], outlook: Outlook, entry: Entry, both: bool) -> int:
        """Say what the step says; returns how many drafts it leaves for the next."""
        costs, here = self.planner.costs, len(text) - 1
        rest = answer.ids[len(text) :]
        own = min(answer.agreed.get(here, 0), outlook.drafted, entry.drafts)
        found = 0 if outlook.match is None else outlook.match.agreement(rest)
        if both:
            outlook.taken = 0
            entry = self.planner.best(outlooks=[outlook])
            own = min(answer.agreed.get(here, 0), outlook.drafted, entry.drafts)
            accepted, left = max(own, found), entry.masks if own >= found else 0
            self.seconds += both_cost(entry, costs)
            self.both += 1
        elif outlook.taken:
            accepted, left = min(found, outlook.taken), 0 if entry.lookup else entry.masks
            self.seconds += costs[entry].drafted
        else:
            accepted, left = own, entry.masks
            self.seconds += costs[entry].drafted if outlook.drafted else costs[entry].undrafted
        if entry.layout == "linear" and outlook.drafted and accepted < min(outlook.drafted, entry.drafts):
            left = 0
        said = rest[: accepted + 1]
        # As today, drafts teach the planner where they were verified, and matches always.
        self.planner.observe(outlook, outlook.drafted, own, said)
        text += said
        self.steps += 1
        return left


def both_cost(entry: Entry, costs: Costs) -> float:
    """Seconds of a step of `entry` with rows for a match too, at least."""
    return costs[entry].drafted + costs[LOOKUP].drafted - costs[PLAIN].drafted


def answers(model: MultiTokenModel, prompts: Sequence[Prompt], tokens: int, masks: int) -> list[Answer]:
    """What plain decoding says, and what drafts would have been worth there."""
    config = DecodeConfig(layout="plain", max_new_tokens=tokens)
    found = []
    for prompt, said in zip(prompts, model.decode([prompt.ids for prompt in prompts], config)):
        ids = [*prompt.ids, *said.tokens]
        found.append(Answer(prompt.domain, len(prompt.ids), ids, drafts_everywhere(model, ids, len(prompt.ids), masks)))
    return found


def costs_in(path: Path) -> Costs:
    """Of the first batch size and context length in the file."""
    [curve, *_] = json.loads(path.read_text())["curves"]
    return {
        Entry(**one["entry"]): Cost(one["drafted_seconds"], one["undrafted_seconds"], one["rows"])
        for one in curve["entries"]
    }


def replay(costs: Costs, known: Sequence[float], masks: int, some: Sequence[Answer]) -> dict[str, float]:
    """Both planners on the answers of one domain, which each of them meets fresh."""
    walks = [
        Walk(Planner(costs, AcceptanceEstimate.from_training(known, masks)), branches) for branches in (False, True)
    ]
    for answer in some:
        for walk in walks:
            walk.through(answer)
    today, branching = walks
    tokens = sum(len(answer.ids) - answer.prompt - 1 for answer in some)
    return {
        "tokens": tokens,
        "today_tokens_per_step": tokens / today.steps,
        "branch_tokens_per_step": tokens / branching.steps,
        "steps_with_both": branching.both / branching.steps,
        "today_over_branch_seconds": today.seconds / branching.seconds,
        "plain_over_today_seconds": tokens * costs[PLAIN].drafted / today.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("costs", type=Path, help="what `foresay calibrate MODEL --json` printed")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--prompts", type=Path, help="a file of prompts in place of the embedded ones")
    parser.add_argument("--per-domain", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    asked = parser.parse_args()
    model = MultiTokenModel.from_pretrained(asked.model, dtype="float32")
    tokenizer, masks = model.require_tokenizer(), model._core.config.drafts
    embedded = asked.prompts is None
    given = embedded_prompts(tokenizer, asked.split, asked.per_domain, asked.model) if embedded else ()
    prompts = given or file_prompts(asked.prompts, tokenizer)
    costs = costs_in(asked.costs)
    found = {
        domain: replay(costs, model._core.acceptance, masks, answers(model, some, asked.tokens, masks))
        for domain, some in by_domain(prompts).items()
    }
    print(
        json.dumps(
            {"domains": found, "provenance": provenance(**model.described, **vars(asked))}, indent=1, default=str
        )
    )


if __name__ == "__main__":
    main()
