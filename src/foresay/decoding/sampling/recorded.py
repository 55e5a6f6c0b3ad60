"""What every token was chosen by, kept for those who ask."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from foresay.decoding.sampling.chooser import Blocks, Chooser, Drafts
from foresay.decoding.sampling.verify import Asked, Verdict
from foresay.models.drafting import DraftingModel


@dataclass(frozen=True, slots=True)
class Record:
    """The rows that the tokens of one sequence were chosen by, in order; those of a cut run may stand behind them."""

    logits: list[Tensor] = field(default_factory=list)
    """(V,) float32 each: the base's own."""
    scores: list[Tensor] = field(default_factory=list)
    """(V,) float32 each: after the processors."""


@dataclass(slots=True)
class Recorded(Chooser):
    """Another chooser, whose every row that gave a token is recorded."""

    chooser: Chooser
    records: Sequence[Record | None]
    """One for each live sequence; None where nobody asks."""

    def verify(self, logits: Tensor, asked: Asked) -> Verdict:
        """See `Chooser.verify`."""
        scores = self.scores(logits, asked)
        verdict = self.judge(scores, asked)
        if not any(self.records):
            return verdict
        for sequence, (record, accepted) in enumerate(zip(self.records, verdict.accepted.tolist())):
            if record is None:
                continue
            rows = verdict.path[sequence, : accepted + 1]
            record.logits.extend(logits[sequence, rows].float())
            record.scores.extend(scores[sequence, rows].float())
        return verdict

    def scores(self, logits: Tensor, asked: Asked) -> Tensor:
        """See `Chooser.scores`."""
        return self.chooser.scores(logits, asked)

    def judge(self, scores: Tensor, asked: Asked) -> Verdict:
        """See `Chooser.judge`."""
        return self.chooser.judge(scores, asked)

    def draft(self, model: DraftingModel, blocks: Blocks) -> Drafts:
        """See `Chooser.draft`."""
        return self.chooser.draft(model, blocks)

    def select(self, sequences: Sequence[int]) -> None:
        """See `Chooser.select`."""
        self.records = [self.records[place] for place in sequences]
        self.chooser.select(sequences)

    def join(self, other: Chooser) -> None:
        """See `Chooser.join`."""
        assert isinstance(other, Recorded)
        self.records = [*self.records, *other.records]
        self.chooser.join(other.chooser)
