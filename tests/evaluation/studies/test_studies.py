"""Studies: what cells differ in, what is measured on them, and that a grid goes on where it was left."""

import json
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foresay.data.example import Example
from foresay.data.prompts import embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.evaluation.studies import STUDIES, study_called
from foresay.evaluation.studies.ablation import LADDER, ORDER, RUNGS, TOKENS
from foresay.evaluation.studies.findings import findings, lines_of, spread
from foresay.evaluation.studies.gated_lora import CHANGED, GATE, LOSS, TOTAL
from foresay.evaluation.studies.grid import MARKER, Grid, Result, check_cells, check_folder, grid_of
from foresay.evaluation.studies.inputs import StudyInputs, tokens_per_step
from foresay.evaluation.studies.lora_rank import BYTES, RANK
from foresay.evaluation.studies.loss_variants import LOSSES
from foresay.evaluation.studies.run_cell import see_dummies
from foresay.evaluation.studies.study import STARTS, Cell, Point, Study, Subject, Verdict
from foresay.evaluation.studies.token_ranks import true_ranks
from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.models.config import MTPConfig
from foresay.training.config import TrainConfig
from foresay.training.loop.progress import Progress
from foresay.training.objectives.batches import collate
from foresay.training.recipe import Recipe
from foresay.training.train import open_fresh
from tests.support.processes import start

ROWS = [{"prompt": f"Say {number}.", "response": f"I say {number}, and {number} again."} for number in range(30)]
TRAIN = TrainConfig(
    steps=4, sequences=2, anchors=4, warmup_steps=0, heldout=4, max_length=64, learning_rate=1e-2, save_every=0
)
MTP = MTPConfig(num_masks=2, rank=2, sampler="paper", train_masks=False)
START = Cell(label="start", mtp=MTP, losses=STARTS["paper"][1], train=TRAIN)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def recipe(data: Path, out: Path, **changes: Any) -> Recipe:
    return Recipe("nano", (data,), out, MTP, START.losses, replace(TRAIN, **changes))


def grid(study: Study, data: Path, out: Path, **changes: Any) -> Grid:
    """The grid that the verb would make, over two prompts."""
    asked = recipe(data, out, **changes)
    model = open_fresh(asked)
    prompts = embedded_prompts(model.require_tokenizer(), "test", 1)[:2]
    material = StudyInputs.read(asked, model, prompts, max_new_tokens=6)
    return grid_of(study, replace(START, train=asked.train), (0,), asked, material)


def run(asked: Grid, *labels: str) -> list[Result]:
    return list(asked.run(lambda run, progress: None, labels))


# A study that costs little more than its training.


def count_weights(subject: Subject) -> Any:
    yield Point(
        "sum", subject.cell.label, subject.progress.step, subject.model.mask_model.adapter.mask_embeddings.sum().item()
    )


def halves(begin: Cell) -> list[Cell]:
    return [replace(begin, label=f"rate {rate}", train=replace(begin.train, learning_rate=rate)) for rate in (0.1, 0.2)]


QUICK = Study("quick", halves, count_weights, (TOKENS,), lambda figures: Verdict("Done."))


def run_quick(data: Path, out: Path) -> None:
    """The grid that is killed: its second cell never ends."""
    for done in grid(QUICK, data, out, steps=2).run(lambda run, progress: None):
        assert done
        while True:
            time.sleep(0.1)


def test_a_killed_study_runs_only_what_is_missing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(run_quick, data, out)
    until = time.monotonic() + 200
    while not list(out.glob("rate-*.json")):
        assert process.is_alive(), "the study ended by itself"
        assert time.monotonic() < until
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    [kept] = out.glob("rate-*.json")
    before = kept.stat().st_mtime_ns
    again = grid(QUICK, data, out, steps=2)
    found = findings(again)
    assert found.missing == ("rate 0.2 (seed 0)",)
    assert found.partial == "PARTIAL: 1 of 2 cells are done; missing: rate 0.2 (seed 0)"
    assert [done.label for done in run(again)] == ["rate 0.2"]
    assert kept.stat().st_mtime_ns == before, "what was done is not done again"
    assert not findings(again).partial
    assert run(again) == []


def test_a_cell_made_otherwise_is_not_taken(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    same = grid(QUICK, data, out, steps=2)
    assert [done.label for done in run(same, "rate 0.1")] == ["rate 0.1"]
    assert [run.cell.label for run in same.missing] == ["rate 0.2"], "only what was named ran"
    begin = replace(START, train=same.runs[0].recipe.train)
    others = tmp_path / "others.jsonl"
    others.write_text("\n".join(map(json.dumps, ROWS[:-1])))
    assert len(grid(QUICK, data, out, steps=3).missing) == 2, "other settings"
    assert len(grid(QUICK, others, out, steps=2).missing) == 2, "other data"
    for change in ({"max_new_tokens": 7}, {"prompts": same.material.prompts[:1]}, {"heldout": same.material.examples}):
        material = replace(same.material, **change)
        changed = grid_of(QUICK, begin, (0,), same.runs[0].recipe, material)
        assert len(changed.missing) == 2, f"other {change}"
    renamed = replace(same.material, base=replace(same.material.base, base="another"))
    assert len(grid_of(QUICK, begin, (0,), same.runs[0].recipe, renamed).missing) == 2, "another base"
    assert len(grid_of(QUICK, begin, (1,), same.runs[0].recipe, same.material).missing) == 2, "another seed"
    assert len(grid_of(QUICK, begin, (0,), same.runs[0].recipe, same.material).missing) == 1


def test_a_torn_or_foreign_result_is_missing(data: Path, tmp_path: Path) -> None:
    asked = grid(QUICK, data, tmp_path / "out", steps=2)
    [done] = run(asked, "rate 0.1")
    path = asked.folder / asked.runs[0].file
    whole = path.read_text()
    for torn in ("", whole[:-9], "[]", json.dumps(json.loads(whole) | {"identity": {}})):
        path.write_text(torn)
        assert len(asked.missing) == 2
    path.write_text(whole)
    assert asked.results == [done]


def test_no_room_is_said_in_words(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = grid(QUICK, data, tmp_path / "out", steps=2)
    replace_file = Path.replace

    def full(self: Path, target: Path) -> Path:
        if "0-2" in target.name:
            raise OSError(28, "No space left on device")
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ArtefactError, match=r"could not be written .*No space left.* the 1 cells done before"):
        run(asked)
    assert len(list(asked.folder.iterdir())) == 2, "the marker and the first cell, nothing half written"
    assert [result.label for result in asked.results] == ["rate 0.1"]


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", "ladder")
    (tmp_path / MARKER).write_text('{"study": "rank"}')
    check_folder(tmp_path, "rank")
    with pytest.raises(ArtefactError, match="holds the study rank, and ladder was asked for; give another folder"):
        check_folder(tmp_path, "ladder")
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(ArtefactError, match="is damaged"):
        check_folder(tmp_path, "rank")
    (tmp_path / MARKER).unlink()
    (tmp_path / "letter.txt").write_text("")
    with pytest.raises(ArtefactError, match="not empty"):
        check_folder(tmp_path, "rank")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="no study 'ladders'; known are ladder, rank, gate, guess, losses"):
        study_called("ladders")
    with pytest.raises(ConfigError, match="ladder has no cell 'ful'; its cells are: bare; sampler; full"):
        check_cells(LADDER, START, ("full", "ful"))
    check_cells(LADDER, START, ("full", "bare"))


# What the cells are.


def cells(study: Study, begin: Cell = START) -> dict[str, Cell]:
    return {cell.label: cell for cell in study.cells(begin)}


def test_rungs_add_one_part_each() -> None:
    ladder = cells(LADDER)
    assert ladder["full"] == replace(START, label="full")
    assert ladder["sampler"].losses == replace(START.losses, consistency_weight=0.0)
    assert ladder["bare"].losses == replace(START.losses, consistency_weight=0.0, sampler_weight=0.0)
    assert (ladder["bare"].mtp, ladder["sampler"].mtp) == (replace(MTP, sampler="none"), MTP)
    assert list(RUNGS) == list(ladder)
    assert ORDER == ["linear", "+ quadratic", "+ sampler", "+ consistency"]


def test_ranks_come_with_and_without_the_sampler() -> None:
    ranks = cells(RANK)
    assert [ranks[f"rank {rank}"].mtp.rank for rank in (1, 4, 16, 64, 128)] == [1, 4, 16, 64, 128]
    bare = ranks["rank 16, no sampler"]
    assert (bare.mtp.sampler, bare.losses) == ("none", replace(START.losses, sampler_weight=0.0))


@pytest.mark.parametrize("begin", ["paper", "default"])
def test_every_cell_of_losses_changes_something(begin: Any) -> None:
    mtp, losses = STARTS[begin]
    grid = LOSSES.cells(replace(START, mtp=mtp, losses=losses))
    whats = {repr((asdict(cell.mtp), asdict(cell.losses), asdict(cell.train))) for cell in grid}
    assert len(whats) == len(grid) > 12


def test_standard_lora_takes_no_chunks() -> None:
    chunked = replace(START, train=replace(TRAIN, chunk_anchors=2))
    with pytest.raises(ConfigError, match="leave --chunk-anchors at 0"):
        GATE.cells(chunked)


# What is measured.


def test_gated_stays_and_standard_drifts(data: Path, tmp_path: Path) -> None:
    asked = grid(GATE, data, tmp_path / "out")
    run(asked)
    found = findings(asked)
    figures = {figure.name: lines for figure, lines in found.figures}
    loss = {label: [place.median for place in line.values()] for label, line in figures[LOSS.name].items()}
    changed = {label: [place.median for place in line.values()] for label, line in figures[CHANGED.name].items()}
    assert list(figures[LOSS.name]["gated"]) == [0, 1, 2, 3, 4]
    assert len(set(loss["gated"])) == 1
    assert not any(changed["gated"])
    assert loss["standard"][0] == loss["gated"][0], "a fresh adapter is silent"
    assert changed["standard"] == [0.0, *[100.0] * 4]
    assert abs(loss["standard"][-1] - loss["standard"][0]) > 0.01
    total = {label: [place.median for place in line.values()] for label, line in figures[TOTAL.name].items()}
    assert total["standard"][0] == pytest.approx(total["gated"][0], rel=1e-5), "the same batch, and LoRA still silent"
    assert total["standard"][1] != pytest.approx(total["gated"][1], rel=1e-4), "then it trains on every row"
    assert found.verdict.holds
    assert found.verdict.sentence.startswith("gated: next-token loss constant to the bit; standard: next-token loss ch")


def test_a_leaking_gate_fails_the_study() -> None:
    def lines(*values: float) -> Any:
        return {step: spread([value]) for step, value in enumerate(values)}

    even, leaks = lines(0.5, 0.5), lines(0.5, 0.5000001)
    assert GATE.verdict({LOSS.name: {"gated": even}, CHANGED.name: {"gated": lines(0, 0)}}).holds
    assert not GATE.verdict({LOSS.name: {"gated": leaks}, CHANGED.name: {"gated": lines(0, 0)}}).holds
    assert not GATE.verdict({LOSS.name: {"gated": even}, CHANGED.name: {"gated": lines(0, 0.1)}}).holds
    assert GATE.verdict({LOSS.name: {"standard": leaks}, CHANGED.name: {"standard": lines(0, 100)}}).holds
    idle = GATE.verdict({LOSS.name: {"standard": even}, CHANGED.name: {"standard": lines(0, 0)}})
    assert not idle.holds, "a training in which nothing drifts shows nothing"


def test_rungs_are_direct_decodes(data: Path, tmp_path: Path) -> None:
    asked = recipe(data, tmp_path)
    model = open_fresh(replace(asked, mtp=replace(MTP, sampler="none")))
    with torch.no_grad():
        for parameter in model.mask_model.adapter.parameters():
            parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    prompts = embedded_prompts(model.require_tokenizer(), "test", 1)
    material = StudyInputs.read(asked, model, prompts, 16)
    subject = Subject(cells(LADDER)["bare"], model, material, Progress(step=4))
    points = {(point.line, point.x, point.domain): point.value for point in LADDER.measure(subject)}
    assert len(points) == 2 * 2 * 4
    for (line, masks, domain), value in points.items():
        layout = "linear" if line == "linear" else "quadratic"
        ids = [prompt.ids for prompt in prompts if prompt.domain == domain]
        decode = DecodeConfig(layout=layout, masks=int(masks), max_new_tokens=16)  # type: ignore[arg-type]
        assert value == tally(model.decode(ids, decode)).tokens_per_step
    assert tokens_per_step(model, material, "plain", 2) == dict.fromkeys(("math", "code", "stories", "chat"), 1.0)


def test_ranks_count_better_tokens(data: Path, tmp_path: Path) -> None:
    model = open_fresh(replace(recipe(data, tmp_path), mtp=replace(MTP, sampler="none")))
    see_dummies(model)
    tokenizer, core = model.require_tokenizer(), model.mask_model
    ids = tuple(tokenizer.encode("Two plus two equals four, and that is that."))
    batch = collate([Example(ids, tuple(t > 2 for t in range(len(ids))))], 0, torch.Generator(), torch.device("cpu"))
    cell = replace(START, mtp=replace(MTP, sampler="none"))
    with torch.no_grad():
        ranks, masks = true_ranks(core, batch, cell)
        # BaseUnchanged, two masks after the fifth token are the base's own text "--" there.
        [dash] = tokenizer.encode("-", add_special_tokens=False)[-1:]
        logits = core.model(torch.tensor([[*ids[:5], dash, dash]]), use_cache=False).logits[0]
    expected = [int((logits[4 + mask] > logits[4 + mask, ids[5 + mask]]).sum()) + 1 for mask in (1, 2)]
    place = 2 * batch.anchors[0].tolist().index(4)
    assert masks[place : place + 2].tolist() == [0, 1]
    assert ranks[place : place + 2].tolist() == expected


def test_memory_is_that_of_the_weights(data: Path, tmp_path: Path) -> None:
    asked = recipe(data, tmp_path)
    model = open_fresh(asked)
    material = StudyInputs.read(asked, model, embedded_prompts(model.require_tokenizer(), "test", 1)[:1], 2)
    subject = Subject(replace(START, label="rank 2"), model, material, Progress(step=4))
    found = {point.x: point.value for point in RANK.measure(subject) if point.figure == BYTES.name}
    assert found["all"] == 4 * sum(parameter.numel() for parameter in model.mask_model.adapter.parameters())
    assert found["LoRA"] == 4 * sum(
        2 * (pair.down.shape[1] + pair.up.shape[0]) for pair in model.mask_model.adapter.pairs
    )


# What is found.


def result(seed: int, *points: Point) -> Result:
    return Result("cell", seed, 1.0, 1.0, points, {}, {})


def test_domains_are_averaged_and_seeds_spread() -> None:
    def seed(number: int, math: float, code: float) -> Result:
        places = [Point(TOKENS.name, "full", 8, math, "math"), Point(TOKENS.name, "full", 8, code, "code")]
        return result(number, *places, Point(TOKENS.name, "full", 1, 1.0), Point("another", "full", 8, 9.0))

    found = lines_of(TOKENS, [seed(0, 1.0, 3.0), seed(1, 4.0, 6.0), seed(2, 3.0, 3.0)])
    assert list(found["full"]) == [1, 8]
    assert asdict(found["full"][8]) == {"median": 3.0, "least": 2.0, "most": 5.0, "seeds": 3}


def test_the_ladder_says_whether_the_order_is_the_papers() -> None:
    def lines(*rates: float) -> Any:
        return {TOKENS.name: {rung: {8: spread([rate])} for rung, rate in zip(ORDER, rates)}}

    rising = LADDER.verdict(lines(1.0, 1.1, 1.2, 1.5)).sentence
    assert ": the paper's order" in rising
    assert "highest over lowest 1.50 (paper A: 1.52)" in rising
    assert "not the paper's order" in LADDER.verdict(lines(1.0, 1.2, 1.1, 1.5)).sentence
    assert "+ consistency missing" in LADDER.verdict(lines(1.0, 1.1, 1.2)).sentence


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_verdicts_of_partial_grids_are_sentences(study: Study) -> None:
    said = study.verdict({figure.name: {} for figure in study.figures})
    assert said.holds
    assert said.sentence.endswith(".")
    assert isinstance(said, Verdict)
