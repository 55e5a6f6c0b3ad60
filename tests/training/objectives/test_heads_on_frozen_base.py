"""Heads on a frozen base: what each row learns, and that the base stays what it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from foresay.cli.main import main
from foresay.data.example import Example
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.distributed import ALONE
from foresay.training.objectives.batches import collate
from foresay.training.objectives.heads_on_frozen_base import RetrofitObjective
from foresay.training.recipe import Recipe
from foresay.training.train import train
from tests.support.toys import LLAMA, random_prompts, redraw

TEXTS = random_prompts((12, 9, 7))
EXAMPLES = [Example(text, tuple(place >= 4 for place in range(len(text)))) for text in TEXTS]


@pytest.mark.parametrize("variant", ["parallel", "causal", "linear"])
@pytest.mark.parametrize("target", ["label", "base_argmax"])
def test_rows_learn_what_comes_later(variant: str, target: str) -> None:
    """Each head's mean over the rows whose later token is part of an answer, text by text, by a plain forward."""
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=3, variant=variant))  # type: ignore[arg-type]
    redraw(model.heads, 1)
    losses = LossConfig(target=target, kl_weight=0.5, position_weights=(1.0, 0.25))  # type: ignore[arg-type]
    objective = RetrofitObjective(model, EXAMPLES, TrainConfig(), losses)
    batch = collate(EXAMPLES, 1, torch.Generator(), model.base.device)
    paid = objective.step(batch, 1, ALONE)
    expected, counts = {2: 0.0, 3: 0.0}, {2: 0, 3: 0}
    for example in EXAMPLES:
        ids = torch.tensor([example.ids])
        points, call = model.points(ids, cut=False)
        states = {point.head: point.made for point in points} | dict(model.branches(points[0].made, call))
        with torch.no_grad():
            base = model.model(ids).logits[0]
        for head in (2, 3):
            logits = model.logits(head, model.tail(states[head]))[0]
            for row in range(len(example.ids) - head):
                if not example.answer[row + head]:
                    continue
                wanted = ids[0, row + head] if target == "label" else base[row + head - 1].argmax()
                p = base[row + head - 1].softmax(-1)
                cost = functional.cross_entropy(logits[row], wanted)
                cost = cost + 0.5 * (p * (p.log() - logits[row].log_softmax(-1))).sum()
                expected[head] += cost.item()
                counts[head] += 1
    wanted_total = expected[2] / counts[2] + 0.25 * expected[3] / counts[3]
    assert paid.total == pytest.approx(wanted_total, rel=1e-5)
    assert all(parameter.grad is not None for parameter in model.heads.parameters())
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_heads_are_trained_on_a_base(tmp_path: Path) -> None:
    base = LLAMA.model(vocab_size=4096)
    base.save_pretrained(tmp_path / "base")
    load_tokenizer("nano").save_pretrained(tmp_path / "base")
    rows = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n + 2)))} for n in range(9)]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = TrainConfig(steps=60, sequences=4, max_length=48, heldout=2, learning_rate=1e-2, warmup_steps=5)
    asked = Recipe(
        str(tmp_path / "base"), (tmp_path / "data.jsonl",), tmp_path / "out", HeadsConfig(heads=3), train=settings
    )
    first: list[float] = []
    done = train(asked, lambda news: first.append(news.progress.losses.total))
    assert done.loss < 0.7 * first[0]
    again = MultiTokenModel.from_pretrained(tmp_path / "out")
    assert again.family == "heads"
    assert again.base_name == str(tmp_path / "base")
    for name, tensor in base.state_dict().items():
        assert torch.equal(again.base.model.state_dict()[name], tensor), name
    ids = torch.tensor([[5, 9, 2]])
    plain = base.generate(ids, do_sample=False, max_new_tokens=20)
    assert torch.equal(again.generate(ids, do_sample=False, max_new_tokens=20, layout="quadratic"), plain)
    # Its folder holds heads alone; what reads a whole model finds the base.
    assert main(["convert", str(tmp_path / "out"), "--to", "meta", "--out", str(tmp_path / "theirs")]) == 0
    on = ["--continued", "--heads", "3", "--length", "16", "--batch-tokens", "32", "--steps", "1", "--heldout", "1"]
    data = ["--data", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "on")]
    assert main(["pretrain", str(tmp_path / "out"), *data, *on]) == 0


@pytest.mark.parametrize(
    "settings", [TrainConfig(pack=True), TrainConfig(anchors=8), LossConfig(sampler_weight=0.5)], ids=str
)
def test_settings_of_masks_are_refused(settings: TrainConfig | LossConfig, tmp_path: Path) -> None:
    asked = Recipe("nano", (tmp_path / "x.jsonl",), tmp_path / "out", HeadsConfig(heads=2))
    asked = replace(asked, **{"train" if isinstance(settings, TrainConfig) else "losses": settings})
    with pytest.raises(ConfigError, match=r"is .*, and heads have no use for it; leave it out"):
        train(asked, lambda news: None)


@pytest.mark.parametrize("config", [HeadsConfig(heads=1), HeadsConfig(heads=2, variant="anticausal")])
def test_what_a_frozen_base_cannot_have_is_refused(config: HeadsConfig) -> None:
    with pytest.raises(ConfigError, match="cannot be put on a frozen base: give --heads 2 or more"):
        MultiTokenModel.from_base(LLAMA.model(num_hidden_layers=4), config)
