"""How tokens are chosen where nobody says: as the base's own `generation_config.json` says.

Flags and requests override it, value by value, as vLLM's `--generation-config` and transformers' `generate` do.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import StopStringCriteria

from foresay.decoding.answers import choosing
from foresay.decoding.config import PenaltyConfig, SampleConfig
from foresay.decoding.live import GenerationHooks, Stop
from foresay.model import MultiTokenModel

BEYOND = (
    *("num_beams", "no_repeat_ngram_size", "guidance_scale", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("sequence_bias", "exponential_decay_length_penalty", "min_length", "min_new_tokens", "penalty_alpha"),
    *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "watermarking_config", "dola_layers"),
)
"""What a generation config may say that is followed by `MultiTokenModel.generate` alone, or nowhere."""
NEUTRAL: tuple[Any, ...] = (None, 0, 0.0, 1, 1.0, False, [])


@dataclass(frozen=True, slots=True)
class Rules:
    """How the tokens of an answer are chosen, and what ends it beside the base's stop tokens."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    stop_strings: tuple[str, ...] = ()
    taken: dict[str, float] = field(default_factory=dict)
    """Which of these the base's own settings gave; stop strings apart."""
    beyond: tuple[str, ...] = ()
    """What they say and is not followed."""

    @property
    def sentence(self) -> str:
        """What was taken from the base, for stderr; empty where there is nothing to say."""
        parts = [f"{name} {value:g}" for name, value in self.taken.items()]
        parts += [f"stop string {stop!r}" for stop in self.stop_strings]
        said = [f"from the base's generation_config.json: {', '.join(parts)}"] if parts else []
        return "; ".join([*said, *([f"not followed: {', '.join(self.beyond)}"] if self.beyond else [])])

    def hooks(self, model: MultiTokenModel, prompt: Sequence[int]) -> GenerationHooks:
        """What one prompt is decoded with under these rules."""
        return GenerationHooks(chooser=choosing(self.sample, self.penalties, [prompt]), stop=self._stop(model))

    def _stop(self, model: MultiTokenModel) -> Stop | None:
        if not self.stop_strings:
            return None
        rule = StopStringCriteria(model.require_tokenizer(), list(self.stop_strings))
        return lambda index, text: bool(rule(torch.tensor([text]), None).all())


def own_rules(
    config: GenerationConfig,
    sample: SampleConfig | None = None,
    penalties: PenaltyConfig | None = None,
    given: Container[str] = (),
) -> Rules:
    """`sample` and `penalties` with what the base's own `config` says, where the setting's name is not `given`.

    A config that does not sample (`do_sample` false or missing) is greedy, as in transformers, whatever else it says.

    >>> own_rules(GenerationConfig(do_sample=True, temperature=0.6)).sample.temperature
    0.6
    """
    sample, penalties = sample or SampleConfig(), penalties or PenaltyConfig()
    said = _said(config) if config.do_sample else {}
    if config.do_sample:
        said.setdefault("temperature", 1.0)
    if _says(config.repetition_penalty):
        said["repetition_penalty"] = config.repetition_penalty
    # Whoever asks for the best token has no use for what shapes chances.
    if "temperature" in given and not sample.temperature:
        said = {name: value for name, value in said.items() if name == "repetition_penalty"}
    taken = {name: value for name, value in said.items() if name not in given}
    strings = [config.stop_strings] if isinstance(config.stop_strings, str) else list(config.stop_strings or ())
    beyond = tuple(f"{name} {value}" for name in BEYOND if _says(value := getattr(config, name, None)))
    return Rules(_with(sample, taken), _with(penalties, taken), tuple(strings), taken, beyond)


def _said(config: GenerationConfig) -> dict[str, Any]:
    """The settings of a `SampleConfig` that a config names."""
    names = ("temperature", "top_k", "top_p", "min_p")
    return {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}


def _says(value: Any) -> bool:
    return value not in NEUTRAL


def _with(settings: Any, values: dict[str, Any]) -> Any:
    own = {entry.name for entry in fields(settings)}
    return replace(settings, **{name: value for name, value in values.items() if name in own})
