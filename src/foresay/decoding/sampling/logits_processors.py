"""Transformers' logits processors on the rows to be judged, each row as plain decoding would have shown it to them."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.generation import logits_process as known

from foresay.decoding.config import PenaltyConfig, SampleConfig
from foresay.foundation.errors import PromptError

BLIND = (
    known.TemperatureLogitsWarper,
    known.TopPLogitsWarper,
    known.TopKLogitsWarper,
    known.TopHLogitsWarper,
    known.MinPLogitsWarper,
    known.TypicalLogitsWarper,
    known.EpsilonLogitsWarper,
    known.EtaLogitsWarper,
    known.InfNanRemoveLogitsProcessor,
    known.LogitNormalization,
    known.SuppressTokensLogitsProcessor,
)
"""Processors that never look at the ids: one call serves all rows."""
STATEFUL = (
    known.SynthIDTextWatermarkLogitsProcessor,
    known.UnbatchedClassifierFreeGuidanceLogitsProcessor,
    known.ClassifierFreeGuidanceLogitsProcessor,
)
"""Processors that remember earlier calls or need rows of other sequences: they cannot judge drafts side by side."""


class CountPenalty(known.LogitsProcessor):  # type: ignore[misc]
    """OpenAI's presence and frequency penalties: less for what the answer has said, and the more often the less."""

    def __init__(self, presence: float, frequency: float, prompt: int) -> None:
        """`prompt`: ids in front that do not count."""
        self.presence, self.frequency, self.prompt = presence, frequency, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) after `input_ids` (B, L) int64."""
        said = input_ids[:, self.prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, said, scores.new_ones(said.shape))
        return scores - self.frequency * counts - self.presence * (counts > 0)


class LogitBias(known.LogitsProcessor):  # type: ignore[misc]
    """OpenAI's `logit_bias`: so much is added to the logits of some tokens, always."""

    def __init__(self, bias: Sequence[tuple[int, float]]) -> None:
        """(token, what is added)."""
        self.tokens, self.values = [token for token, _ in bias], [value for _, value in bias]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) after `input_ids` (B, L) int64."""
        return scores.index_add(
            1, scores.new_tensor(self.tokens).long(), scores.new_tensor([self.values]).expand(len(scores), -1)
        )


class MinTokens(known.LogitsProcessor):  # type: ignore[misc]
    """No stop token before so many others, unless nothing else is left: then a grammar has ended."""

    def __init__(self, least: int, prompt: int, stops: Sequence[int]) -> None:
        """`prompt`: ids in front that do not count."""
        self.least, self.prompt, self.stops = least, prompt, sorted(stops)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) after `input_ids` (B, L) int64."""
        if input_ids.shape[1] - self.prompt >= self.least or not self.stops:
            return scores
        held = scores.index_fill(1, torch.tensor(self.stops, device=scores.device), -torch.inf)
        return torch.where((held > -torch.inf).any(dim=1, keepdim=True), held, scores)


class ByRow(known.LogitsProcessor):  # type: ignore[misc]
    """A processor for each row of the batch."""

    def __init__(self, processors: Sequence[known.LogitsProcessor]) -> None:
        self.processors = processors


def limiters(
    bias: Sequence[tuple[int, float]], least: int, prompt: int, stops: Collection[int]
) -> tuple[known.LogitsProcessor, ...]:
    """`logit_bias`, and no stop token before so many tokens of answer, after a prompt of so many."""
    chosen: list[known.LogitsProcessor] = [MinTokens(least, prompt, sorted(stops))] if least else []
    return (*chosen, *([LogitBias(bias)] if bias else []))


def warpers(sample: SampleConfig) -> tuple[known.LogitsProcessor, ...]:
    """transformers' own warpers in its own order; none where tokens are not drawn."""
    if sample.temperature == 0:
        return ()
    chosen: list[known.LogitsProcessor] = [known.TemperatureLogitsWarper(sample.temperature)]
    chosen += [known.TopKLogitsWarper(sample.top_k)] if sample.top_k else []
    chosen += [known.TopPLogitsWarper(sample.top_p)] if sample.top_p < 1 else []
    chosen += [known.MinPLogitsWarper(sample.min_p)] if sample.min_p else []
    return tuple(chosen)


def penalties(settings: PenaltyConfig, prompt: int) -> tuple[known.LogitsProcessor, ...]:
    """What repeats is made less likely, after a prompt of so many tokens."""
    repeated, counted = settings.repetition_penalty != 1, settings.presence_penalty or settings.frequency_penalty
    chosen = [known.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)] if repeated else []
    chosen += [CountPenalty(settings.presence_penalty, settings.frequency_penalty, prompt)] if counted else []
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sequence stands in the batch that the processors were made for."""

    index: int
    row: tuple[int, ...] = ()
    """The prompt as the batch has it, padding in front."""
    padding: int = 0
    """Ids in front of the prompt's first."""
    prompt: int = 0
    """Tokens of the row that the base sees."""

    def text(self, ids: Sequence[int]) -> list[int]:
        """The row as the batch would have it, for a text `ids` without padding."""
        return [*self.row, *ids[self.prompt :]]


@dataclass(frozen=True, slots=True)
class Processing:
    """A list of logits processors, each a pure function of (ids, scores).

    Raises PromptError for the known stateful ones.
    """

    processors: tuple[known.LogitsProcessor, ...] = ()
    places: tuple[Place, ...] = ()
    """Of each live sequence; empty where the processors know of no batch."""
    device: torch.device | None = None
    """Where the processors want ids and scores; None: where the logits are."""

    def __post_init__(self) -> None:
        for processor in self.processors:
            if isinstance(processor, STATEFUL):
                raise PromptError(
                    f"{type(processor).__name__} keeps a state between calls, so drafts cannot be verified with it; "
                    "leave it out, or decode with transformers' own generate"
                )

    @property
    def blind(self) -> bool:
        """No processor looks at the ids."""
        return all(isinstance(processor, BLIND) for processor in self.processors)

    @property
    def rule(self) -> Hashable:
        """What the processors do, as a value; None where they look at ids, or hold more than numbers."""
        if not self.blind or self.device is not None:
            return None
        settings = [(type(processor), *sorted(vars(processor).items())) for processor in self.processors]
        plain = all(isinstance(value, int | float) for _, *pairs in settings for _, value in pairs)
        return tuple(settings) if plain else None

    def select(self, sequences: Sequence[int]) -> "Processing":
        """For these sequences, in this order."""
        return replace(self, places=tuple(self.places[place] for place in sequences)) if self.places else self

    def rows(self, texts: Sequence[Sequence[list[int]]], logits: Tensor, greedy: bool = False) -> Tensor:
        """Scores (B, N, V), float32 or wider, of `logits` (B, N, V); `texts[b][n]` are the ids before row n.

        Where `texts[b]` has fewer than N entries they belong to the last rows. No processor is shown a text that plain
        decoding could not have come to, after a token that is not the best one (`greedy`) or has no chance. Rows that
        no processor saw are left as they are: nobody reads those. Raises PromptError when a processor gives NaN.
        """
        if self.blind:
            return self._blindly(logits, _apply)
        scores = _wide(logits)
        shown = scores.to(self.device or scores.device, copy=True)
        for sequence, prefixes in enumerate(texts):
            place = self.places[sequence] if self.places else Place(sequence)
            self._one_by_one(place, prefixes, shown[sequence, shown.shape[1] - len(prefixes) :], greedy)
        return shown.to(scores.device)

    def unchecked(self, logits: Tensor) -> Tensor:
        """As `rows`, of processors that look at no ids; NaN is left for the caller to find."""
        return self._blindly(logits, _run)

    def _blindly(self, logits: Tensor, run: "Run") -> Tensor:
        scores = _wide(logits)
        if not self.processors:
            return scores
        flat = scores.to(self.device or scores.device).flatten(0, 1)
        nothing = torch.zeros(len(flat), 1, dtype=torch.int64, device=flat.device)
        return run(self.processors, nothing, flat).view_as(scores).to(scores.device)

    def _one_by_one(self, place: Place, prefixes: Sequence[list[int]], rows: Tensor, greedy: bool) -> None:
        """Replace `rows` (N, V) of one sequence by their scores."""
        processors = [_alone(processor, place) for processor in self.processors]
        scored: dict[tuple[int, ...], Tensor] = {}
        for row, ids in zip(rows, prefixes):
            before = scored.get(tuple(ids[:-1]))
            if scored and (before is None or not _may_go_on(before, ids[-1], greedy)):
                continue
            text = torch.tensor([place.text(ids)], device=row.device)
            row.copy_(_apply(processors, text, row[None].clone())[0])
            scored[tuple(ids)] = row


def _may_go_on(scores: Tensor, token: int, greedy: bool) -> bool:
    """Plain decoding may say `token` by these scores (V,)."""
    return int(scores.argmax()) == token if greedy else bool(scores[token] > -torch.inf)


Run = Callable[[Sequence[known.LogitsProcessor], Tensor, Tensor], Tensor]


def _wide(logits: Tensor) -> Tensor:
    """Float32 or wider."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _run(processors: Sequence[known.LogitsProcessor], ids: Tensor, scores: Tensor) -> Tensor:
    """`scores` (B, V) after `ids` (B, L) after all processors."""
    for processor in processors:
        scores = processor(ids, scores)
    return scores


def _apply(processors: Sequence[known.LogitsProcessor], ids: Tensor, scores: Tensor) -> Tensor:
    """`scores` (B, V) after `ids` (B, L) after all processors. Raises PromptError when NaN comes out of one."""
    for processor in processors:
        before, scores = scores, processor(ids, scores)
        if scores.isnan().any():
            culprit = "the base" if before.isnan().any() else type(processor).__name__
            cure = "load it in float32" if culprit == "the base" else "mend or leave out that processor"
            raise PromptError(f"{culprit} gave NaN scores; {cure}")
    return scores


def _alone(processor: known.LogitsProcessor, place: Place) -> known.LogitsProcessor:
    """The processor as it would be for this row of the batch alone."""
    if isinstance(processor, ByRow):
        return processor.processors[place.index]
    if isinstance(processor, known.PrefixConstrainedLogitsProcessor):
        allowed = processor._prefix_allowed_tokens_fn
        return known.PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(place.index, ids), 1)
    # transformers tells the penalty how much padding each row has.
    if isinstance(processor, known.RepetitionPenaltyLogitsProcessor) and isinstance(
        processor.prompt_ignore_length, Tensor
    ):
        return known.RepetitionPenaltyLogitsProcessor(processor.penalty, place.padding)
    return processor
