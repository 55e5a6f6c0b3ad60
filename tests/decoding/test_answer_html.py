"""How a notebook shows an answer."""

import itertools
import re
from html import unescape

from foresay.decoding.answer_html import COLOURS, answer_html
from foresay.decoding.answers import Answer
from foresay.decoding.detokenizer import StepText
from foresay.model import MultiTokenModel


def test_an_answer_shows_its_steps() -> None:
    model = MultiTokenModel.from_pretrained("nano")
    answer = model.answer("Once upon a time there was a dog named", layout="quadratic", masks=3, max_new_tokens=24)
    assert isinstance(answer, Answer)
    assert "".join(step.text for step in answer.step_texts) == answer.text
    html = answer._repr_html_()
    texts = [unescape(text) for text in re.findall(r"<span[^>]*>(.*?)</span>", html, flags=re.S)]
    assert "".join(texts) == answer.text
    assert len(texts) == len(answer.steps) < len(answer.tokens)
    assert f"{len(answer.tokens)} tokens in {len(answer.steps)} steps: {answer.tokens_per_step:.2f} a step" in html


def test_what_the_model_says_is_no_markup() -> None:
    html = answer_html([StepText(1, "<b>&", 2, 0, 0)], "1 < 2")
    assert "&lt;b&gt;&amp;" in html
    assert "1 &lt; 2" in html


def test_neighbouring_steps_differ_in_colour() -> None:
    steps = [StepText(number, "x", 1, 4, 0) for number in range(1, 20)]
    colours = re.findall(r"rgba\((.*?), 0.4\)", answer_html(steps, ""))
    assert all(one != other for one, other in itertools.pairwise(colours))
    assert set(colours) == set(COLOURS)
    assert "step 7: 1 token, 0 of 4 drafts kept" in answer_html(steps, "")
