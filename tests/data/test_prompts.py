"""Prompts from rows, and brought to a length."""

import json
from collections import Counter
from pathlib import Path

from foresay.data.chat import encode
from foresay.data.prompts import DOMAINS, FIVE_DOMAINS, Prompt, by_domain, embedded_prompts, file_prompts, lengthened
from foresay.models.base.load import load_tokenizer

PROMPTS = [Prompt((1, 2, 3), "a", "one"), Prompt((4, 5), "a", "two"), Prompt((6,), "a", "three")]


def test_the_other_prompts_go_in_front_in_turn() -> None:
    longer = lengthened(PROMPTS, 5)
    assert [prompt.ids for prompt in longer] == [(5, 6, 1, 2, 3), (1, 2, 3, 4, 5), (2, 3, 4, 5, 6)]
    assert [(prompt.domain, prompt.text) for prompt in longer] == [(p.domain, p.text) for p in PROMPTS]


def test_they_are_repeated_up_to_the_length() -> None:
    assert lengthened(PROMPTS, 9)[2].ids == (3, 4, 5, 1, 2, 3, 4, 5, 6)
    for tokens in range(4, 40):
        for before, after in zip(PROMPTS, lengthened(PROMPTS, tokens)):
            assert len(after.ids) == tokens
            assert after.ids[-len(before.ids) :] == before.ids


def test_what_is_long_enough_stays() -> None:
    assert lengthened(PROMPTS, 0) == PROMPTS
    assert [len(prompt.ids) for prompt in lengthened(PROMPTS, 2)] == [3, 2, 2]


def test_a_prompt_alone_stands_in_front_of_itself() -> None:
    assert lengthened(PROMPTS[:1], 8)[0].ids == (2, 3, 1, 2, 3, 1, 2, 3)


def test_text_is_gone_on_with_and_a_question_is_a_message(tmp_path: Path) -> None:
    tokenizer, path = load_tokenizer("nano"), tmp_path / "rows.jsonl"
    rows = [{"text": "Once"}, {"prompt": "Once"}, {"prompt": "Once", "text": "other"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    text, *questions = file_prompts(path, tokenizer)
    assert list(text.ids) == encode(tokenizer, "Once", raw=True)
    assert [list(prompt.ids) for prompt in questions] == [encode(tokenizer, "Once")] * 2
    assert [prompt.from_text for prompt in (text, *questions)] == [True, False, False]


def test_nano_has_prompts_of_its_own_and_any_other_chat_model_five_domains() -> None:
    tokenizer = load_tokenizer("nano")
    own, others = (embedded_prompts(tokenizer, "all", 100, base) for base in ("nano", "some/base"))
    assert Counter(prompt.domain for prompt in own) == dict.fromkeys(DOMAINS, 80)
    assert Counter(prompt.domain for prompt in others) == dict.fromkeys(FIVE_DOMAINS, 60)
    for domain, prompts in by_domain(others).items():
        halves = set(Counter(prompt.benchmark for prompt in prompts).values())
        assert halves == ({60} if domain in ("math", "safety") else {30})
    tokenizer.chat_template = None
    assert {prompt.domain for prompt in embedded_prompts(tokenizer, "dev", 1, "some/base")} == set(DOMAINS)


def test_dev_and_test_prompts_of_the_five_domains_are_not_the_same() -> None:
    tokenizer = load_tokenizer("nano")
    dev, test = (embedded_prompts(tokenizer, split, 100, "some/base") for split in ("dev", "test"))
    assert (len(dev), len(test)) == (100, 200)
    assert len({prompt.text for prompt in dev + test}) == 300
