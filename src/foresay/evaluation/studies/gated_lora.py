"""Paper A's Fig. 6: gated against standard LoRA while they train. Does the base keep its own next token?

Both are measured in the call that the paper trains in, text and masks interleaved: the base's cross-entropy of the next
token on held-out text, and how many of its rows differ, in any bit, from the same call with LoRA off. Beside it, where
tasks are given, the accuracy that the paper draws (ARC-Challenge).
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch

from foresay.evaluation.studies.study import Cell, Figure, Lines, Point, Study, Subject, Verdict
from foresay.evaluation.task_quality import accuracies
from foresay.training.objectives.losses import cross_entropy
from foresay.training.objectives.one_pass import acting, packs, see_packed, standard_lora

GATED, STANDARD = "gated", "standard"
LOSS = Figure("next-token-loss", "Next-token loss on held-out text", "step", "nats", digits=4)
CHANGED = Figure("changed-rows", "Held-out rows with other logits than the base's", "step", "%")
ACCURACY = Figure("accuracy", "Accuracy on the tasks, by lm-evaluation-harness", "step", "%")
TOTAL = Figure("training-loss", "Loss of the step", "step", "loss")


def cells(start: Cell) -> list[Cell]:
    """The same training twice, on the same batches."""
    return [replace(start, label=GATED), replace(start, label=STANDARD, variant="standard")]


@torch.no_grad()
def measure(subject: Subject) -> Iterator[Point]:
    """Next-token loss, rows changed, scores of tasks, loss of the step."""
    core, cell = subject.model.mask_model, subject.cell
    rows, changed, loss = 0, 0, 0.0
    for batch in subject.material.heldout_batches(cell.train, core.base.device):
        for pack in packs(batch, core.config.num_masks):
            acts, told = acting(pack, cell.variant == "standard"), pack.carries.nonzero()[:, 0]
            own, bare = (see_packed(core, pack, some).logits[0, pack.own[told]] for some in (acts, 0 * acts))
            loss += cross_entropy(own, pack.ids[told + 1]).double().sum().item()
            changed += int((own != bare).any(-1).sum())
            rows += len(told)
    step = subject.progress.step
    yield Point(LOSS.name, cell.label, step, loss / rows)
    yield Point(CHANGED.name, cell.label, step, 100 * changed / rows)
    for task, score in _scores(subject).items():
        yield Point(ACCURACY.name, cell.label, step, 100 * score, domain=task)
    if step:
        yield Point(TOTAL.name, cell.label, step, subject.progress.losses.total)


def _scores(subject: Subject) -> dict[str, float]:
    """Accuracy on each task, from text rows as the cell leaves them: gated LoRA is attached there, its gate closed."""
    core, harness = subject.model.mask_model, subject.material.harness
    if not harness.tasks:
        return {}
    core.attach_hooks()
    with standard_lora(core) if subject.cell.variant == "standard" else nullcontext():
        return accuracies(subject.model, harness)


def verdict(figures: Mapping[str, Lines]) -> Verdict:
    """Gated must stay equal to the bit, for every seed; standard must drift, or the training shows nothing."""
    said, kept = [], True
    for label in (GATED, STANDARD):
        losses, changed = (list(figures[figure.name].get(label, {}).values()) for figure in (LOSS, CHANGED))
        if not losses:
            said.append(f"{label} is not there yet")
            continue
        constant = not any(place.most for place in changed) and all(
            (place.least, place.most) == (losses[0].median, losses[0].median) for place in losses
        )
        kept &= constant == (label == GATED)
        drift = f"{losses[0].median:.4f} -> {losses[-1].median:.4f}"
        said.append(f"{label}: next-token loss {'constant to the bit' if constant else f'changed, {drift}'}")
    return Verdict(f"{'; '.join(said)}.", kept)


GATE = Study("gate", cells, measure, (LOSS, CHANGED, ACCURACY, TOTAL), verdict, moments=5)
