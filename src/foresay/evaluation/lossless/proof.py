"""All that `foresay check` found, and its verdict."""

from dataclasses import asdict, dataclass
from typing import Any

from foresay.evaluation.lossless.base_unchanged import BaseUnchanged
from foresay.evaluation.lossless.certificate import Certificate
from foresay.evaluation.lossless.sampling import SamplingReport


@dataclass(frozen=True, slots=True)
class Proof:
    """All that a check found."""

    greedy: Certificate
    untouched: BaseUnchanged
    sampling: SamplingReport | None

    @property
    def fails(self) -> bool:
        """A bug, a bias, or a base that is not itself any more."""
        return bool(self.greedy.bugs or not self.untouched.holds or (self.sampling and self.sampling.biased))

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it: every part of it where one fails, for greedy alone may be well."""
        if not self.fails:
            powerless = self.sampling is not None and not self.sampling.has_power
            return " ".join([self.greedy.sentence, *([self.sampling.sentence] if self.sampling and powerless else [])])
        parts = [self.greedy.sentence, self.untouched.sentence]
        return " ".join(["NOT lossless.", *parts, *([self.sampling.sentence] if self.sampling else [])])

    def content(self) -> dict[str, Any]:
        """For JSON."""
        own = {"holds": self.untouched.holds, "sentence": self.untouched.sentence}
        sampling = None
        if self.sampling is not None:
            said = {"has_power": self.sampling.has_power, "sentence": self.sampling.sentence}
            sampling = asdict(self.sampling) | said
        return asdict(self.greedy) | {
            "passed": not self.fails,
            "sentence": self.sentence,
            "surety": self.greedy.surety,
            "untouched": asdict(self.untouched) | own,
            "sampling": sampling,
        }
