"""Text as it may be shown: whole characters, nothing of a stop string, and nothing lost."""

import pytest
from transformers import PreTrainedTokenizerBase

pytest.importorskip("fastapi")

from foresay.decoding.detokenizer import BROKEN, Detokenizer
from foresay.models.base.load import load_tokenizer
from foresay.serving.openai.stop_strings import Answer

TEXT = "Naïve café, déjà vu: 3 * 4 = 12 €. 😀 done\n  and on"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    found = load_tokenizer("nano")
    assert found is not None
    return found


def tell_all(tokenizer: PreTrainedTokenizerBase, text: str, stops: list[str], size: int) -> list[str]:
    """What is shown after each step of `size` tokens, up to a stop."""
    answer, ids = Answer(tokenizer, stops), tokenizer(text)["input_ids"]
    shown = []
    for start in range(0, len(ids), size):
        step = ids[start : start + size]
        ends = (place for place, token in enumerate(step, 1) if answer.watched and answer.hears(token))
        kept = step[: next(ends, len(step))]
        stopped = kept != step or answer._cut
        shown.append(answer.tell(kept, stopped or start + size >= len(ids)))
        if stopped:
            break
    return shown


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_make_up_the_text_and_no_character_is_broken(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    for stops in ([], ["never said"]):
        shown = tell_all(tokenizer, TEXT, stops, size)
        assert "".join(shown) == TEXT
        assert not any(BROKEN in piece for piece in shown)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("stop", ["café", "é, déjà vu", "12 €", "😀", "\n  and", "e"])
def test_nothing_of_a_stop_string_is_ever_shown(tokenizer: PreTrainedTokenizerBase, size: int, stop: str) -> None:
    assert "".join(tell_all(tokenizer, TEXT, ["never", stop], size)) == TEXT[: TEXT.index(stop)]


def test_the_first_of_several_stops_counts(tokenizer: PreTrainedTokenizerBase) -> None:
    assert "".join(tell_all(tokenizer, TEXT, ["done", "vu: 3"], 7)) == TEXT[: TEXT.index("vu: 3")]


def test_a_character_that_stays_broken_shows_at_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("😀")["input_ids"]
    assert len(ids) > 1
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.add(ids[:-1]) == ""
    assert detokenizer.rest() == BROKEN
