"""The chat page in a real browser: typed, streamed, compared, stopped, and errors shown."""

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
    assert spans.count() == steps
    assert spans.nth(0).get_attribute("class") != spans.nth(1).get_attribute("class")
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
