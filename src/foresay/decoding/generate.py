"""Generation: prompts in, answers out, through one session or, where calls must not be shared, several."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral

from foresay.decoding.config import DecodeConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.planners import Planners
from foresay.decoding.session import Session
from foresay.decoding.steps import Generation
from foresay.foundation.errors import PromptError
from foresay.models.drafting import DraftingModel


def generate(
    model: DraftingModel, prompts: Sequence[Sequence[int]], config: DecodeConfig, how: GenerationHooks | None = None
) -> list[Generation]:
    """Continuations of `prompts` (token ids): what plain decoding would say, or, sampled, say with the same chance.

    Where the layout is `planned` and what steps cost was never measured, that is done between them, and until it is
    known they are plain ones. Raises PromptError for prompts that cannot be served; nothing is left behind by a refused
    or broken call.
    """
    check_prompts(model, prompts, config)
    how = how or GenerationHooks()
    prepare(model, config)
    done: dict[int, Generation] = {}
    if config.layout == "planned" and how.planner is None:
        how = replace(how, planner=Planners(model, config.masks))
    for group in _groups(model, prompts, config):
        session = Session(model, [prompts[index] for index in group], config, how.chooser(group), how, group)
        while session.live:
            for index, step in session.step():
                how.watch(index, step)
            if isinstance(how.planner, Planners):
                how.planner.between_steps(session.hold)
        done |= session.done
    return [done[index] for index in range(len(prompts))]


def in_batches(
    model: DraftingModel, prompts: Sequence[Sequence[int]], config: DecodeConfig, batch_size: int
) -> Iterator[Generation]:
    """As `generate`, greedy, so many prompts at once; one by one, in order."""
    for start in range(0, len(prompts), batch_size):
        yield from generate(model, prompts[start : start + batch_size], config)


def prepare(model: DraftingModel, config: DecodeConfig) -> None:
    """Set what sessions with these settings share. Raises ConfigError where steps cannot be compiled."""
    model.record_steps(config.graphs)
    model.compile_steps(config.compile)
    model.shortlist = config.shortlist_size(model.base.vocabulary)


def check_prompts(model: DraftingModel, prompts: Sequence[Sequence[int]], config: DecodeConfig) -> None:
    """Raise PromptError for what cannot be served."""
    if not prompts:
        raise PromptError("no prompt was given; give at least one")
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise PromptError(f"prompt {number} has no tokens; give at least one")
        if len(prompt) >= model.base.context:
            raise PromptError(
                f"prompt {number} has {len(prompt)} tokens and the base's context is {model.base.context}; shorten it "
                f"to {model.base.context - 1} or fewer"
            )
        broken = next((token for token in prompt if not isinstance(token, Integral)), None)
        if broken is not None:
            raise PromptError(f"prompt {number} has token {broken!r}, which is no whole number; give token ids")
        known = model.base.embedding.weight.shape[0]
        strange = min(prompt) if min(prompt) < 0 else max(prompt)
        if not 0 <= strange < known:
            raise PromptError(
                f"prompt {number} has token {strange} and the base knows 0 to {known - 1}; use the base's own tokenizer"
            )
    if config.masks > model.config.drafts:
        raise PromptError(
            f"{config.masks} masks were asked for and the adapter was trained with {model.config.drafts}; ask for "
            f"at most {model.config.drafts}"
        )


def _groups(model: DraftingModel, prompts: Sequence[Sequence[int]], config: DecodeConfig) -> list[list[int]]:
    """Prompts that go through shared calls: all, or each alone.

    Alone when sequences could stand on both sides of a limit, where a shared call would change the shorter ones.
    """
    shortest, longest = min(map(len, prompts)), max(map(len, prompts)) + config.max_new_tokens
    indices = list(range(len(prompts)))
    straddling = any(shortest <= limit < longest for limit in model.base.limits[:-1])
    return [[index] for index in indices] if straddling else [indices]
