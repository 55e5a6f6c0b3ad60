"""The served copy of a base: what a folder made for vLLM says of itself, and the arguments that vLLM takes with it."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from foresay.foundation.errors import ArtefactError, ConfigError, require
from foresay.serving.config import PluginConfig

FORMAT = 1
SETTINGS, ADAPTER = "vllm.json", "foresay"
"""What the folder says of itself; the adapter's folder in it, unchanged."""
PROPOSER = "foresay.serving.vllm.plugin.proposer.MaskProposer"
DRAFT_PREFIX = "Foresay"
DRAFTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures of bases that can be a draft model, which vLLM knows with that prefix from us."""
PLUGIN = "foresay"
"""Our key in vLLM's `additional_config`, where fields of `PluginConfig` may be changed for a run."""
LEAST_BATCH_ROWS = 2048
"""Rows of a step that vLLM allows on any machine unless told otherwise (`max_num_batched_tokens`)."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM 0.32 takes for `max_lora_rank`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `vllm.json` says."""

    base: str
    """Name of the base: `nano`, a hub id or a folder."""
    fingerprints: dict[str, str | None]
    """Of base, tokenizer and chat template, as in the adapter's own settings."""
    first_mask: int
    """Vocabulary row of the first mask: the rows of the base's own tokens come before it. In a draft model the id that
    stands for every mask."""
    num_masks: int
    """Trained masks, k."""
    rank: int
    linears: tuple[str, ...]
    """Last parts of the names of the adapted linears."""
    plugin: PluginConfig
    draft_for: str = ""
    """Architecture of the base, in a folder that is both target and draft model; empty: masks ride in the target's own
    forward."""
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def is_served(folder: Path) -> bool:
    """Whether `folder` was made by `foresay export --to vllm`, or as a draft model."""
    return (folder / SETTINGS).is_file()


def read(folder: Path) -> Manifest:
    """What a served copy says of itself. Raises ArtefactError when `folder` is none, or of an unknown format."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ArtefactError(f"{folder} has no {SETTINGS}, so it is no served copy; make one: foresay export --to vllm")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise ArtefactError(f"{path} has format {said['format']}, this foresay reads {FORMAT}; export it again")
        plugin, linears = PluginConfig(**said.pop("plugin")), tuple(said.pop("linears"))
        return Manifest(plugin=plugin, linears=linears, **said)
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); export it again") from error


def write(folder: Path, served: Manifest) -> None:
    """Write `vllm.json`."""
    (folder / SETTINGS).write_text(json.dumps(asdict(served), indent=2) + "\n", encoding="utf-8")


def plugin_config(served: Manifest, changes: dict[str, Any]) -> PluginConfig:
    """The exported settings with some fields changed for a run; `masks` is never 0. Raises ConfigError."""
    known = [entry.name for entry in fields(PluginConfig)]
    unknown = sorted(changes.keys() - set(known))
    if unknown:
        raise ConfigError(f"additional_config has unknown {PLUGIN}.{unknown[0]}; known are {', '.join(known)}")
    config = PluginConfig(**asdict(served.plugin) | changes)
    if config.masks > served.num_masks:
        raise ConfigError(
            f"{config.masks} masks were asked for and the adapter was trained with {served.num_masks}; ask for at most "
            f"{served.num_masks}"
        )
    return PluginConfig(**asdict(config) | {"masks": config.masks or served.num_masks})


def engine_arguments(folder: str | Path, **changes: Any) -> dict[str, Any]:
    """What vLLM takes for a served copy, as in `LLM(**engine_arguments("served"))`; `changes` to `PluginConfig`.

    Raises ArtefactError, ConfigError.
    """
    folder = Path(folder).resolve()
    served = read(folder)
    masks = plugin_config(served, changes).masks
    rows = 2 * masks + 1
    if served.draft_for:
        require(changes.keys() <= {"masks"}, f"{folder} is a draft model, of which only masks can be changed")
        return _draft_arguments(folder, served, masks)
    more = {"additional_config": {PLUGIN: changes}} if changes else {}
    return {
        "model": str(folder),
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": lora_rank(served.rank),
        "lora_target_modules": list(served.linears),
        "speculative_config": {"method": "custom_class", "model": PROPOSER, "num_speculative_tokens": rows - 1},
        # vLLM's own default lets in more requests than fit with all their drafts and masks, and then refuses to start.
        "max_num_seqs": max(LEAST_BATCH_ROWS // rows, 1),
        **more,
    }


def _draft_arguments(folder: Path, served: Manifest, masks: int) -> dict[str, Any]:
    """The folder twice: as its base alone, and with the adapter as vLLM's parallel draft model."""
    drafts = masks + 1
    return {
        "model": str(folder),
        "hf_overrides": {"architectures": [served.draft_for]},
        "speculative_config": {
            "method": "draft_model",
            "model": str(folder),
            "num_speculative_tokens": drafts,
            "parallel_drafting": True,
        },
        "max_num_seqs": max(LEAST_BATCH_ROWS // (2 * drafts + 1), 1),
    }


def command_arguments(arguments: dict[str, Any]) -> list[str]:
    """The same, as words of vLLM's command line."""
    words: list[str] = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def lora_rank(rank: int) -> int:
    """The least `max_lora_rank` of vLLM that takes an adapter of `rank`. Raises ConfigError."""
    for known in RANKS:
        if rank <= known:
            return known
    raise ConfigError(
        f"the adapter has rank {rank} and vLLM's LoRA takes at most {RANKS[-1]}; make it smaller: foresay compress"
    )
