"""Models from random weights: they learn, go on exactly, and are ordinary checkpoints with heads beside them."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from foresay.cli.main import main
from foresay.decoding.step_costs import menu_of
from foresay.evaluation.baseline import plain_answer
from foresay.foundation.errors import ArtefactError, ConfigError, DataError, ForesayError
from foresay.model import MultiTokenModel
from foresay.models.base.untrained import byte_tokenizer
from foresay.models.config import HeadsConfig
from foresay.training.loop.checkpoint import Checkpoints
from foresay.training.pretrain import pretrain
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.pretrain_run import PretrainUpdate
from tests.support.logged import events
from tests.support.pretraining import (
    LLAMA,
    STEPS,
    VARIANTS,
    data,
    design,
    held_in,
    recipe,
    run,
    same,
    trained,
    weights,
)
from tests.support.processes import killed_often, killed_until_done

__all__ = ["data", "design", "trained"]


def test_bytes_are_tokens(tmp_path: Path) -> None:
    text = "naïve <tag>\n\t日本 🙂\x00"
    byte_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert len(tokenizer) == 259
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.apply_chat_template(chat, return_dict=False) == [257, 97, 258, 98, 256]


def test_a_model_learns(design: Path, data: Path, tmp_path: Path) -> None:
    asked = recipe(design, data, tmp_path / "out", steps=60, eval_every=1, save_every=0)
    told: list[PretrainUpdate] = []
    done = pretrain(asked, told.append)
    assert told[0].bits_per_byte.keys() <= {"numbers", "chat"}
    for domain, bits in done.last.bits_per_byte.items():
        assert bits < 0.7 * told[0].bits_per_byte[domain], domain
    assert told[-1].progress.losses.total == told[-1].progress.losses.base < 0.7 * told[0].progress.losses.total
    assert done.tokens_per_step == {}
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "a finished run leaves its model alone"


@pytest.mark.parametrize("heads", [HeadsConfig(), *VARIANTS], ids=str)
def test_the_checkpoint_is_an_ordinary_one(heads: HeadsConfig, design: Path, data: Path, tmp_path: Path) -> None:
    """Plain transformers loads trunk and head 1 and says what foresay says, several tokens a step."""
    out = tmp_path / "out"
    done = pretrain(recipe(design, data, out, heads, steps=40, save_every=0))
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    model = MultiTokenModel.from_pretrained(out)
    assert plain.config.num_hidden_layers == {"anticausal": 5, "linear": 5}.get(heads.variant, 6 - heads.heads)
    assert done.parameters == sum(tensor.numel() for tensor in weights(out).values())
    for text in ("1 2 3", "Say"):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        own = plain.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :].tolist()
        assert plain_answer(model, ids[0].tolist(), 24) == own
        for layout in ("quadratic", "planned"):
            said = model.generate(ids, do_sample=False, max_new_tokens=24, layout=layout)
            assert said[0, ids.shape[1] :].tolist() == own
    assert bool(done.tokens_per_step) == (heads.heads > 1)
    assert max(done.tokens_per_step.values(), default=2) > 1.2, "it drafts"
    said = "with 3 output heads" if heads.heads > 1 else "with one output head"
    assert said in " ".join((out / "README.md").read_text().split())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("heads", [HeadsConfig(), VARIANTS[1]], ids=["one head", "causal heads"])
def test_a_stopped_run_goes_on_exactly(
    heads: HeadsConfig, optimizer: str, design: Path, data: Path, tmp_path: Path
) -> None:
    whole = run(recipe(design, data, tmp_path / "whole", heads, optimizer=optimizer))
    asked = recipe(design, data, tmp_path / "out", heads, optimizer=optimizer)
    run(asked, stop=8)
    torch.manual_seed(1)
    told = run(asked)
    assert list(told) == list(range(7, STEPS + 1)), "it begins after the last checkpoint"
    assert told == {step: whole[step] for step in told}
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def killed(asked: PretrainRecipe, log: Path) -> None:
    """The run that is killed."""

    def watch(reading: PretrainUpdate) -> None:
        with log.open("a") as file:
            file.write(f"{reading.progress.step} {reading.progress.losses!r}\n")

    pretrain(asked, watch)


def test_killed_runs_lose_nothing(design: Path, data: Path, tmp_path: Path) -> None:
    whole = run(recipe(design, data, tmp_path / "whole" / "out", VARIANTS[0]))

    def begin(folder: Path, chance: random.Random) -> int:
        asked = recipe(design, data, folder / "out", VARIANTS[0])
        return killed_until_done(asked.out, folder / "log", chance, killed, asked, folder / "log")

    for folder in killed_often(tmp_path, begin):
        for step, said in (line.split(" ", 1) for line in (folder / "log").read_text().splitlines()):
            assert said == whole[int(step)]
        assert same(weights(folder / "out"), weights(tmp_path / "whole" / "out"))
        assert not (folder / "out.run").exists()


def test_a_run_killed_behind_its_last_act_only_finishes(
    design: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is there, and so is the state."""
    asked = recipe(design, data, tmp_path / "out")

    def stopped(checkpoints: Checkpoints) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "remove", stopped)
        with pytest.raises(KeyboardInterrupt):
            pretrain(asked)
    before = weights(tmp_path / "out")
    pretrain(asked)
    assert same(weights(tmp_path / "out"), before)
    with pytest.raises(ArtefactError, match="--overwrite"):
        pretrain(asked)


@pytest.mark.parametrize("stop", [0, 8])
def test_figures_are_logged(stop: int, design: Path, data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    asked = recipe(design, data, tmp_path / "out", VARIANTS[0], tracker="tensorboard", eval_every=5)
    if stop:
        run(asked, stop)
    done = pretrain(asked, told=told.append)
    assert told[-1] == f"figures are logged; see them with: tensorboard --logdir {tmp_path / 'out.tensorboard'}"
    [own] = (tmp_path / "out.tensorboard").iterdir()
    found = events(own)
    steps = list(range(1, STEPS + 1))
    for name in ("loss/head_1", "loss/total", "learning_rate", "gradient_norm", "tokens_per_second"):
        assert [step for step, _ in found[name]] == steps, name
    assert found["loss/total"][-1][1] == pytest.approx(done.last.progress.losses.total)
    for domain, value in done.last.bits_per_byte.items():
        assert [step for step, _ in found[f"bits_per_byte/{domain}"]] == [5, 10, 12]
        assert found[f"bits_per_byte/{domain}"][-1][1] == pytest.approx(value)


def test_another_run_is_refused(design: Path, data: Path, tmp_path: Path) -> None:
    asked = recipe(design, data, tmp_path / "out")
    run(asked, stop=4)
    with pytest.raises(ArtefactError, match="heads was 1, is 2; go on as it was begun"):
        run(replace(asked, heads=HeadsConfig(heads=2)))
    assert min(run(replace(asked, heads=HeadsConfig(heads=2), restart=True))) == 1


def test_chunks_change_nothing(design: Path, data: Path, tmp_path: Path) -> None:
    for rows in (0, 1, 2):
        run(recipe(design, data, tmp_path / str(rows), VARIANTS[0], chunk_rows=rows))
    whole = weights(tmp_path / "0")
    for rows in (1, 2):
        for name, tensor in weights(tmp_path / str(rows)).items():
            torch.testing.assert_close(tensor, whole[name], atol=1e-4, rtol=1e-3, msg=name)


# What belongs together.


def test_heads_are_saved_as_they_are(trained: Path, tmp_path: Path) -> None:
    model = MultiTokenModel.from_pretrained(trained)
    model.save_pretrained(tmp_path / "copy")
    again = MultiTokenModel.from_pretrained(tmp_path / "copy")
    assert again.config == VARIANTS[0]
    assert again.acceptance == model.acceptance != ()
    assert same(dict(model.added.state_dict()), dict(again.added.state_dict()))


@pytest.mark.parametrize("broken", ["another trunk", "no heads", "misshapen", "unknown family"])
def test_a_broken_folder_is_refused(broken: str, trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "foresay.json").read_text())
    match broken:
        case "another trunk":
            tensors = load_file(tmp_path / "model.safetensors")
            tensors["model.norm.weight"] += 1
            save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
            message = r"was trained on \. with base \w+, and .* has \w+; give the base it was trained on"
        case "no heads":
            (tmp_path / "foresay.safetensors").unlink()
            message = "foresay.safetensors is missing or damaged"
        case "misshapen":
            (tmp_path / "foresay.json").write_text(json.dumps(settings | {"mtp": settings["mtp"] | {"heads": 4}}))
            message = "disagree on 9 tensors"
        case _:
            (tmp_path / "foresay.json").write_text(json.dumps(settings | {"family": "hats"}))
            message = "names family 'hats'"
    with pytest.raises(ArtefactError, match=message):
        MultiTokenModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("verb", "flags", "message"),
    [
        ("compress", ["--rank", "2"], "drafts with heads, and this works on adapters"),
        ("export", ["--to", "peft"], "has heads, and PEFT takes the LoRA of an adapter with masks"),
        ("export", ["--to", "vllm"], "has heads, and the plugin for vLLM runs masks"),
    ],
)
def test_what_works_on_adapters_only_says_so(
    verb: str, flags: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(trained), *flags, "--out", str(tmp_path / "small")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_verbs_that_decode_take_heads(dtype: str, trained: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"text": "{text}"}}\n' for text in ("1 2 3", "4 5 6 7", "Say yes")))
    asked = [str(trained), "--prompts", str(prompts), "--max-new-tokens", "12", "--dtype", dtype]
    some = ["--batch-sizes", "1", "3"]
    assert main(["check", *asked, *some, "--layouts", "quadratic", "tree", "--shift", "0.5"]) == 0
    assert main(["check", *asked, *some, "--layouts", "planned", "--temperature", "0"]) == 0  # chosen by a clock
    assert main(["bench", *asked, "--repeats", "1"]) == 0
    assert main(["eval", *asked]) == 0
    assert main(["info", str(trained), "--json"]) == 0


def test_one_head_has_no_acceptance(
    design: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(recipe(design, data, tmp_path / "out", save_every=0))
    assert main(["eval", str(tmp_path / "out")]) == 2
    assert "the model has one head and drafts nothing, so there is no acceptance" in capsys.readouterr().err


def test_added_layers_leave_the_trunk_as_it_is(design: Path, data: Path, tmp_path: Path) -> None:
    """The paper's "+layers": the ordinary model keeps all its layers, heads come on top."""
    pretrain(recipe(design, data, tmp_path / "out", VARIANTS[0], added_layers=True, save_every=0))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == LLAMA["num_hidden_layers"]
    assert len(held_in(tmp_path / "out").heads.layers) == 2


def test_eight_heads_on_bytes_are_saved_and_opened(data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": 9}))
    pretrain(recipe(tmp_path / "config.json", data, tmp_path / "out", HeadsConfig(heads=8), save_every=0))
    model = MultiTokenModel.from_pretrained(tmp_path / "out")
    ids = torch.tensor([list(b"1 2 3")])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generate(ids, do_sample=False, max_new_tokens=24)
    assert torch.equal(model.generate(ids, do_sample=False, max_new_tokens=24, layout="quadratic"), plain)
    assert [entry.label for entry in menu_of(model.heads_model)] == [
        "plain",
        *(f"quadratic {masks}" for masks in range(1, 8)),
        "lookup 8",
    ]


# Bad use.


@pytest.mark.parametrize(
    ("heads", "changes", "message"),
    [
        (HeadsConfig(heads=5), {}, "5 heads were asked for and the config has 5 layers, so no trunk would be left"),
        (HeadsConfig(heads=5, variant="anticausal"), {}, "no trunk would be left; ask for at most 4 heads"),
        (HeadsConfig(), {"length": 65}, "length is 65 and the config's model reads 64 tokens"),
        (HeadsConfig(heads=4), {"length": 4, "batch_tokens": 4}, "length is 4 for 4 heads; give longer rows"),
    ],
)
def test_what_cannot_be_is_refused(
    heads: HeadsConfig, changes: dict[str, Any], message: str, design: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(recipe(design, data, tmp_path / "out", heads, **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"vocab_size": 100}, "the tokenizer has 259 tokens and the config's vocab_size is 100"),
        ({"model_type": "t5"}, "no causal LM can be made from the config"),
        ({"model_type": "mamba", "state_size": 4}, "keeps a recurrent state"),
        ({"hidden_size": 33}, "no causal LM can be made from the config|does not take explicit rows"),
        (None, "names no model_type"),
    ],
    ids=str,
)
def test_bad_configs_are_refused(said: dict[str, Any] | None, message: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({} if said is None else LLAMA | said))
    with pytest.raises(ForesayError, match=message):
        run(recipe(path, data, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_is_read_is_not_written_over(trained: Path, design: Path, data: Path, tmp_path: Path) -> None:
    before = weights(trained)
    with_comma = tmp_path / "out" / "a,b.jsonl"
    with_comma.parent.mkdir()
    with_comma.write_bytes(data.read_bytes())
    for asked in (
        replace(recipe(trained, data, trained, VARIANTS[0], continued=True), overwrite=True),
        replace(recipe(design, data, data.parent), overwrite=True),
        replace(recipe(design, with_comma, with_comma.parent), overwrite=True),
    ):
        with pytest.raises(ArtefactError, match="which is read, lies there; give another folder"):
            pretrain(asked)
    assert same(weights(trained), before)
    assert data.exists()
    assert with_comma.exists()


def test_a_file_brings_no_tokenizer(design: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="brings no tokenizer; give --tokenizer"):
        run(replace(recipe(design, data, tmp_path / "out"), tokenizer=""))
    with pytest.raises(DataError, match="less than one row"):
        run(short(design, tmp_path))


def short(design: Path, folder: Path) -> PretrainRecipe:
    path = folder / "short.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    return recipe(design, path, folder / "out", length=64, batch_tokens=64, heldout=1)


def test_the_command(design: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text("heads: 2\nsteps: 3\nlength: 16\nbatch_tokens: 32\nheldout: 2\n")
    out = tmp_path / "out"
    common = ["--data", str(data), "--out", str(out), "--tokenizer", "bytes", "--config", str(tmp_path / "small.yaml")]
    assert main(["pretrain", str(design), *common, "--steps", "2", "--json"]) == 0
    printed = capsys.readouterr()
    assert "shards" not in printed.err, "transformers' own bars stay silent"
    said = json.loads(printed.out)
    assert said["steps"] == 2
    assert said["folder"] == str(out)
    assert said["losses"]["total"] > said["losses"]["base"] > 0
    assert main(["generate", str(out), "1 2", "--raw", "--max-new-tokens", "8", "--layout", "quadratic"]) == 0
    assert main(["pretrain", str(design), *common]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
