"""The chat page in a real browser: typed, streamed, compared, stopped, and errors shown."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from time import sleep
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")
pytest.importorskip("playwright")

from playwright.sync_api import sync_playwright

from foresay.model import MultiTokenModel
from foresay.serving.config import ServeConfig
from tests.support.served import DECODE, Served, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he?"


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture(scope="module")
def endless(model: MultiTokenModel) -> Iterator[Served]:
    with served(model, replace(DECODE, ignore_stop=True)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test when a script does, or when it asks another host."""
    page, strays = browser.new_page(), []
    page.on("pageerror", lambda error: strays.append(str(error)))
    page.on("request", lambda request: strays.append(request.url) if "//127.0.0.1" not in request.url else None)
    page.set_default_timeout(60_000)
    yield page
    page.close()
    assert [stray for stray in strays if not stray.startswith("data:")] == []


def figures(page: Any, pane: int = 0) -> tuple[int, int]:
    """Tokens and steps of an answer, as shown."""
    found = re.match(r"(\d+) tokens in (\d+) steps", page.locator(".figures").nth(pane).inner_text())
    assert found
    return int(found[1]), int(found[2])


def test_a_question_typed_is_answered_in_colours_and_compared(page: Any, endless: Served) -> None:
    page.goto(endless.url)
    page.keyboard.type(QUESTION)
    page.fill("#tokens", "40")
    page.focus("#prompt")
    page.keyboard.press("Enter")
    page.wait_for_selector(".compare:not([disabled])")
    tokens, steps = figures(page)
    assert tokens == 40 > steps
    spans = page.locator(".pair > div span")
    told = spans.evaluate_all("spans => spans.map(span => [span.dataset.step, span.className])")
    assert [int(step) for step, _ in told] == sorted(int(step) for step, _ in told)
    assert all(kind == f"s{int(step) % 6}" for step, kind in told)
    assert steps - 2 <= len({step for step, _ in told}) <= steps, "a step may have said a line's end alone"
    text = page.locator(".pair .said").nth(0).inner_text()
    page.focus(".compare")
    page.keyboard.press("Enter")
    page.wait_for_selector(".two .figures >> nth=1")
    page.wait_for_selector(".compare:not([disabled])")
    assert figures(page, 1) == (40, 40)
    assert page.locator(".pair .said").nth(1).inner_text() == text
    page.fill("#prompt", "And then?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn:nth-of-type(4) .compare")
    page.click("#reset")
    assert page.locator(".turn").count() == 0
    assert page.locator("#empty").is_visible()


def stream(*pieces: str, tokens: int | None = None) -> str:
    """A reply of the server's with these pieces, a step each."""
    chunks = [
        {"choices": [{"delta": {"content": piece}}], "usage": {"completion_tokens": tokens or place, "steps": place}}
        for place, piece in enumerate(pieces, 1)
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def answering(page: Any, *replies: str) -> None:
    """Let the page's requests be answered with these, one after the other."""
    left = list(replies)
    kind = {"content-type": "text/event-stream"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=left.pop(0), headers=kind))


def test_an_empty_page_says_what_it_is_and_gives_examples(page: Any, endless: Served) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(endless.url)
    assert "Several tokens a step, the same text" in page.inner_text("#empty")
    assert page.locator("header p").is_visible(), "the legend, on a phone too"
    assert page.locator(".ask").count() == 3
    answering(page, stream("One", " two.", tokens=6))
    page.click(".ask >> nth=0")
    page.wait_for_selector(".compare:not([disabled])")
    assert page.inner_text(".user .said").startswith("Write a Python function")
    assert page.locator("#empty").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_markdown_is_drawn_and_markup_is_only_text(page: Any, endless: Served) -> None:
    evil = '<img src=x onerror="document.title = 1"> [here](javascript:alert(1))'
    said = f"# Head\n\nSome **bold** and `code` with *care*: {evil}\n\n```html\n<b>no</b>\n```\n"
    said += "\n1. one\n2. two\n- dot\n> so"
    pieces = [said[start : start + 5] for start in range(0, len(said), 5)]
    page.goto(endless.url)
    answering(page, stream(*pieces, tokens=99))
    page.fill("#prompt", "Go")
    page.keyboard.press("Enter")
    page.wait_for_selector(".compare:not([disabled])")
    shown = page.locator(".turn:not(.user) .said")
    kinds = shown.locator("> *").evaluate_all("nodes => nodes.map(node => node.localName)")
    assert kinds == ["h3", "p", "pre", "ol", "ul", "blockquote"]
    assert shown.locator("strong").inner_text() == "bold"
    assert shown.locator("p code").inner_text() == "code"
    assert shown.locator("em").inner_text() == "care"
    assert shown.locator("pre code").inner_text() == "<b>no</b>"
    assert shown.locator("ol li").all_inner_texts() == ["one", "two"]
    assert evil in shown.locator("p").inner_text()
    assert shown.locator("img, b, a, script").count() == 0
    assert page.title() == "foresay"
    page.uncheck("#markdown")
    assert shown.locator("p").inner_text() == said


@pytest.mark.parametrize(
    ("ours", "plain", "words"),
    [
        (("Two wo", "rds."), ("Two", " wo", "rd", "s."), "Same text, 2.0 times fewer steps, "),
        (("Two wo", "rds."), ("Two", " more."), "NOT the same text, as many steps, "),
    ],
)
def test_a_comparison_ends_in_a_sentence(
    page: Any, endless: Served, ours: tuple[str, ...], plain: tuple[str, ...], words: str
) -> None:
    page.goto(endless.url)
    answering(page, stream(*ours, tokens=9), stream(*plain))
    page.fill("#prompt", "Go")
    page.keyboard.press("Enter")
    page.click(".compare:not([disabled])")
    page.wait_for_selector(".outcome")
    assert page.inner_text(".outcome").startswith(words)
    assert re.search(r"(\d\.\d times (faster|slower)|as fast)\.$", page.inner_text(".outcome"))


def test_layouts_are_picked_and_plain_steps_are_explained(page: Any, model: MultiTokenModel) -> None:
    with served(model, replace(DECODE, layout="planned")) as server:
        page.goto(server.url)
        page.wait_for_selector("#layout option >> nth=1", state="attached")
        assert page.locator("#layout option").all_inner_texts() == ["planned", "plain"]
        asked: list[Any] = []
        page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
        for layout in ("planned", "plain"):
            page.select_option("#layout", layout)
            page.fill("#tokens", "4")
            page.fill("#prompt", QUESTION)
            page.focus("#prompt")
            page.keyboard.press("Enter")
            page.wait_for_selector(f".turn:nth-of-type({2 * len(asked) or 2}) .figures")
            page.wait_for_selector("#send:not([disabled])")
        assert [body.get("layout") for body in asked] == [None, "plain"]
        shown = page.locator(".turn:not(.user) >> nth=0").inner_text()
        tokens, steps = figures(page)
        assert ("Plain steps: " in shown) == (tokens == steps)


def test_an_answer_is_stopped_and_its_slot_is_free(page: Any, endless: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long the browser takes to press a key, the answer is still being written.
    step = endless.service.engine.step
    monkeypatch.setattr(endless.service.engine, "step", lambda: (sleep(0.2), step())[1])
    page.goto(endless.url)
    page.fill("#tokens", "900")
    for stop in (lambda: page.click("#stop"), lambda: page.keyboard.press("Escape")):
        page.fill("#prompt", QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_selector(".pair span >> nth=3")
        stop()
        page.wait_for_selector("text=Stopped.")
        assert endless.idle()
        page.click("#reset")


def test_errors_are_shown_in_words(page: Any, endless: Served) -> None:
    page.goto(endless.url)
    page.fill("#tokens", "5000")
    page.fill("#prompt", QUESTION)
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "prompt and answer may have 1024 together" in page.inner_text("[role=alert]")
    assert page.input_value("#prompt") == QUESTION, "what was typed is not lost"


def test_a_key_is_asked_for(page: Any, model: MultiTokenModel) -> None:
    with served(model, config=ServeConfig(port=0, api_key="secret")) as server:
        page.goto(server.url)
        page.wait_for_selector("text=this server wants its key")
        page.fill("#key", "secret")
        page.fill("#tokens", "4")
        page.fill("#prompt", QUESTION)
        page.focus("#prompt")
        page.keyboard.press("Enter")
        page.wait_for_selector(".compare")
