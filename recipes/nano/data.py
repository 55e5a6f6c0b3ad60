"""The data of the embedded model: public texts for its base, and the base's own answers for its adapter.

    FORESAY_DATA=... python recipes/nano/data.py base --out build/nano --wordnet /usr/share/wordnet
    FORESAY_DATA=... python recipes/nano/data.py adapter --base build/nano-base --out build/nano

`base` writes `rows.jsonl` and the folder `blank` (config and a tokenizer trained on the rows); `adapter` writes
`mix.jsonl`, and from its beginning `demo.jsonl`, which `foresay demo` trains on. Sources and their licences are listed
in README.md beside; held-out prompts are in none of them.
"""

import ast
import json
import os
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import tyro
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from foresay.data.chat import template_ids
from foresay.decoding.config import DecodeConfig
from foresay.model import MultiTokenModel
from foresay.models.base.untrained import SPECIALS
from foresay.models.config import MTPConfig

Row = dict[str, Any]
MBPP_TEST = range(11, 511)
MODULE_CHARACTERS = 10_000
"""Of a module, from its beginning."""
FUNCTION_LINES = range(3, 25)
"""Of library functions that stand as answers to what their documentation says."""
SUMS, MEANINGS, OPENINGS = 6000, 6000, 500
"""Rows of arithmetic, of dictionary entries, and of stories that are asked for."""
BATCH = 64
DEMO = 1300
"""Rows of the mixture that the demo trains on, doubles left out."""
MIX = {"math": 0.42, "stories": 0.36, "chat": 0.13, "code": 0.09}
"""Shares of the adapter's mixture; chosen on the dev prompts."""
CONFIG = LlamaConfig(
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=704,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
TEMPLATE = (
    "{% for m in messages %}{% if m['role']=='user' %}<|user|>{{m['content']}}{% else %}<|assistant|>{{m['content']}}"
    "<|endoftext|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat(user: str, assistant: str, domain: str) -> Row:
    """A question and its answer."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "domain": domain}


def problems(data: Path) -> Iterator[Row]:
    """GSM8K train without its calculator marks."""
    for line in (data / "math/gsm8k_train.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield chat(row["question"], re.sub(r"<<[^>]*>>", "", row["answer"]), "math")


def sums() -> Iterator[Row]:
    """Arithmetic as GSM8K writes it, made here."""
    rng = random.Random(5)
    for _ in range(SUMS):
        one, other = rng.randint(2, 99), rng.randint(2, 99)
        sign, result = rng.choice([("+", one + other), ("-", one - other), ("*", one * other)])
        if sign == "-" and result < 0:
            one, other, result = other, one, -result
        yield chat(f"What is {one} {sign} {other}?", f"{one} {sign} {other} = {result}\n#### {result}", "math")


def exercises(data: Path) -> Iterator[Row]:
    """MBPP without its test split."""
    for line in (data / "code/mbpp.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["task_id"] not in MBPP_TEST:
            yield chat(row["text"], row["code"].replace("\r\n", "\n"), "code")


def modules() -> list[str]:
    """The standard library of this interpreter without its tests, in an order drawn once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(root.glob("*.py")) + sorted(root.glob("*/*.py"))
    files = [path for path in files if "test" not in str(path.relative_to(root)) and "site-packages" not in path.parts]
    random.Random(0).shuffle(files)
    return [path.read_text(errors="ignore") for path in files]


def functions(sources: list[str]) -> Iterator[Row]:
    """Short functions, asked for by the first sentence of their documentation."""
    seen = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            said = (ast.get_docstring(node) or "").split("\n\n")[0].split(". ")[0].replace("\n", " ").strip(" .")
            node.body = node.body[1:]
            code = ast.unparse(node)
            if 20 < len(said) < 120 and code.count("\n") + 1 in FUNCTION_LINES and said not in seen:
                seen.add(said)
                yield chat(f"Write a python function. {said}.", code, "code")


def stories(data: Path) -> list[str]:
    """Whole stories of the excerpt of TinyStories."""
    return [s.strip() for s in (data / "text/tinystories_2M.txt").read_text().split("<|endoftext|>") if len(s) > 200]


def wanted_stories(data: Path) -> Iterator[Row]:
    """Stories as answers."""
    for story in random.Random(6).sample(stories(data), OPENINGS):
        opening = " ".join(story.split()[:12])
        yield chat(f"Write a short story that begins like this: {opening}", story, "chat")


def small_talk() -> Iterator[Row]:
    """Questions and answers of chatterbot-corpus (a package of that name), in English."""
    import chatterbot_corpus  # noqa: PLC0415
    import yaml  # noqa: PLC0415

    seen = set()
    for path in sorted((Path(chatterbot_corpus.__file__).parent / "data/english").glob("*.yml")):
        for question, *answers in yaml.safe_load(path.read_text())["conversations"]:
            if answers and str(question) not in seen:
                seen.add(str(question))
                yield chat(str(question), str(answers[0]).strip(), "chat")


def meanings(wordnet: Path) -> Iterator[Row]:
    """Entries of WordNet, asked for in three ways."""
    entries = []
    for part in ("noun", "verb", "adj"):
        for line in (wordnet / f"data.{part}").read_text().splitlines():
            if not line.startswith(" "):
                word, meaning = line.split()[4].replace("_", " "), line.split("|", 1)[1].strip()
                if '"' in meaning and word.islower() and len(meaning) < 200:
                    entries.append((word, meaning))
    rng = random.Random(7)
    for word, meaning in rng.sample(entries, MEANINGS):
        said, _, examples = meaning.partition('; "')
        question = rng.choice(
            ["What does '{}' mean?", "Explain the word '{}'.", "Define '{}' and use it in a sentence."]
        )
        example = examples.split('"')[0]
        answer = f"The word '{word}' means {said}. For example: {example[:1].upper()}{example[1:]}."
        yield chat(question.format(word), answer, "chat")


def public_rows(data: Path, wordnet: Path) -> list[Row]:
    """Every row of the sources."""
    library = modules()
    return [
        *problems(data),
        *sums(),
        *exercises(data),
        *functions(library),
        *({"text": source[:MODULE_CHARACTERS], "domain": "code"} for source in library),
        *({"text": story, "domain": "stories"} for story in stories(data)),
        *wanted_stories(data),
        *small_talk(),
        *meanings(wordnet),
    ]


def texts(row: Row) -> list[str]:
    """What a row says."""
    return [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]


def trained_tokenizer(rows: list[Row]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the rows; every digit is a token."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        special_tokens=[AddedToken(special, special=True, normalized=False) for special in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for row in rows for text in texts(row)), trainer)
    end = SPECIALS[0]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end)
    fast.chat_template = TEMPLATE
    return fast


def asked(rows: list[Row], tokenizer: Any, most: int) -> list[tuple[list[int], str]]:
    """Prompts of the rows and openings of the stories, at most `most` of a domain."""
    prompts, words = [], random.Random(1)
    for row in rows:
        if "messages" in row:
            prompts.append((template_ids(tokenizer, row["messages"][:1], prompt=True), row["domain"]))
        elif row["domain"] == "stories":
            for _ in range(2):
                opening = " ".join(row["text"].split()[: words.randint(8, 25)])
                prompts.append((tokenizer(opening)["input_ids"], "stories"))
    random.Random(2).shuffle(prompts)
    taken: dict[str, list[tuple[list[int], str]]] = {}
    for prompt, domain in prompts:
        if len(prompt) < 300 and len(taken.setdefault(domain, [])) < most:
            taken[domain].append((prompt, domain))
    return [prompt for group in taken.values() for prompt in group]


def own_rows(base: str, rows: list[Row], most: int, tokens: int) -> Iterator[Row]:
    """The base's own greedy answers."""
    model = MultiTokenModel.from_base(base, MTPConfig(num_masks=1, rank=1))
    chosen = sorted(asked(rows, model.require_tokenizer(), most), key=lambda prompt: len(prompt[0]))
    config = DecodeConfig(layout="plain", max_new_tokens=tokens)
    for start in range(0, len(chosen), BATCH):
        group = chosen[start : start + BATCH]
        answers = model.decode([prompt for prompt, _ in group], config)
        for (prompt, domain), answer in zip(group, answers):
            yield {"ids": [*prompt, *answer.tokens], "prompt_tokens": len(prompt), "domain": domain}
        print(f"{start + len(group)} of {len(chosen)} prompts answered", flush=True)


def mixed(rows: list[Row], size: int) -> list[Row]:
    """`size` rows in the shares of `MIX`; a domain with too few is gone through again, in a new order."""
    chosen = []
    for domain, share in MIX.items():
        pool, order = [row for row in rows if row["domain"] == domain], random.Random(3)
        while len(pool) < size * share:
            pool = pool + order.sample(pool, len(pool))
        chosen += order.sample(pool, len(pool))[: round(size * share)]
    return random.Random(4).sample(chosen, len(chosen))


def write(path: Path, rows: Iterable[Row]) -> None:
    """As JSON lines."""
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def for_base(out: Path, wordnet: Path = Path("/usr/share/wordnet")) -> None:
    """Write `rows.jsonl` and the folder `blank`: what the base is trained from.

    Args:
        out: Folder to write to.
        wordnet: Folder with WordNet's data files (Debian: wordnet-base).
    """
    if "FORESAY_DATA" not in os.environ:
        raise SystemExit("set FORESAY_DATA to the folder with the public data sets")
    out.mkdir(parents=True, exist_ok=True)
    rows = public_rows(Path(os.environ["FORESAY_DATA"]), wordnet)
    write(out / "rows.jsonl", random.Random(8).sample(rows, len(rows)))
    CONFIG.save_pretrained(out / "blank")
    trained_tokenizer(rows).save_pretrained(out / "blank")


def for_adapter(out: Path, base: str = "nano", most: int = 4000, tokens: int = 160, size: int = 15376) -> None:
    """Write `mix.jsonl` and `demo.jsonl`: the base's own answers to the prompts of `rows.jsonl`.

    Args:
        out: Folder with `rows.jsonl`, to write to.
        base: The base that answers.
        most: Most prompts of a domain.
        tokens: Length of the answers, in tokens.
        size: Rows of the mixture.
    """
    torch.set_num_threads(2)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    mix = mixed(list(own_rows(base, rows, most, tokens)), size)
    write(out / "mix.jsonl", mix)
    write(out / "demo.jsonl", {tuple(row["ids"]): row for row in mix[:DEMO]}.values())


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"base": for_base, "adapter": for_adapter})
