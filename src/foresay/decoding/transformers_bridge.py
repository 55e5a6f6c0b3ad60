"""Inside transformers: what its `generate` prepares, decoded several tokens a step.

transformers validates the arguments and builds logits processors and stopping criteria; then it calls a `Bridge`
(`custom_generate`), which runs our engine on them and returns what its own decoding loop would. How transformers runs
its own forwards (`use_cache`, `prefill_chunk_size`, `compile_config`) has no meaning here: rows always go to slots.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateDecoderOnlyOutput, GenerationMode
from transformers.generation import logits_process as known
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import (
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation.streamers import BaseStreamer

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import check_prompts, generate
from foresay.decoding.live import GenerationHooks, Stop
from foresay.decoding.sampling.chooser import Chooser, Greedy, Sampled
from foresay.decoding.sampling.grammar import Constraint, grammar_of
from foresay.decoding.sampling.logits_processors import ByRow, Place, Processing
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.recorded import Recorded, TokenScores
from foresay.decoding.steps import Generation, Step
from foresay.foundation.errors import PromptError
from foresay.models.drafting import DraftingModel

OTHER_MODES = {
    GenerationMode.BEAM_SEARCH: "use num_beams=1",
    GenerationMode.BEAM_SAMPLE: "use num_beams=1",
    GenerationMode.GROUP_BEAM_SEARCH: "use num_beams=1",
    GenerationMode.CONSTRAINED_BEAM_SEARCH: "leave out constraints and force_words_ids",
    GenerationMode.CONTRASTIVE_SEARCH: "leave out penalty_alpha",
    GenerationMode.DOLA_GENERATION: "leave out dola_layers",
    GenerationMode.ASSISTED_GENERATION: "leave out assistant and prompt lookup, the base drafts for itself",
}
"""What cannot be accelerated, and what to do."""
INSIDE = ("output_attentions", "output_hidden_states")
"""What a forward of the base shows beside its logits."""
BATCHWISE = (known.EncoderRepetitionPenaltyLogitsProcessor, known.EncoderNoRepeatNGramLogitsProcessor)
"""Processors that hold something for each row of the batch."""
READ = {"attention_mask", "position_ids", "cache_position"}
"""Tensors of transformers' own preparation that a Bridge reads, or makes anew."""
WITHHELD = {
    "assistant_model": "the base drafts for itself",
    "cache": "foresay keeps its own cache",
    "custom_generate": "it is what this method passes",
    "past_key_values": "foresay keeps its own cache",
    "synced_gpus": "steps do not keep time with other processes",
    "token_healing": "transformers withholds the tokenizer it needs",
}
"""Arguments of `generate` that never reach a Bridge, and why they cannot be served."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A `custom_generate` callable for the base of `model`.

    transformers withholds the `streamer` it was given, so a Bridge has its own; it works for one sequence.
    """

    model: DraftingModel
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    streamer: BaseStreamer | None = None
    structured: Any = None
    """What form continuations have, as `grammar_of` takes it; needs the tokenizer."""
    tokenizer: PreTrainedTokenizerBase | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **prepared: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Continue `input_ids` (B, P) int64, padded on either side where `attention_mask` is 0.

        Raises PromptError for what several tokens a step cannot do, with the reason.
        """
        self._refuse(model, generation_config, prepared, len(input_ids))
        batch = _Batch.of(input_ids, prepared)
        decode = replace(self.decode, max_new_tokens=max(_longest(stopping_criteria) - input_ids.shape[1], 1))
        check_prompts(self.model, batch.prompts, decode)
        records = [TokenScores() for _ in batch.prompts]
        constraints = self._constraints(stops := _stop_tokens(stopping_criteria), len(batch.prompts))
        processing = _processing([*([ByRow(constraints)] if constraints else []), *logits_processor], batch)
        how = GenerationHooks(
            chooser=_chooser(processing, generation_config, records),
            watch=self._stream,
            stop=_stop(stopping_criteria, batch, records),
            stop_tokens=frozenset() if decode.ignore_stop else stops,
        )
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())
        said = generate(self.model, batch.prompts, decode, how)
        if self.streamer is not None:
            self.streamer.end()
        for constraint, own in zip(constraints, said):
            constraint.check(own.tokens)
        return _result(batch, said, records, generation_config)

    def _constraints(self, stops: Collection[int], sequences: int) -> list[Constraint]:
        def reader() -> PreTrainedTokenizerBase:
            if self.tokenizer is None:
                raise PromptError("structured output needs a tokenizer and this model has none; give it one")
            return self.tokenizer

        grammar = grammar_of(self.structured, reader, self.model.base.vocabulary, sorted(stops))
        return [] if grammar is None else [grammar.constraint() for _ in range(sequences)]

    def _stream(self, index: int, step: Step) -> None:
        if self.streamer is not None:
            for token in step.tokens:
                self.streamer.put(torch.tensor([token]))

    def _refuse(
        self, model: PreTrainedModel, config: GenerationConfig, prepared: Mapping[str, Any], sequences: int
    ) -> None:
        """Raise PromptError for the first thing asked for that cannot be had."""
        # transformers 5.24 renamed past_key_values to cache.
        mode, cache = config.get_generation_mode(), prepared.get("cache", prepared.get("past_key_values"))
        inside = [name for name in INSIDE if config.return_dict_in_generate and getattr(config, name)]
        tensors = [name for name, value in prepared.items() if isinstance(value, Tensor) and name not in READ]
        filled = cache is not None and (cache.get_seq_length() > 0 or getattr(cache, "_is_user_defined", False))
        reasons = {
            "generate was called on another model than the adapter's base; call it on that base": (
                model is not self.model.model
            ),
            f"{mode.value} cannot be accelerated, because drafts are verified against one greedy or sampled "
            f"continuation; {OTHER_MODES.get(mode)}": mode in OTHER_MODES,
            f"{', '.join(inside)} cannot be returned, because a step also sees masks and drafts that fail; "
            "leave it out": inside,
            f"cache_implementation is {config.cache_implementation!r} and foresay keeps its own cache; leave it out": (
                config.cache_implementation not in (None, "dynamic")
            ),
            "a cache was given (past_key_values), and foresay keeps its own; give the whole prompt instead": filled,
            f"{', '.join(tensors)} cannot be continued, because prompts are token ids alone; give input_ids": tensors,
            f"a streamer shows one sequence and there are {sequences}; give one prompt, or leave the streamer out": (
                self.streamer is not None and sequences > 1
            ),
        }
        for reason, found in reasons.items():
            if found:
                raise PromptError(reason)


def refuse_withheld(arguments: Mapping[str, Any]) -> None:
    """Raise PromptError for arguments of `generate` that would be dropped without a word on their way to a Bridge."""
    for name, why in WITHHELD.items():
        if arguments.get(name) not in (None, False):
            raise PromptError(f"{name} cannot be used here, because {why}; leave it out")
    if arguments.get("cache_implementation") == "paged":
        raise PromptError("cache_implementation is 'paged' and foresay keeps its own cache; leave it out")


def with_stop_strings(
    arguments: Mapping[str, Any],
    config: GenerationConfig | None,
    own: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, Any]:
    """What to change in the arguments of `generate` where there are stop strings: theirs, the config's, or the base's.

    On this path transformers withholds the tokenizer that its own stop strings need.
    """
    given = None if config is None else config.stop_strings
    strings = arguments.get("stop_strings", given or own.stop_strings)
    if strings is None:
        return {}
    if tokenizer is None:
        raise PromptError("stop strings need a tokenizer and this model has none; give one")
    rules = [*(arguments.get("stopping_criteria") or ()), StopStringCriteria(tokenizer, strings)]
    return {"stop_strings": None, "stopping_criteria": StoppingCriteriaList(rules)}


@dataclass(frozen=True, slots=True)
class _Batch:
    """The prompts as transformers has them, and apart from their padding."""

    ids: Tensor
    """(B, P) int64."""
    prompts: list[list[int]]
    places: tuple[Place, ...]

    @classmethod
    def of(cls, ids: Tensor, prepared: Mapping[str, Any]) -> "_Batch":
        """Split padding from prompts, on whichever side it stands. Raises PromptError for a mask that does not fit."""
        mask, positions = prepared.get("attention_mask"), prepared.get("position_ids")
        for given in (mask, positions):  # positions are counted on the mask, which is None where it hides nothing
            if given is not None and (given.shape[-1] != ids.shape[1] or len(given) not in (1, len(ids))):
                raise PromptError(
                    f"attention_mask is {tuple(given.shape)} and input_ids {tuple(ids.shape)}; give one mask for each "
                    "token"
                )
        seen = (torch.ones_like(ids) if mask is None else mask.expand_as(ids)).bool()
        if positions is not None and ((positions != seen.cumsum(dim=-1) - 1) & seen).any():
            raise PromptError("position_ids count otherwise than from 0 for each prompt; leave them out")
        rows = list(zip(ids.tolist(), seen.tolist()))
        prompts = [[token for token, real in zip(*row) if real] for row in rows]
        return cls(ids, prompts, tuple(_place(index, *row) for index, row in enumerate(rows)))

    def row(self, index: int, text: Sequence[int]) -> Tensor:
        """(1, L) int64: the row that transformers would have for this text."""
        return torch.tensor([self.places[index].text(text)], device=self.ids.device)


def _place(index: int, ids: list[int], seen: list[bool]) -> Place:
    """Where a prompt stands, as if all its padding had been in front."""
    end = max((place for place, real in enumerate(seen, 1) if real), default=0)
    padding = len(ids) - end + next((place for place, real in enumerate(seen) if real), 0)
    return Place(index, (*ids[end:], *ids[:end]), padding, sum(seen))


def _longest(criteria: StoppingCriteriaList) -> int:
    """Most tokens of a row, its padded prompt included; transformers always has a criterion for that."""
    return min(int(rule.max_length) for rule in criteria if isinstance(rule, MaxLengthCriteria))


def _stop_tokens(criteria: StoppingCriteriaList) -> frozenset[int]:
    rules = [rule for rule in criteria if isinstance(rule, EosTokenCriteria)]
    return frozenset(token for rule in rules for token in rule.eos_token_id.tolist())


def _stop(criteria: StoppingCriteriaList, batch: _Batch, records: Sequence[TokenScores]) -> Stop | None:
    """Whether any criterion that the engine does not know ends a text: each sees its row of the batch, alone."""
    rules = StoppingCriteriaList(
        rule for rule in criteria if not isinstance(rule, EosTokenCriteria | MaxLengthCriteria)
    )

    def stops(index: int, text: list[int]) -> bool:
        said = len(text) - len(batch.prompts[index])
        scores = tuple(row[None].to(batch.ids.device) for row in records[index].scores[:said])
        return bool(rules(batch.row(index, text), scores or None).all())

    return stops if rules else None


def _processing(processors: Sequence[Any], batch: _Batch) -> Processing:
    """Raises PromptError for processors that know rows of the batch by their number, and ours would lose it."""
    for processor in processors:
        if isinstance(processor, BATCHWISE) and len(batch.prompts) > 1:
            raise PromptError(
                f"{type(processor).__name__} holds every prompt of the batch, and drafts are judged sequence by "
                "sequence; give one prompt at a time"
            )
    return Processing(tuple(processors), batch.places, batch.ids.device)


def _chooser(
    processing: Processing, config: GenerationConfig, records: Sequence[TokenScores]
) -> Callable[[Sequence[int]], Chooser]:
    """Makes the chooser of some prompts; torch's global generator seeds the draws, as in transformers."""
    seed = int(torch.randint(2**62, ()).item()) if config.do_sample else 0
    recorded = config.return_dict_in_generate and (config.output_scores or config.output_logits)

    def chooser(indices: Sequence[int]) -> Chooser:
        mine = processing.select(indices)
        chosen = Sampled(SeededNumbers(seed, indices), mine) if config.do_sample else Greedy(mine)
        return Recorded(chosen, [records[index] for index in indices]) if recorded else chosen

    return chooser


def _result(
    batch: _Batch, said: Sequence[Generation], records: Sequence[TokenScores], config: GenerationConfig
) -> Tensor | GenerateDecoderOnlyOutput:
    """Prompts and continuations (B, L) int64, padded on the right; with what was asked for beside them."""
    longest = max(len(generation.tokens) for generation in said)
    pad = 0 if config._pad_token_tensor is None else int(config._pad_token_tensor)
    rows = [[*generation.tokens, *[pad] * (longest - len(generation.tokens))] for generation in said]
    sequences = torch.cat((batch.ids, torch.tensor(rows, device=batch.ids.device)), dim=1)
    if not config.return_dict_in_generate:
        return sequences

    def stacked(rows: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
        certain = torch.full_like(rows[0][0], -torch.inf)
        certain[pad] = 0
        kept = [some[: len(generation.tokens)] for some, generation in zip(rows, said)]
        return tuple(
            torch.stack([some[place] if place < len(some) else certain for some in kept]).to(sequences.device)
            for place in range(longest)
        )

    return GenerateDecoderOnlyOutput(
        sequences=sequences,
        scores=stacked([record.scores for record in records]) if config.output_scores else None,
        logits=stacked([record.logits for record in records]) if config.output_logits else None,
    )
