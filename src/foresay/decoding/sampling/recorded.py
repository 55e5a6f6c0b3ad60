"""What every token was chosen by, kept for those who ask."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foresay.decoding.sampling.chooser import Chooser, Drafts
from foresay.decoding.sampling.draft import Blocks
from foresay.decoding.sampling.verify import DraftsToVerify, Verification
from foresay.models.drafting import DraftingModel


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The rows that the tokens of one sequence were chosen by, in order; those of a cut run may stand after them."""

    logits: list[Tensor] = field(default_factory=list)
    """(V,) float32 each: the base's own."""
    scores: list[Tensor] = field(default_factory=list)
    """(V,) float32 each: after the processors."""


@dataclass(slots=True)
class Recorded(Chooser):
    """Another chooser, whose every row that gave a token is recorded."""

    chooser: Chooser
    records: Sequence[TokenScores | None]
    """One for each live sequence; None where nobody asks."""

    _step: tuple[Tensor, Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    """Logits, scores and path of the step that is to be read."""

    @property
    def rule(self) -> Hashable:
        """See `Chooser.rule`; None while somebody asks for what a step gives to the host."""
        return None if any(self.records) else self.chooser.rule

    def recorded(self, numbers: Tensor) -> Chooser:
        """See `Chooser.recorded`."""
        return self.chooser.recorded(numbers)

    def numbers(self, most: int) -> Tensor | None:
        """See `Chooser.numbers`."""
        return self.chooser.numbers(most)

    def begin(self, most: int, device: torch.device) -> None:
        """See `Chooser.begin`."""
        self.chooser.begin(most, device)

    def verify(self, logits: Tensor, asked: DraftsToVerify) -> Verification:
        """See `Chooser.verify`."""
        scores = self.scores(logits, asked)
        verdict = self.judge(scores, asked)
        self._step = (logits, scores, verdict.path) if any(self.records) else None
        return verdict

    def hear(self, accepted: Sequence[int]) -> None:
        """See `Chooser.hear`."""
        if self._step is None:
            return
        logits, scores, path = self._step
        for sequence, (record, stay) in enumerate(zip(self.records, accepted)):
            if record is not None:
                rows = path[sequence, : stay + 1]
                record.logits.extend(logits[sequence, rows].float())
                record.scores.extend(scores[sequence, rows].float())
        self._step = None

    def scores(self, logits: Tensor, asked: DraftsToVerify) -> Tensor:
        """See `Chooser.scores`."""
        return self.chooser.scores(logits, asked)

    def judge(self, scores: Tensor, asked: DraftsToVerify) -> Verification:
        """See `Chooser.judge`."""
        return self.chooser.judge(scores, asked)

    def explain(self, logits: Tensor, asked: DraftsToVerify) -> None:
        """See `Chooser.explain`."""
        self.chooser.explain(logits, asked)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`."""
        return self.chooser.draft(model, blocks)

    def settle(self, used: Sequence[int]) -> None:
        """See `Chooser.settle`."""
        self.chooser.settle(used)

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.records = [self.records[place] for place in sequences]
        self.chooser.select(sequences)

    def join(self, other: Chooser) -> None:
        """See `Chooser.join`."""
        assert isinstance(other, Recorded)
        self.records = [*self.records, *other.records]
        self.chooser.join(other.chooser)
