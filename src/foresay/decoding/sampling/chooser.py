"""How tokens are chosen from the base's logits: greedy, or sampled exactly from the base's distribution.

Both judge the same drafts through the same verdict; the decode loop does not know which one it runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from foresay.decoding.config import SampleConfig
from foresay.decoding.sampling.draft import draft_greedy
from foresay.decoding.sampling.logits_processors import Processing, warpers
from foresay.decoding.sampling.randomness import Dice, SeededDice
from foresay.decoding.sampling.verify import Asked, Verdict, verify_drawn, verify_greedy, verify_sampled
from foresay.foundation.errors import PromptError
from foresay.models.drafting import DraftingModel
from foresay.models.layout.tree import Tree

Drafter = Callable[[DraftingModel, Tensor, Tensor, Tree], Tensor]
"""(model, mask states (B, K, D), newest tokens (B,), tree) -> drafts (B, N) of the tree within depth K."""
NO_PROCESSING = Processing()


@dataclass(frozen=True, slots=True)
class Drafts:
    """Guesses for the next step."""

    tokens: Tensor
    """(B, N) int64."""
    q: Tensor | None = None
    """(B, N, V): the distributions they were drawn from; None: they were not drawn by chance."""

    def select(self, sequences: Sequence[int]) -> "Drafts":
        """Of these sequences, in this order."""
        chosen = torch.tensor(sequences, dtype=torch.int64, device=self.tokens.device)
        return Drafts(self.tokens[chosen], None if self.q is None else self.q[chosen])

    def behind(self, others: "Drafts") -> "Drafts":
        """These, and those of other sequences behind them; neither were drawn by chance. What is missing is 0."""
        assert self.q is others.q is None, "drafts that were drawn by chance stay in their batch"
        wide = max(self.tokens.shape[1], others.tokens.shape[1])
        padded = [functional.pad(some.tokens, (0, wide - some.tokens.shape[1])) for some in (self, others)]
        return Drafts(torch.cat(padded))


@dataclass(frozen=True, slots=True)
class Blocks:
    """The block behind each sequence's last accepted row."""

    states: Tensor
    """(B, K, D) of its masks."""
    newest: Tensor
    """(B,) int64: the token that the guesses go behind."""
    sizes: Sequence[int]
    """Masks in each sequence's block; 0 where it has none."""
    texts: Sequence[list[int]]
    """Ids of each sequence, its newest token included."""
    tree: Tree
    """How the drafts are to hang together."""


class Chooser(ABC):
    """Judges drafts and makes new ones."""

    def verify(self, logits: Tensor, asked: Asked) -> Verdict:
        """Which drafts stay: `logits` (B, N + 1, V) at the newest token and at every draft."""
        return self.judge(self.scores(logits, asked), asked)

    @abstractmethod
    def scores(self, logits: Tensor, asked: Asked) -> Tensor:
        """(B, N + 1, V): the logits after the processors, at every row that `judge` may come to."""

    @abstractmethod
    def judge(self, scores: Tensor, asked: Asked) -> Verdict:
        """Which drafts stay, by these scores."""

    @abstractmethod
    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """Guess the tokens behind the newest ones."""

    @abstractmethod
    def select(self, sequences: Sequence[int]) -> None:
        """Keep these sequences of the batch, in this order."""

    def join(self, other: "Chooser") -> None:
        """Take the sequences of `other`, of the same kind, behind one's own; only where sequences come and go."""
        raise NotImplementedError(f"the sequences of a {type(self).__name__} chooser are there from the start")


@dataclass(slots=True)
class Greedy(Chooser):
    """The base's best token, always. `drafter` may be replaced: the output does not depend on it."""

    processing: Processing = NO_PROCESSING
    drafter: Drafter = draft_greedy

    def scores(self, logits: Tensor, asked: Asked) -> Tensor:
        """See `Chooser.scores`; a processor is shown no text behind a draft that fails."""
        texts = [] if self.processing.blind else asked.prefixes()
        return self.processing.rows(texts, logits, greedy=True)

    def judge(self, scores: Tensor, asked: Asked) -> Verdict:
        """See `Chooser.judge`."""
        return verify_greedy(scores, asked)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`."""
        return Drafts(self.drafter(model, blocks.states, blocks.newest, blocks.tree))

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.processing = self.processing.select(sequences)


@dataclass(slots=True)
class Sampled(Chooser):
    """Exactly the base's distribution, whatever the drafts: chain rejection sampling where they are drawn.

    `greedy_drafts` takes the sampler head's best token instead of drawing one: cheaper, and exact too. Drafts that
    branch are always the best ones.
    """

    dice: Dice
    processing: Processing = NO_PROCESSING
    greedy_drafts: bool = False

    def scores(self, logits: Tensor, asked: Asked) -> Tensor:
        """See `Chooser.scores`."""
        texts = [] if self.processing.blind else asked.prefixes()
        return self.processing.rows(texts, logits)

    def judge(self, scores: Tensor, asked: Asked) -> Verdict:
        """See `Chooser.judge`. Raises PromptError where no token is left to draw."""
        return (verify_drawn if asked.q is None else verify_sampled)(_chances(scores), asked, self.dice)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`; a draft is drawn from the sampler head's scores after the same processors."""
        if self.greedy_drafts or not blocks.tree.is_chain:
            return Drafts(draft_greedy(model, blocks.states, blocks.newest, blocks.tree))
        guesses: list[Tensor] = []
        distributions, previous, texts = [], blocks.newest, list(blocks.texts)
        shortlists = model.shortlist_of(blocks.states)
        for place, state in enumerate(blocks.states.unbind(dim=1)):
            shortlist = None if shortlists is None else shortlists[:, place]
            logits = model.base.scaled(model.guess(previous[:, None], state[:, None], place, shortlist)[:, 0])
            if shortlist is not None:
                nothing = logits.new_full((len(logits), model.base.vocabulary), -torch.inf)
                logits = nothing.scatter(1, shortlist, logits)
            prefixes = [] if self.processing.blind else [[text] for text in texts]
            q = self.processing.rows(prefixes, logits[:, None])[:, 0].softmax(dim=-1)
            # Processors that leave no token are for plain decoding to meet, should it come there: any q is exact.
            q = torch.where(q.isnan(), logits.softmax(dim=-1), q)
            previous = self.dice.pick(q, [size > place for size in blocks.sizes])
            guesses.append(previous)
            distributions.append(q)
            if not self.processing.blind:
                texts = [[*text, guess] for text, guess in zip(texts, previous.tolist())]
        return Drafts(torch.stack(guesses, dim=1), torch.stack(distributions, dim=1))

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.dice.select(sequences)
        self.processing = self.processing.select(sequences)


def _chances(scores: Tensor) -> Tensor:
    """The distributions (..., V) of `scores`. Raises PromptError where they leave no token, or are not numbers."""
    chances = scores.softmax(dim=-1)
    if chances.isnan().any():
        raise PromptError(
            "no token is left to draw: the logits processors rule out all of them, or the base gives NaN; loosen the "
            "processors, or load the base in float32"
        )
    return chances


def chooser_of(sample: SampleConfig) -> Callable[[Sequence[int]], Chooser]:
    """Makes the chooser of some prompts, with transformers' own warpers."""
    if sample.temperature == 0:
        return lambda indices: Greedy()
    processing = Processing(warpers(sample))
    return lambda indices: Sampled(SeededDice(sample.seed, indices), processing)
