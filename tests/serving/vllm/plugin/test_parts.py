"""Parts of the plugin that need vLLM's names but no engine."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ConfigError
from foresay.serving.config import PluginConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.plugin import checks as guard
from foresay.serving.vllm.plugin import cpu_fixes as cpu
from foresay.serving.vllm.plugin import versions


def engine_config(**changes: Any) -> Any:
    """What vLLM hands to a proposer, as far as it is looked at."""
    parts: dict[str, dict[str, Any]] = {
        "lora_config": {"max_lora_rank": 16},
        "parallel_config": {"pipeline_parallel_size": 1},
        "speculative_config": {"num_speculative_tokens": 16},
    }
    for name, values in changes.items():
        parts[name] = values
    return SimpleNamespace(**{name: values and SimpleNamespace(**values) for name, values in parts.items()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora_config": None}, "give --enable-lora"),
        ({"lora_config": {"max_lora_rank": 8}}, "max_lora_rank is 8 and the adapter has rank 16"),
        ({"parallel_config": {"pipeline_parallel_size": 2}}, "pipeline parallel was never tried"),
        ({"speculative_config": {"num_speculative_tokens": 8}}, "give 16: 8 drafts and as many masks"),
    ],
)
def test_a_start_that_cannot_work_is_refused_in_words(changes: dict[str, Any], reason: str, nano_copy: Path) -> None:
    said, plugin = served.read(nano_copy), PluginConfig(masks=8)
    guard.check_engine(engine_config(), said, plugin)
    with pytest.raises(ConfigError, match=reason):
        guard.check_engine(engine_config(**changes), said, plugin)
    with pytest.raises(ConfigError, match="holds a draft model"):
        guard.check_engine(engine_config(), replace(said, draft_for="LlamaForCausalLM"), plugin)


def test_a_runner_with_other_methods_is_refused(nano_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {guard.InputBatch: {"make_lora_inputs": ["self", "something_else"]}}
    monkeypatch.setattr(guard, "USED", changed)
    with pytest.raises(ConfigError, match="needs vLLM's V1 model runner"):
        guard.check_engine(engine_config(), served.read(nano_copy), PluginConfig(masks=8))


def test_this_vllm_was_tested() -> None:
    assert versions.found() in versions.TESTED


def test_lora_on_cpu_leaves_rows_without_an_adapter_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 5, generator=generator)
    down, up = torch.randn(2, 1, 3, 5, generator=generator), torch.randn(2, 1, 4, 3, generator=generator)
    indices = torch.tensor([0, -1, 1, -1, 0, 1])
    narrow, before = torch.full((6, 3), 9.0), torch.randn(6, 7, generator=generator)
    cpu.shrink(inputs, down, narrow, indices, 0.5)
    after = before.clone()
    cpu.expand_slice(narrow, up, after, indices, 2, 4)
    for row, slot in enumerate(indices.tolist()):
        wanted = before[row].clone()
        if slot >= 0:
            wanted[2:6] += up[slot, 0] @ (0.5 * down[slot, 0] @ inputs[row])
        torch.testing.assert_close(after[row], wanted)
    whole = before[:, :4].clone()
    cpu.expand(narrow, up, whole, indices)
    torch.testing.assert_close(whole - before[:, :4], (after - before)[:, 2:6])


def test_lora_of_joined_linears_on_cpu_takes_each_rows_own_adapter() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes, indices = (4, 2), torch.tensor([0, -1, 1, -1, 0, 1, 9, 9])  # what stands behind the rows is of a former step
    inputs, before = torch.randn(6, 5, generator=generator), torch.randn(6, 6, generator=generator)
    downs = [torch.randn(2, 1, 3, 5, generator=generator) for _ in sizes]
    ups = [torch.randn(2, 1, size, 3, generator=generator) for size in sizes]
    after = before.clone()
    cpu.add_lora_linear(SimpleNamespace(_token_lora_indices=indices), after, inputs, downs, ups, 0.5, sizes)
    for row, slot in enumerate(indices[:6].tolist()):
        pairs = zip(downs, ups)
        added = torch.cat([0.5 * up[slot, 0] @ down[slot, 0] @ inputs[row] for down, up in pairs])
        torch.testing.assert_close(after[row], before[row] + (added if slot >= 0 else 0.0))


def test_temperatures_reach_every_row_on_cpu() -> None:
    found = cpu.expand_batch_to_tokens(torch.tensor([0.0, 0.7, 1.5]), torch.tensor([2, 2, 5]), 5, 0, 1)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 1.5, 1.5, 1.5]))
    assert cpu.expand_batch_to_tokens(torch.tensor([4]), torch.tensor([3]), 3).tolist() == [4, 4, 4]


def test_a_copy_of_another_adapter_is_refused(nano_copy: Path) -> None:
    """Masks' rows are compared when the model is loaded."""
    from foresay.serving.vllm.plugin.sampler_chain import Chain  # noqa: PLC0415 - imports vLLM

    target = torch.nn.Module()
    target.embedding = torch.nn.Embedding(4104, 256)
    target.embed_input_ids = target.embedding
    target.compute_logits = lambda states: states
    said = served.read(nano_copy)
    with pytest.raises(Exception, match="differ from the adapter's masks"):
        guard.check_target(target, Chain(target, nano_copy / served.ADAPTER, said))
    with pytest.raises(Exception, match="not the adapter that its folder was exported with"):
        Chain(target, nano_copy / served.ADAPTER, replace(said, fingerprints=said.fingerprints | {"base": "other"}))
    target.logits_processor = SimpleNamespace(base_layer=None)
    with pytest.raises(ConfigError, match="LoRA was attached to logits_processor"):
        guard.check_target(target, Chain(target, nano_copy / served.ADAPTER, said))


def target_with_head(vocabulary: int, width: int) -> Any:
    """As much of vLLM's model as a shortlist looks at; its logits are scaled and capped."""
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod  # noqa: PLC0415

    weight = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(1)) / width**0.5
    target = torch.nn.Module()
    target.embedding = torch.nn.Embedding.from_pretrained(weight)
    target.embed_input_ids = target.embedding
    target.lm_head = SimpleNamespace(weight=weight, quant_method=UnquantizedEmbeddingMethod(), tp_size=1, bias=None)
    target.logits_processor = SimpleNamespace(soft_cap=3.0, scale=0.5, head_dtype=None)
    target.compute_logits = lambda states: 0.5 * 3.0 * ((states @ weight.t()) / 3.0).tanh()
    return target


def test_a_shortlist_reads_a_large_head_that_is_whole_and_plain() -> None:
    from foresay.serving.vllm.plugin.shortlist import Shortlist  # noqa: PLC0415 - imports vLLM

    target = target_with_head(20_000, 8)
    assert Shortlist(target, 20_000).size == DecodeConfig().shortlist_size(20_000) > 0
    assert Shortlist(target, 4_096).size == 0
    for changes in ({"tp_size": 2}, {"quant_method": object()}, {"weight": torch.zeros(0)}, {"bias": torch.zeros(8)}):
        target.lm_head = SimpleNamespace(**vars(target_with_head(20_000, 8).lm_head) | changes)
        assert Shortlist(target, 20_000).size == 0
    assert Shortlist(torch.nn.Module(), 20_000).size == 0


def test_drafts_from_a_shortlist_have_vllms_own_logits(nano_copy: Path) -> None:
    from foresay.serving.vllm.plugin.sampler_chain import Chain  # noqa: PLC0415 - imports vLLM

    generator = torch.Generator().manual_seed(0)
    target, said = target_with_head(4104, 256), served.read(nano_copy)
    chain = Chain(target, nano_copy / served.ADAPTER, said)
    states, newest = torch.randn(3, 8, 256, generator=generator), torch.tensor([5, 6, 7])
    drafts, chances = chain.guess(states, newest)
    # Those that would have been drafted, at any place among others.
    others = torch.randint(said.first_mask, (3, 8, 63), generator=generator)
    lists = torch.cat((others, torch.tensor(drafts)[..., None]), dim=2)
    lists = lists[..., torch.randperm(64, generator=generator)]
    found, surer = chain.guess(states, newest, lists)
    assert found == drafts
    assert (torch.tensor(surer) > torch.tensor(chances)).all()
    whole = target.compute_logits(states[:, 0])
    torch.testing.assert_close(chain.shortlist.logits(states[:, 0], lists[:, 0]), whole.gather(1, lists[:, 0]))


def test_a_draft_models_pair_adds_each_linears_own_product_to_masks_alone() -> None:
    """Three linears that vLLM joined in one, of which the adapter changes two."""
    from foresay.serving.vllm.plugin.draft_model import Pair  # noqa: PLC0415 - imports vLLM's models

    generator = torch.Generator().manual_seed(0)
    joined = torch.nn.Linear(5, 12, bias=False)
    joined.output_sizes = [6, 4, 2]
    first, last = (
        (torch.randn(3, 5, generator=generator), torch.randn(size, 3, generator=generator)) for size in (6, 2)
    )
    gate = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0])[:, None]
    joined.register_forward_hook(Pair(joined, [first, None, last], gate))
    states = torch.randn(4, 5, generator=generator)
    plain, changed = states @ joined.weight.t(), joined(states)
    added = [states @ down.t() @ up.t() * gate[:4] for down, up in (first, last)]
    torch.testing.assert_close(changed - plain, torch.cat((added[0], torch.zeros(4, 4), added[1]), dim=1))


def test_a_draft_models_masks_count_from_each_run() -> None:
    from foresay.serving.vllm.plugin.draft_model import DraftModel  # noqa: PLC0415 - imports vLLM's models

    runs = torch.tensor([0, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1]).bool()
    found = DraftModel._offsets(SimpleNamespace(masks=torch.zeros(4, 2)), runs)
    assert found[runs].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3, 3]
    assert not found[~runs].any()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"method": "custom_class", "model": served.PROPOSER}, True),
        ({"model": "someone/elses"}, False),
        ({"method": "ngram", "model": "ngram"}, False),
        ({"draft_sample_method": "probabilistic"}, False),
    ],
)
def test_what_must_come_is_drafted_where_drafts_are_ours_and_not_under_way(
    changes: dict[str, Any], wanted: bool, nano_copy: Path
) -> None:
    from foresay.serving.vllm.plugin.grammar_masks import may_force  # noqa: PLC0415 - imports vLLM

    usual = {"method": "draft_model", "model": str(nano_copy), "draft_sample_method": "greedy"}
    for asynchronous in (False, True):
        config = {"speculative_config": usual | changes, "scheduler_config": {"async_scheduling": asynchronous}}
        assert may_force(engine_config(**config)) is (wanted and not asynchronous)


def test_a_grammar_has_begun_when_it_read_a_token() -> None:
    from foresay.serving.vllm.plugin.grammar_masks import has_begun  # noqa: PLC0415 - imports vLLM

    for ended, wanted in ((None, False), (False, False), (True, True)):
        held = SimpleNamespace(
            use_structured_output=True, structured_output_request=SimpleNamespace(reasoning_ended=ended)
        )
        assert has_begun(held) is wanted, "before that the request may still be reasoning"
    assert not has_begun(SimpleNamespace(use_structured_output=False, structured_output_request=None))
