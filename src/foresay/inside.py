"""Inside transformers: what its `generate` prepares, decoded several tokens a step.

transformers validates the arguments and builds logits processors and stopping criteria; then it calls a `Bridge`
(`custom_generate`), which runs our engine on them and returns what its own decoding loop would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput, GenerationMode
from transformers.generation import logits_process as known
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from foresay.config import DecodeConfig, SampleConfig
from foresay.decoding.choose import Chooser, Greedy, Sampled
from foresay.decoding.dice import SeededDice
from foresay.decoding.generate import generate
from foresay.decoding.processing import Processing
from foresay.decoding.session import Generation, How, Step
from foresay.errors import PromptError
from foresay.modelling.model import MaskModel

COUNTING = (
    known.MinLengthLogitsProcessor,
    known.MinNewTokensLengthLogitsProcessor,
    known.ForcedEOSTokenLogitsProcessor,
    known.ExponentialDecayLengthPenalty,
    known.SuppressTokensAtBeginLogitsProcessor,
)
"""Count positions from the padded start."""
NUMBERING = (
    known.EncoderRepetitionPenaltyLogitsProcessor,
    known.EncoderNoRepeatNGramLogitsProcessor,
    known.PrefixConstrainedLogitsProcessor,
)
"""Hold something for each row of the batch."""
MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A `custom_generate` callable for the base of `model`."""

    model: MaskModel
    decode: DecodeConfig
    streamer: BaseStreamer | None = None

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
        self._refuse(model, generation_config)
        mask = prepared.get("attention_mask")
        prompts = _unpadded(input_ids, mask)
        room = generation_config.max_length - input_ids.shape[1]
        decode = replace(self.decode, max_new_tokens=max(room, 1))
        eos = {
            token
            for rule in stopping_criteria
            if isinstance(rule, EosTokenCriteria)
            for token in rule.eos_token_id.tolist()
        }
        rules = [rule for rule in stopping_criteria if not isinstance(rule, EosTokenCriteria | MaxLengthCriteria)]
        processing = Processing(_unpadding(logits_processor, ragged=mask is not None, alone=len(prompts) == 1))
        how = How(
            chooser=_chooser(processing, generation_config),
            watch=self._stream,
            stop=_any_of(rules, input_ids.device) if rules else None,
            stop_tokens=frozenset(eos),
        )
        said = generate(self.model, prompts, decode, how)
        if self.streamer is not None:
            self.streamer.end()
        pad = generation_config.pad_token_id
        sequences = _padded(input_ids, said, pad if isinstance(pad, int) else min(eos, default=0))
        return (
            GenerateDecoderOnlyOutput(sequences=sequences) if generation_config.return_dict_in_generate else sequences
        )

    def _stream(self, index: int, step: Step) -> None:
        if self.streamer is not None:
            self.streamer.put(torch.tensor(step.tokens))

    def _refuse(self, model: PreTrainedModel, config: GenerationConfig) -> None:
        if model is not self.model.model:
            raise PromptError("generate was called on another model than the adapter's base; call it on that base")
        mode = config.get_generation_mode()
        if mode not in MODES:
            raise PromptError(
                f"{mode.value} cannot be accelerated: drafts are verified against one greedy or sampled continuation; "
                "use num_beams=1 and no assistant"
            )
        for wanted in ("output_scores", "output_logits", "output_attentions", "output_hidden_states"):
            if config.return_dict_in_generate and getattr(config, wanted):
                raise PromptError(f"{wanted} is not kept for accepted drafts; leave it out")


def _unpadding(processors: Sequence[Any], ragged: bool, alone: bool) -> tuple[Any, ...]:
    """The processors as batch 1 without padding would have had them.

    Raises PromptError for those that count padded positions or know rows of the batch by their number.
    """
    for processor in processors:
        if (ragged and isinstance(processor, COUNTING)) or (not alone and isinstance(processor, NUMBERING)):
            raise PromptError(
                f"{type(processor).__name__} depends on the padding or the order of the batch, and drafts are judged "
                "sequence by sequence; give prompts of one length, or one prompt at a time"
            )
    return tuple(
        # transformers tells the penalty how much padding to skip; our texts have none.
        known.RepetitionPenaltyLogitsProcessor(processor.penalty)
        if isinstance(processor, known.RepetitionPenaltyLogitsProcessor)
        and isinstance(processor.prompt_ignore_length, Tensor)
        else processor
        for processor in processors
    )


def _chooser(processing: Processing, config: GenerationConfig) -> Any:
    """Makes the chooser of some prompts; torch's global generator seeds the draws, as in transformers."""
    if not config.do_sample:
        return lambda indices: Greedy(processing)
    seed = int(torch.randint(2**62, ()).item())

    def sampled(indices: Sequence[int]) -> Chooser:
        return Sampled(SeededDice(seed, indices), processing)

    return sampled


def chooser_of(sample: SampleConfig) -> Callable[[Sequence[int]], Chooser]:
    """Makes the chooser of some prompts, with transformers' own warpers in its own order."""
    if sample.temperature == 0:
        return lambda indices: Greedy()
    warpers: list[known.LogitsProcessor] = [known.TemperatureLogitsWarper(sample.temperature)]
    warpers += [known.TopKLogitsWarper(sample.top_k)] if sample.top_k else []
    warpers += [known.TopPLogitsWarper(sample.top_p)] if sample.top_p < 1 else []
    warpers += [known.MinPLogitsWarper(sample.min_p)] if sample.min_p else []
    return lambda indices: Sampled(SeededDice(sample.seed, indices), Processing(tuple(warpers)))


def _any_of(rules: Sequence[Any], device: torch.device) -> Any:
    """Whether any stopping criterion ends a text: each sees the ids alone, unpadded."""

    def stops(ids: list[int]) -> bool:
        text = torch.tensor([ids], device=device)
        return any(bool(rule(text, None).all()) for rule in rules)

    return stops


def _unpadded(input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    if mask is None:
        return input_ids.tolist()  # type: ignore[no-any-return]
    return [ids[seen.bool()].tolist() for ids, seen in zip(input_ids, mask)]


def _padded(input_ids: Tensor, said: Sequence[Generation], pad: int) -> Tensor:
    longest = max(len(generation.tokens) for generation in said)
    rows = [[*generation.tokens, *[pad] * (longest - len(generation.tokens))] for generation in said]
    return torch.cat((input_ids, torch.tensor(rows, device=input_ids.device)), dim=1)
