"""Paper A's Fig. 8: tokens per step and memory against the rank of LoRA, trained with and without the sampler head."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from foresay.evaluation.studies.ablation import TOKENS, by_masks, without_sampler
from foresay.evaluation.studies.study import Cell, Figure, Lines, Point, Study, Subject, Verdict

RANKS = (1, 4, 16, 64, 128)
BARE = ", no sampler"
BYTES = Figure("bytes", "Memory of the adapter in float32, bytes", "part", "bytes", digits=0)
SHARE = Figure("overhead", "Weights of the adapter, % of the base's", "part", "%")


def cells(start: Cell) -> list[Cell]:
    """Every rank, with the sampler and without."""
    ranked = [replace(start, label=f"rank {rank}", mtp=replace(start.mtp, rank=rank, alpha=0.0)) for rank in RANKS]
    return [*ranked, *(replace(without_sampler(cell), label=cell.label + BARE) for cell in ranked)]


def measure(subject: Subject) -> Iterator[Point]:
    """Tokens per step, quadratic, and what the adapter weighs."""
    label, core = subject.cell.label, subject.model.mask_model
    yield from by_masks(subject, label, "quadratic")
    adapter, base = core.adapter, _weights(core.model)
    parts = {
        "LoRA": _weights(adapter.loras),
        "sampler": _weights(adapter.sampler),
        "masks": adapter.mask_embeddings.numel(),
    }
    for part, weights in {**parts, "all": sum(parts.values())}.items():
        yield Point(BYTES.name, label, part, 4 * weights)
        yield Point(SHARE.name, label, part, 100 * weights / base)


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def verdict(figures: Mapping[str, Lines]) -> Verdict:
    """What the smallest rank keeps of the largest one's tokens per step, on either side."""
    lines, said = figures[TOKENS.name], []
    for side, paper in (("", "0.95"), (BARE, "0.89")):
        least, most = (lines.get(f"rank {rank}{side}") for rank in (RANKS[0], RANKS[-1]))
        if least and most:
            masks = max(x for x in most if isinstance(x, int))
            kept = least[masks].median / most[masks].median
            where = "without the sampler" if side else "with the sampler"
            said.append(f"{where} rank {RANKS[0]} has {kept:.2f} of rank {RANKS[-1]} (paper A at 8 masks: {paper})")
    return Verdict(
        f"Tokens per step: {'; '.join(said)}." if said else "Smallest and largest rank are not both there yet."
    )


RANK = Study("rank", cells, measure, (TOKENS, BYTES, SHARE), verdict)
