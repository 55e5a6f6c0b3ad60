"""The same on real weights: trained for seconds, every answer is still the base's own, and in fewer steps."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.metrics import Tally, tally
from foresay.foundation.names import NANO
from foresay.model import MultiTokenModel
from foresay.models.base.load import NANO_FOLDER, load_base
from foresay.models.config import MTPConfig
from foresay.training.config import TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.train import train
from tests.support.checks import DISTINCT

PROMPTS = 20
NEW = 64
BATCH = 10
LENGTH = 160
MTP = MTPConfig(num_masks=3, rank=32)
TRAIN = TrainConfig(
    dtype="float32", steps=25, sequences=4, anchors=16, warmup_steps=3, learning_rate=3e-3, max_length=LENGTH, heldout=0
)

Prompt = tuple[int, ...]


def digest(model: PreTrainedModel) -> str:
    """A hash of every value of a model."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def own_answers(base: PreTrainedModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """What transformers' greedy `generate` says to each prompt alone, on a base that nobody touched."""
    stop = base.generation_config.eos_token_id
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        text = base.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
        answers.append(text[0, len(prompt) :].tolist())
        assert len(answers[-1]) == NEW or answers[-1][-1] == stop
    return answers


def check_real_weights(base: str, data: Path, prompts: Sequence[Prompt], out: Path) -> None:
    """Train, save, load, decode in ragged batches: identical, and in fewer steps the more masks there are."""
    assert len(prompts) == PROMPTS
    assert all(len(set(map(len, prompts[start : start + BATCH]))) > BATCH // 2 for start in range(0, PROMPTS, BATCH))
    untouched = load_base(base, "float32")
    before = digest(untouched)
    own = own_answers(untouched, prompts)
    assert len({token for answer in own for token in answer}) >= DISTINCT, "loops prove nothing"
    trained = train(Recipe(base, (data,), out, MTP, train=TRAIN), lambda news: None).model
    assert digest(trained.base.model) == before, "training changed the base"
    model = MultiTokenModel.from_pretrained(out, dtype="float32")
    linear, quadratic, tree = (decode(model, prompts, own, layout) for layout in ("linear", "quadratic", "tree"))
    assert digest(model.base.model) == before, "decoding changed the base"
    assert tree.tokens_per_step > quadratic.tokens_per_step > linear.tokens_per_step > 1, (tree, quadratic, linear)


def decode(model: MultiTokenModel, prompts: Sequence[Prompt], own: list[list[int]], layout: LayoutName) -> Tally:
    """Batch by batch; every answer is the base's own."""
    config = DecodeConfig(layout=layout, max_new_tokens=NEW)
    said = [
        generation
        for start in range(0, len(prompts), BATCH)
        for generation in model.decode(prompts[start : start + BATCH], config)
    ]
    same = sum(generation.tokens == answer for generation, answer in zip(said, own, strict=True))
    assert same == PROMPTS, f"{layout}: {same} of {PROMPTS} identical"
    return tally(said)


def test_nano(tmp_path: Path) -> None:
    lines = (NANO_FOLDER / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    heldout = lines[:: len(lines) // PROMPTS][:PROMPTS]
    rows = [json.loads(line) for line in heldout]
    data = tmp_path / "demo.jsonl"
    data.write_text("\n".join(line for line in lines if line not in heldout), encoding="utf-8")
    prompts = [tuple(row["ids"][: max(row["prompt_tokens"], 12)]) for row in rows]
    check_real_weights(NANO, data, prompts, tmp_path / "adapter")


def test_tiny_stories(tmp_path: Path) -> None:
    folder = os.environ.get("FORESAY_DATA")
    base = Path(folder or "", "models", "TinyStories-656K")
    if not folder or not base.is_dir():
        pytest.skip("TinyStories-656K is not here: set FORESAY_DATA to the folder that holds models/TinyStories-656K")
    text = Path(folder, "text", "tinystories_2M.txt").read_text(encoding="utf-8")[:260_000]
    model = MultiTokenModel.from_base(str(base), MTPConfig(num_masks=1, rank=1), dtype="float32")
    stories = [story.strip() for story in text[200_000:].split("<|endoftext|>")[1:-1]]
    ids = [model.require_tokenizer()(story)["input_ids"] for story in stories]
    prompts = [tuple(tokens[: 6 + 7 * place % 60]) for place, tokens in enumerate(ids[:PROMPTS])]
    data = tmp_path / "stories.txt"
    data.write_text(text[:200_000], encoding="utf-8")
    check_real_weights(str(base), data, prompts, tmp_path / "adapter")
