"""How tokens are chosen from the base's logits: greedy, or sampled exactly from the base's distribution.

Both judge the same drafts through the same verdict; the decode loop does not know which one it runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from foresay.decoding.config import SampleConfig
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.decoding.sampling.logits_processors import Processing, warpers
from foresay.decoding.sampling.randomness import DrawnNumbers, RandomNumbers, SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, verify_drawn, verify_greedy, verify_sampled
from foresay.foundation.errors import PromptError
from foresay.models.base.transfer import to_device
from foresay.models.drafting import DraftingModel

Drafter = Callable[[DraftingModel, Blocks], Tensor]
"""(model, blocks of K masks) -> drafts (B, N) of the tree within depth K."""
NO_PROCESSING = Processing()


@dataclass(frozen=True, slots=True)
class Drafts:
    """Guesses for the next step."""

    tokens: Tensor
    """(B, N) int64."""
    q: Tensor | None = None
    """(B, N, V): the distributions they were drawn from; None: they were not drawn by chance."""

    def clone(self) -> "Drafts":
        """Ones that no other step writes over."""
        return Drafts(self.tokens.clone(), None if self.q is None else self.q.clone())

    def select(self, sequences: Sequence[int]) -> "Drafts":
        """Of these sequences, in this order."""
        chosen = to_device(sequences, self.tokens.device)
        return Drafts(self.tokens[chosen], None if self.q is None else self.q[chosen])

    def replaced(self, found: Sequence[Sequence[int]]) -> "Drafts":
        """With these tokens in place of the drafts of each sequence that has any; its newest token, in front, stays.

        They were not drawn by chance: where others were, each of them comes with all of q on itself.
        """
        wide = max(map(len, found))
        table = [[len(tokens), *tokens, *[0] * (wide - len(tokens))] for tokens in found]
        given = to_device(table, self.tokens.device)
        here, most = given[:, :1] > 0, max(wide, self.tokens.shape[1] - 1)
        own, theirs = (functional.pad(some[:, 1:], (0, most + 1 - some.shape[1])) for some in (self.tokens, given))
        tokens = torch.cat((self.tokens[:, :1], torch.where(here, theirs, own)), dim=1)
        if self.q is None:
            return Drafts(tokens)
        certain = functional.one_hot(theirs, self.q.shape[2]).to(self.q.dtype)
        return Drafts(tokens, torch.where(here[:, :, None], certain, _lengthened(self.q, most)))

    def followed_by(self, others: "Drafts") -> "Drafts":
        """These, and those of other sequences after them; neither were drawn by chance. What is missing is 0."""
        assert self.q is others.q is None, "drafts that were drawn by chance stay in their batch"
        wide = max(self.tokens.shape[1], others.tokens.shape[1])
        padded = [functional.pad(some.tokens, (0, wide - some.tokens.shape[1])) for some in (self, others)]
        return Drafts(torch.cat(padded))


def _lengthened(q: Tensor, drafts: int) -> Tensor:
    """`q` (B, N, V) with zeros for more drafts that are in no use."""
    return functional.pad(q, (0, 0, 0, drafts - q.shape[1]))


class Chooser(ABC):
    """Judges drafts and makes new ones. What it decides stays on the device until the session reads it, once a step."""

    @property
    def rule(self) -> Hashable:
        """What a recorded step is fixed to; None: the host takes part, or what it does cannot be told by a value."""
        return None

    def recorded(self, numbers: Tensor) -> "Chooser":
        """The same, for a recorded step whose random numbers (B, most) will lie in `numbers`."""
        raise NotImplementedError(f"the steps of a {type(self).__name__} chooser cannot be recorded")

    def numbers(self, most: int) -> Tensor | None:
        """The next random numbers of each sequence, (B, most) float64, on the CPU; None: none are needed."""
        return None

    # Those that draw nothing by chance and keep no records have nothing to do in these three.

    def begin(self, most: int, device: torch.device) -> None:  # noqa: B027
        """A step begins, which may take so many random numbers of each sequence."""

    def hear(self, accepted: Sequence[int]) -> None:  # noqa: B027
        """The step's verdict was read: drafts that stay."""

    def settle(self, used: Sequence[int]) -> None:  # noqa: B027
        """The step is over and used so many random numbers of each sequence."""

    def verify(self, logits: Tensor, asked: DraftsToVerify) -> Verification:
        """Which drafts stay: `logits` (B, N + 1, V) at the newest token and at every draft."""
        return self.judge(self.scores(logits, asked), asked)

    @abstractmethod
    def scores(self, logits: Tensor, asked: DraftsToVerify) -> Tensor:
        """(B, N + 1, V): the logits after the processors, at every row that `judge` may come to."""

    @abstractmethod
    def judge(self, scores: Tensor, asked: DraftsToVerify) -> Verification:
        """Which drafts stay, by these scores."""

    @abstractmethod
    def explain(self, logits: Tensor, asked: DraftsToVerify) -> None:
        """Raise PromptError for what `verify` called faulty; arguments as there."""

    @abstractmethod
    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """Guess the tokens after the newest ones."""

    @abstractmethod
    def select(self, sequences: Sequence[int]) -> None:
        """Keep these sequences of the batch, in this order."""

    def join(self, other: "Chooser") -> None:
        """Take the sequences of `other`, of the same kind, after one's own; only where sequences come and go."""
        raise NotImplementedError(f"the sequences of a {type(self).__name__} chooser are there from the start")


@dataclass(slots=True)
class Greedy(Chooser):
    """The base's best token, always. `drafter` may be replaced: the output does not depend on it."""

    processing: Processing = NO_PROCESSING
    drafter: Drafter = draft_greedy

    def scores(self, logits: Tensor, asked: DraftsToVerify) -> Tensor:
        """See `Chooser.scores`; a processor is shown no text after a draft that fails."""
        blind = self.processing.blind
        return self.processing.unchecked(logits) if blind else self.processing.rows(asked.prefixes(), logits, True)

    def judge(self, scores: Tensor, asked: DraftsToVerify) -> Verification:
        """See `Chooser.judge`."""
        verdict = verify_greedy(scores, asked)
        return replace(verdict, faulty=_no_numbers(scores)) if self.processing.processors else verdict

    @property
    def rule(self) -> Hashable:
        """See `Chooser.rule`."""
        own = self.processing.rule if self.drafter is draft_greedy else None
        return None if own is None else ("greedy", own)

    def recorded(self, numbers: Tensor) -> Chooser:
        """See `Chooser.recorded`."""
        return Greedy(self.processing)

    def explain(self, logits: Tensor, asked: DraftsToVerify) -> None:
        """See `Chooser.explain`."""
        self.processing.rows([], logits)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`."""
        return Drafts(self.drafter(model, blocks))

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.processing = self.processing.select(sequences)


@dataclass(slots=True)
class Sampled(Chooser):
    """Exactly the base's distribution, whatever the drafts: chain rejection sampling where they are drawn.

    `greedy_drafts` takes the sampler head's best token instead of drawing one: cheaper, and exact too. Drafts that
    branch are always the best ones.
    """

    rng: RandomNumbers
    processing: Processing = NO_PROCESSING
    greedy_drafts: bool = False

    def scores(self, logits: Tensor, asked: DraftsToVerify) -> Tensor:
        """See `Chooser.scores`."""
        blind = self.processing.blind
        return self.processing.unchecked(logits) if blind else self.processing.rows(asked.prefixes(), logits)

    @property
    def rule(self) -> Hashable:
        """See `Chooser.rule`."""
        own = self.processing.rule if type(self.rng) is SeededNumbers else None
        return None if own is None else ("sampled", self.greedy_drafts, own)

    def recorded(self, numbers: Tensor) -> Chooser:
        """See `Chooser.recorded`."""
        return Sampled(DrawnNumbers(numbers), self.processing, self.greedy_drafts)

    def numbers(self, most: int) -> Tensor | None:
        """See `Chooser.numbers`."""
        assert isinstance(self.rng, SeededNumbers), "a chooser with a rule has seeds"
        return self.rng.next(most)

    def begin(self, most: int, device: torch.device) -> None:
        """See `Chooser.begin`."""
        self.rng.begin(most, device)

    def judge(self, scores: Tensor, asked: DraftsToVerify) -> Verification:
        """See `Chooser.judge`."""
        chances = scores.softmax(dim=-1)
        verdict = (verify_drawn if asked.q is None else verify_sampled)(chances, asked, self.rng)
        return replace(verdict, faulty=_no_numbers(chances))

    def explain(self, logits: Tensor, asked: DraftsToVerify) -> None:
        """See `Chooser.explain`."""
        prefixes = [] if self.processing.blind else asked.prefixes()
        if _no_numbers(self.processing.rows(prefixes, logits).softmax(dim=-1)).any():
            raise PromptError(
                "no token is left to draw: the logits processors rule out all of them, or the base gives NaN; loosen "
                "the processors, or load the base in float32"
            )

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`; a draft is drawn from the sampler head's scores after the same processors."""
        if self.greedy_drafts or not blocks.tree.is_chain:
            return Drafts(draft_greedy(model, blocks))
        guesses: list[Tensor] = []
        distributions, previous, texts = [], blocks.newest, list(blocks.texts)
        used = torch.zeros_like(previous) if blocks.used is None else blocks.used
        shortlists = model.shortlist_of(blocks.states, blocks.guesses)
        for place, state in enumerate(blocks.states.unbind(dim=1)):
            shortlist = None if shortlists is None else shortlists[:, place]
            logits = model.base.scaled(model.guess(previous[:, None], state[:, None], place, shortlist)[:, 0])
            if shortlist is not None:
                nothing = logits.new_full((len(logits), model.base.vocabulary), -torch.inf)
                logits = nothing.scatter(1, shortlist, logits)
            q = self._guess_from(logits, texts)
            previous = self.rng.pick(q[:, None], (used + place)[:, None])[:, 0]
            guesses.append(previous)
            distributions.append(q)
            if not self.processing.blind:
                texts = [[*text, guess] for text, guess in zip(texts, previous.tolist())]
        return Drafts(torch.stack(guesses, dim=1), torch.stack(distributions, dim=1))

    def settle(self, used: Sequence[int]) -> None:
        """See `Chooser.settle`."""
        self.rng.settle(used)

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.rng.select(sequences)
        self.processing = self.processing.select(sequences)

    def _guess_from(self, logits: Tensor, texts: Sequence[list[int]]) -> Tensor:
        """What a draft is drawn from, (B, V), by the sampler head's scores `logits` (B, V) and the same processors."""
        if self.processing.blind:
            scores = self.processing.unchecked(logits[:, None])[:, 0]
        else:
            scores = self.processing.rows([[text] for text in texts], logits[:, None])[:, 0]
        q = scores.softmax(dim=-1)
        # Any q is exact, so processors that leave no token are for plain decoding to meet, should it come there; and a
        # head that gives NaN drafts badly.
        return torch.where(q.isnan(), logits.to(q.dtype).nan_to_num().softmax(dim=-1), q)


def _no_numbers(scores: Tensor) -> Tensor:
    """(B,) bool: `scores` (B, N, V) of a sequence that hold NaN."""
    return scores.isnan().flatten(1).any(dim=1)


def chooser_of(sample: SampleConfig) -> Callable[[Sequence[int]], Chooser]:
    """Makes the chooser of some prompts, with transformers' own warpers."""
    if sample.temperature == 0:
        return lambda indices: Greedy()
    processing = Processing(warpers(sample))
    return lambda indices: Sampled(SeededNumbers(sample.seed, indices), processing)
