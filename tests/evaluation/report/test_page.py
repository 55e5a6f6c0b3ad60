"""The page of a run: what it says, that nothing in the data can break out of it, and how a browser shows it."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from foresay.evaluation.plots import COLOURS, POINTS
from foresay.evaluation.report.cards import cards, failed, fastest, verdict
from foresay.evaluation.report.page import report
from foresay.evaluation.report.result_files import ResultFiles, read_run
from foresay.evaluation.speed.bench import Bench
from foresay.foundation.errors import DataError
from tests.cli.views.test_views import RESULT

EVIL = '</script><script>alert("x")</script> & <b>'
PHONE = 390
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RATE = {"value": 2.5, "low": 2.25, "high": 2.75}


def row(domain: str, masks: int, **more: Any) -> dict[str, Any]:
    entries = [
        {"position": place, "drafted": 8, "accepted": 4, "unconditional": 0.5**place, "conditional": 0.5}
        for place in range(1, masks + 1)
    ]
    counts = {"prompts": 3, "tokens": 100, "steps": 40, "repeated_4grams": 0.25, "stopped": 0.5}
    both = {"paper": RATE, "whole": RATE}
    return {"domain": domain, "benchmark": EVIL, "masks": masks, **both, **counts, "acceptance": entries, **more}


def certificate(bugs: int) -> dict[str, Any]:
    found = {
        "prompt": 3,
        "domain": EVIL,
        "layout": "linear",
        "batch_size": 8,
        "position": 17,
        "plain_token": 41,
        "accelerated_token": None,
        "margin": 0.125,
        "bound": 0.25,
        "diverges_in_float32": bool(bugs),
        "verdict": "bug" if bugs else "tie",
    }
    sentence = "NOT lossless: 1 of 8 answers differ." if bugs else "Lossless: 8 of 8 answers are identical."
    counts = {"prompts": 4, "tokens": 512, "identical": 8 - bugs, "answers": 8, "ties": 0, "bugs": bugs}
    return {"dtype": "bfloat16", **counts, "divergences": [found], "sentence": sentence, "provenance": {}}


def said(step: int, text: str) -> dict[str, Any]:
    return {"step": step, "text": text, "tokens": 3, "drafted": 8, "accepted": 2}


def evaluation(*rows: dict[str, Any]) -> dict[str, Any]:
    sample = {
        "domain": "math",
        "benchmark": "gsm8k",
        "masks": 3,
        "prompt": EVIL,
        "said": [said(1, "Two "), said(2, EVIL)],
        "margins": [0.5, 0.0625],
    }
    return {
        "rows": rows,
        "domains": rows,
        "samples": [sample],
        "quality": None,
        "sentence": None,
        "provenance": {"settings": {"paper_steps": 100, "base": EVIL}, "made": "today", "commit": None},
    }


def bench() -> dict[str, Any]:
    results = [
        replace(
            RESULT,
            batch_size=size,
            decoder=decoder,
            speedup_vs_plain=speedup,
            masks=0 if decoder == "transformers" else 16,
        )
        for size, decoder, speedup in [
            (1, "transformers", 9.0),
            (1, "linear", 1.25),
            (4, "quadratic", 1.5),
            (4, "linear", 0.5),
        ]
    ]
    return json.loads(json.dumps(asdict(Bench(tuple(results), {"commit": "abc"}))))  # type: ignore[no-any-return]


def costs() -> dict[str, Any]:
    entries = [
        {
            "entry": {"layout": layout, "masks": masks},
            "rows": 1 + masks,
            "drafted_seconds": 0.01,
            "undrafted_seconds": 0.01,
        }
        for layout, masks in (("plain", 0), ("linear", 2))
    ]
    return {"curves": [{"batch_size": 1, "context_tokens": 128, "entries": entries}]}


def study(holds: bool = True) -> dict[str, Any]:
    place = {"median": 1.75, "least": 1.5, "most": 2.25, "seeds": 2}
    shown = [
        [{"name": "loss", "title": EVIL, "x": "step", "y": "nats", "digits": 3}, {"gated": {"0": place, "20": place}}],
        [{"name": "rate", "title": "Rates", "x": "domain", "y": "tokens", "digits": 2}, {EVIL: {"math": place}}],
    ]
    verdict = {"sentence": "gated: constant to the bit.", "holds": holds}
    cells = [{"label": "gated", "provenance": {"made": "yesterday", "commit": "cba"}}]
    left = ["standard (seed 1)"]
    return {"study": "gate", "asked": 4, "missing": left, "figures": shown, "verdict": verdict, "results": cells}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a file of each kind, and one that is none."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    files = {
        "certificate": certificate(0),
        "eval": evaluation(
            row("math", 1), row("math", 3, whole={"value": 3.5, "low": 3.0, "high": 4.0}), row("code", 3)
        ),
        "deep/bench": bench(),
        "costs": costs(),
        "other": {"a": 1},
    }
    for name, content in files.items():
        path = tmp_path / "run" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "run"


class Seen(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "data":
            self.data += data


def test_the_verdict_comes_first_in_a_sentence(folder: Path) -> None:
    run = read_run([folder])
    assert {file.kind for file in run.files} == {"certificate", "evaluation", "bench", "costs"}
    assert verdict(run) == (
        "Lossless: 8 of 8 answers are identical; 2.50 (code) to 3.50 (math) tokens a step at 3 masks; 1.50 times plain "
        "decoding at best (quadratic 16, batch 4, mean of the domains)."
    )
    assert verdict(ResultFiles()) == "Nothing was checked or measured in this run yet."


def test_each_question_has_a_card(folder: Path) -> None:
    lossless, tokens, speed, pays = cards(read_run([folder]))
    assert (lossless.answer, lossless.detail) == ("Yes", "Identical: 8 of 8 in bfloat16. ")
    assert tokens.answer == "2.50 (code) to 3.50 (math)"
    assert speed.answer == "1.50 times plain"
    assert "batch 4" in speed.detail
    assert pays.detail == "As measured: linear 16 at batch 1, quadratic 16 at batch 4."
    assert {card.state for card in (lossless, tokens, speed, pays)} == {"good"}
    (folder / "certificate.json").write_text(json.dumps(certificate(1)))
    assert cards(read_run([folder]))[0].state == "bad"
    for open_card in cards(ResultFiles()):
        assert open_card.state == "open"
        assert open_card.detail.startswith("foresay ")


def test_planned_that_took_plain_steps_is_called_plain(folder: Path) -> None:
    """It was 1.05 times plain by noise: neither the verdict, nor a card, nor the table calls that a speed-up."""
    planned = replace(RESULT, decoder="planned", masks=0, tokens_per_step=1.0, speedup_vs_plain=1.05)
    run = {"results": [asdict(planned)], "provenance": {"commit": "abc"}}
    (folder / "deep" / "bench.json").write_text(json.dumps(run))
    page = report(read_run([folder]), "")
    assert "<td>as plain</td>" in page
    assert "1.05" not in re.sub(r'<script type="application/json".*?</script>|<svg.*?</svg>', "", page, flags=re.S)
    speed, pays = cards(read_run([folder]))[2:]
    assert (speed.answer, pays.answer) == ("Not faster than plain here", "Plain decoding")


def test_the_rule_of_ratios_stands_with_the_figures(folder: Path) -> None:
    page = report(read_run([folder]), "")
    assert page.count("Ratios are medians, over the rounds, of the ratio within a round.") == 2


def test_one_prompt_has_no_interval(folder: Path) -> None:
    one = {"value": 2.5, "low": None, "high": None}
    (folder / "eval.json").write_text(json.dumps(evaluation(row("math", 1, whole=one, paper=one))))
    assert "<td>one prompt</td>" in report(read_run([folder]), "")


def test_ten_series_are_told_apart() -> None:
    assert len(set(COLOURS)) == len(set(POINTS)) == 10


def test_transformers_is_never_what_we_are_fast_with(folder: Path) -> None:
    [found] = read_run([folder / "deep" / "bench.json"]).benches
    assert [(best.label, best.batch_size, round(best.speedup, 6)) for best in fastest(found)] == [
        ("linear 16", 1, 1.25),
        ("quadratic 16", 4, 1.5),
    ]


def test_at_one_token_a_step_a_ratio_to_plain_is_noise(folder: Path) -> None:
    [found] = read_run([folder / "deep" / "bench.json"]).benches
    undrafted = replace(found, results=tuple(replace(row, tokens_per_step=1.0) for row in found.results))
    assert fastest(undrafted) == []
    slower = replace(found, results=tuple(replace(row, speedup_vs_plain=0.5) for row in found.results))
    assert [best.speedup for best in fastest(slower)] == pytest.approx([0.5, 0.5])


def test_a_bug_shows_in_the_verdict(folder: Path) -> None:
    assert not failed(read_run([folder]))
    (folder / "certificate.json").write_text(json.dumps(certificate(1)))
    page = report(read_run([folder]), "")
    assert 'class="verdict failed"' in page
    assert '<td class="bug">bug</td>' in page


def test_a_quality_that_differs_shows_in_the_verdict(folder: Path) -> None:
    task = {"task": "t", "documents": 2, "identical": 1, "base": {"acc": 1.0}, "accelerated": {"acc": 1.0}}
    compared = {"quality": {"tasks": [task]}, "sentence": "1 of 2 generated answers are the base's own."}
    (folder / "eval.json").write_text(json.dumps(evaluation(row("math", 1)) | compared))
    assert "1 of 2 generated answers" in verdict(read_run([folder]))
    assert failed(read_run([folder]))


def test_results_that_are_no_bench_s_are_passed_over(folder: Path) -> None:
    before = {file.name for file in read_run([folder]).files}
    (folder / "load.json").write_text('{"results": [{"clients": 4}], "provenance": {}}')
    assert {file.name for file in read_run([folder]).files} == before
    with pytest.raises(DataError, match=r"load\.json is no result of foresay"):
        read_run([folder / "load.json"])


def test_a_study_shows_its_figures_its_verdict_and_what_is_missing(folder: Path) -> None:
    (folder / "study.json").write_text(json.dumps(study()))
    page = report(read_run([folder]), "")
    assert page.count("<svg") == 6
    assert "gated: constant to the bit" in verdict(read_run([folder]))
    assert "PARTIAL, missing: standard (seed 1)." in page
    assert "<td>20</td><td>1.750 (1.500 to 2.250)</td>" in page
    assert "study.json (study), yesterday, commit cba" in page
    assert EVIL not in page
    assert not failed(read_run([folder]))
    (folder / "study.json").write_text(json.dumps(study(holds=False)))
    assert failed(read_run([folder]))
    assert "Something is not as it must be." in report(read_run([folder]), "")


def test_everything_is_there_and_nothing_breaks_out(folder: Path) -> None:
    page = report(read_run([folder]), EVIL)
    seen = Seen(page)
    assert [attributes for tag, attributes in seen.tags if tag == "script"] == [
        {"type": "application/json", "id": "data"}
    ]
    assert not [tag for tag, _ in seen.tags if tag == "b"]
    raw = json.loads(seen.data)
    assert raw.keys() == {"certificate.json", "eval.json", "deep/bench.json", "costs.json"}
    assert raw["eval.json"] == json.loads((folder / "eval.json").read_text())
    assert sum(tag == "svg" for tag, _ in seen.tags) == 4
    told = "step 2: 8 drafted, 2 accepted, 3 tokens; least margin of the base's best token 0.06"
    assert told in [attributes.get("data-tip") for _, attributes in seen.tags]
    for text in ("<td>0.125</td><td>0.25</td>", "2.25 to 2.75", "1.50"):
        assert text in page


def test_nothing_is_fetched(folder: Path) -> None:
    page = report(read_run([folder]), "A run")
    assert "default-src 'none'" in page
    links = [
        value
        for _, attributes in Seen(page).tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:"))
    ]
    assert links == []


def test_what_nobody_named_may_be_unreadable(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "more"
    shutil.copytree(folder, own)
    (own / "lines.json").write_text("{}\n{}\n")
    assert report(read_run([own]), "run") == report(read_run([folder]), "run")
    assert read_run([own]).unreadable == (own / "lines.json",)


def test_files_of_one_name_are_told_apart_and_none_counts_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "check.json").write_text(json.dumps(certificate(0)))
    one, two = tmp_path / "one", tmp_path / "two"
    assert [file.name for file in read_run([one, one / "check.json", tmp_path / "one"]).files] == ["check.json"]
    names = [file.name for file in read_run([one, two]).files]
    assert names == [str(folder / "check.json") for folder in (one, two)]


@pytest.mark.parametrize(
    "content",
    [
        '{"bugs": 0, "divergences": [], "identical": 1}',
        '{"results": [], "provenance": {}}',
        '{"rows": [], "samples": [], "domains": [], "provenance": 5}',
    ],
)
def test_a_result_that_lacks_something_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"one of half\.json lacks what a report shows"):
        report(read_run([path]), "half")


def test_ids_of_pictures_do_not_meet(folder: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', report(read_run([folder]), "A run"))
    assert len(ids) == len(set(ids)) > 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", None, "holds no results"),
        ("a.json", '{"a": 1}', "is no result of foresay"),
        ("a.json", "{", "cannot be read as JSON"),
        ("none.json", None, "does not exist"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    elif not path.suffix:
        path.mkdir()
    with pytest.raises(DataError, match=message):
        read_run([path])


def browse(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What a headless browser makes of a page in a frame of this width; the frame's own policy is lifted for that."""
    measure = """<script>onload = () => { const d = document.documentElement, b = getComputedStyle(document.body);
      const out = {scroll: d.scrollWidth, width: innerWidth, background: b.backgroundColor, color: b.color,
        svg: [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width),
        text: [...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)};
      parent.postMessage(JSON.stringify(out), '*'); }</script>"""
    framed = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{measure}</body>")
    source = json.dumps(framed).replace("</", "<\\/")
    outer = f"""<iframe width="{width}" height="800" style="border: 0"></iframe><pre id="out"></pre><script>
      onmessage = event => {{ document.getElementById('out').textContent = event.data; }};
      document.querySelector('iframe').srcdoc = {source};</script>"""
    path = folder / "outer.html"
    path.write_text(outer)
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    [found] = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, flags=re.S)
    return json.loads(found)  # type: ignore[no-any-return]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so no page is looked at")
@pytest.mark.parametrize("width", [PHONE, 1200])
def test_a_browser_shows_it_without_scrolling_sideways(folder: Path, tmp_path: Path, width: int) -> None:
    seen = browse(report(read_run([folder]), "A run"), width, tmp_path)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert len(seen["svg"]) == 4
    assert all(250 < drawn <= width for drawn in seen["svg"])
    assert min(seen["text"]) > 7
    assert seen["background"] != seen["color"]
