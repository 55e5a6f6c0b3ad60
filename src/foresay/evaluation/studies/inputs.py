"""What the cells of a study are trained and measured on: the same for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from foresay.data.mixture import Mixture, split
from foresay.data.prompts import Prompt, by_domain
from foresay.decoding.config import DecodeConfig, FixedLayout
from foresay.decoding.metrics import tally
from foresay.evaluation.config import HarnessConfig
from foresay.foundation.errors import require
from foresay.foundation.hashes import short_hash
from foresay.model import MultiTokenModel
from foresay.models.artefact.fingerprint import Fingerprints
from foresay.training.config import TrainConfig
from foresay.training.label_check import PROBED, check_labels
from foresay.training.objectives.batches import Batch, collate
from foresay.training.recipe import Recipe
from foresay.training.train import identity, read_parts

SPLIT_SEED = 0
"""Held out are the same examples for every seed of a study."""


@dataclass(frozen=True, slots=True)
class StudyInputs:
    """Training examples, held-out ones, and prompts to decode."""

    examples: Mixture
    heldout: Mixture
    prompts: tuple[Prompt, ...]
    max_new_tokens: int
    base: Fingerprints
    content: dict[str, Any]
    """What the training examples are, ready for JSON."""
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    """Tasks beside, for studies that run some."""

    @classmethod
    def read(
        cls, recipe: Recipe, model: MultiTokenModel, prompts: Sequence[Prompt], max_new_tokens: int
    ) -> "StudyInputs":
        """Read the recipe's data. Raises DataError, and PromptError for prompts that cannot be served."""
        require(recipe.train.heldout >= 1, "heldout is 0; a study measures on held-out examples, so give 1 or more")
        examples, heldout = split(read_parts(recipe, model), recipe.train.heldout, SPLIT_SEED)
        model.check_prompts([prompt.ids for prompt in prompts])
        check_labels(model.mask_model, examples[:PROBED])
        return cls(examples, heldout, tuple(prompts), max_new_tokens, model.fingerprints(), examples.content)

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """What a cell trained by `recipe` is and is measured on, ready for JSON."""
        prompts = short_hash(repr([(prompt.domain, prompt.ids) for prompt in self.prompts]))
        measured = {"prompts": prompts, "heldout": self.heldout.content, "max_new_tokens": self.max_new_tokens}
        if self.harness.tasks:
            measured["harness"] = asdict(self.harness) | {"include_path": str(self.harness.include_path or "")}
        return {**identity(recipe, self.base, self.content), "measured": measured}

    def heldout_batches(self, train: TrainConfig, device: torch.device) -> Iterator[Batch]:
        """The held-out examples, anchors drawn alike for every seed."""
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        for start in range(0, len(self.heldout), train.sequences):
            some = self.heldout[start : start + train.sequences]
            yield collate(some, train.anchors, generator, device)


def tokens_per_step(model: MultiTokenModel, material: StudyInputs, layout: FixedLayout, masks: int) -> dict[str, float]:
    """Decode the prompts of each domain together, greedily: kept tokens over steps, by domain."""
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=material.max_new_tokens)
    return {
        domain: tally(model.decode([prompt.ids for prompt in prompts], config)).tokens_per_step
        for domain, prompts in by_domain(material.prompts).items()
    }
