"""One cell: trained, and measured at its moments."""

from collections.abc import Callable

import torch

from foresay.evaluation.studies.inputs import StudyInputs
from foresay.evaluation.studies.study import Cell, Point, Study, Subject
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses, Progress
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.masks import MaskObjective
from foresay.training.objectives.one_pass import one_pass
from foresay.training.recipe import Recipe
from foresay.training.train import open_fresh

DUMMY = "-"
"""What an untouched model sees in place of masks (paper A, Fig. 1)."""
Watch = Callable[[Progress], None]


def run_cell(study: Study, cell: Cell, recipe: Recipe, material: StudyInputs, watch: Watch) -> list[Point]:
    """Train the cell by its recipe and give every point that the study measures on the way."""
    model, points, last = open_fresh(recipe), list[Point](), recipe.train.steps
    moments = {last, *(last * number // study.moments for number in range(study.moments))}

    def measure(progress: Progress) -> bool:
        if progress.step in moments:
            points.extend(study.measure(Subject(cell, model, material, progress)))
        watch(progress)
        return False

    if cell.variant == "untouched":
        see_dummies(model)
        measure(Progress(step=last))
        return points
    if 0 in moments:
        measure(Progress())
    passes = everywhere if cell.variant == "standard" else None
    objective = MaskObjective(model.mask_model, material.examples, recipe.train, recipe.losses, passes)
    Trainer(objective, recipe.train, measure).run()
    return points


def everywhere(model: MaskModel, batch: Batch, config: LossConfig, chunk_anchors: int) -> Losses:
    """Standard LoRA: it acts on every row, in one pass and in no chunks."""
    return one_pass(model, batch, config, everywhere=True)


def see_dummies(model: MultiTokenModel) -> None:
    """Put the base's own token `-` where masks stand; fresh LoRA is silent, so the base is what answers."""
    ids = model.require_tokenizer().encode(DUMMY, add_special_tokens=False)
    if not ids:
        raise ConfigError(f"the tokenizer of {model.base_name} has no token for {DUMMY!r}, which stands for masks")
    with torch.no_grad():
        dummy = model.base.embedding(torch.tensor(ids[-1:], device=model.base.device))
        model.mask_model.adapter.mask_embeddings.copy_(dummy.expand_as(model.mask_model.adapter.mask_embeddings))
