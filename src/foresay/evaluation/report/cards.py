"""What a run shows, in a sentence and as one card for each question."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from foresay.evaluation.report.result_files import ResultFiles
from foresay.evaluation.speed.bench import KEPT, Bench
from foresay.evaluation.speed.timed_runs import LOOKUP, TRANSFORMERS


@dataclass(frozen=True, slots=True)
class Card:
    """A question, and what the run answers."""

    question: str
    answer: str
    detail: str
    state: Literal["good", "bad", "even", "open"] = "good"
    """`even`: nothing gained, nothing wrong; `open`: nothing in the run answers it."""


@dataclass(frozen=True, slots=True)
class Best:
    """The decoder that was fastest over all domains of a batch size and prompt length."""

    label: str
    batch_size: int
    lengthened_to: int
    speedup: float

    @property
    def where(self) -> str:
        """In words."""
        prompts = f", prompts of {self.lengthened_to} tokens" if self.lengthened_to else ""
        return f"{self.label}, batch {self.batch_size}{prompts}, mean of the domains"


def cards(run: ResultFiles) -> list[Card]:
    """One for each question: is it lossless, how many tokens a step, how fast and where, what would pay?"""
    return [_lossless(run), _tokens(run), _speed(run), _pays(run)]


def verdict(run: ResultFiles) -> str:
    """What the run shows, in a sentence."""
    parts = [content["sentence"].rstrip(".") for content in run.of("certificate")]
    parts += [content["sentence"].rstrip(".") for content in run.of("evaluation") if differs(content)]
    parts += [f"{rates} tokens a step {where}" for rates, where in _rates(run)]
    parts += [content["verdict"]["sentence"].rstrip(".") for content in run.of("study")]
    found = _fastest_of(run)
    if found:
        times = f"{found.speedup:.2f} times plain decoding"
        best, none = f"{times} at best ({found.where})", f"nothing is faster than plain here: {times}"
        parts.append(best if found.speedup > 1 else none)
    elif run.benches:
        parts.append("no drafts were kept, so nothing is faster than plain decoding here")
    if not found:
        parts += [content["sentence"].rstrip(".") for content in run.of("advice")]
    return "; ".join(parts) + "." if parts else "Nothing was checked or measured in this run yet."


def failed(run: ResultFiles) -> bool:
    """Whether something in the run is not as it must be."""
    return (
        not all(map(passed, run.of("certificate")))
        or any(map(differs, run.of("evaluation")))
        or not all(content["verdict"]["holds"] for content in run.of("study"))
    )


def passed(certificate: dict[str, Any]) -> bool:
    """Whether a certificate found no bug; old ones say only how many there are."""
    return bool(certificate.get("passed", not certificate["bugs"]))


def differs(evaluation: dict[str, Any]) -> bool:
    """Whether quality was compared, and an answer or a score is not the base's."""
    tasks = (evaluation.get("quality") or {}).get("tasks", ())
    return any(task["base"] != task["accelerated"] or task["identical"] < task["documents"] for task in tasks)


def fastest(bench: Bench) -> list[Best]:
    """The fastest of our decoders in each case; none where no drafts were kept, for then a ratio to plain is noise."""
    return [
        Best(label, size, length, speedup)
        for length in bench.lengths
        for size, row in bench.speedups(length).items()
        for ours in [{label: ratio for label, ratio in row.items() if _drafts(bench, length, size, label)}]
        for label, speedup in [max(ours.items(), key=lambda pair: pair[1], default=("", 0.0))]
        if label
    ]


def _drafts(bench: Bench, length: int, size: int, label: str) -> bool:
    """Whether this is a decoder of ours that kept drafts there."""
    rows = [row for row in bench.results if (row.lengthened_to, row.batch_size, row.label) == (length, size, label)]
    return label not in (TRANSFORMERS, LOOKUP) and any(row.tokens_per_step >= KEPT for row in rows)


def _fastest_of(run: ResultFiles) -> Best | None:
    found = [best for bench in run.benches for best in fastest(bench)]
    return max(found, key=lambda one: one.speedup, default=None)


def _lossless(run: ResultFiles) -> Card:
    question, certificates = "Is the text the base's own?", run.of("certificate")
    if not certificates:
        return Card(question, "Not checked", "foresay check MODEL --out run/certificate.json", "open")
    good = all(map(passed, certificates))
    counts = [f"{content['identical']} of {content['answers']} in {content['dtype']}" for content in certificates]
    ties = sum(content["ties"] for content in certificates)
    told = f"{ties} differ where logits tie within rounding." if ties else ""
    bugs = f"{sum(content['bugs'] for content in certificates)} are bugs. " * (not good)
    detail = f"Identical: {'; '.join(counts)}. {bugs}{told}"
    return Card(question, "Yes", detail) if good else Card(question, "No", detail, "bad")


def _tokens(run: ResultFiles) -> Card:
    question = "How many tokens a step?"
    for rates, where in _rates(run):
        return Card(question, rates, f"{where}, by domain.".capitalize())
    rows = [row for bench in run.benches for row in bench.results if row.acceptance_per_position]
    if not rows:
        return Card(question, "Not counted", "foresay eval MODEL --out run/eval.json", "open")
    low, high = (pick(rows, key=lambda row: row.tokens_per_step) for pick in (min, max))
    said = [f"{row.tokens_per_step:.2f} ({row.domain})" for row in (low, high)]
    return Card(question, " to ".join(dict.fromkeys(said)), "Of all decoders with drafts that were timed.")


def _speed(run: ResultFiles) -> Card:
    question, found = "How fast, and where?", _fastest_of(run)
    if not run.benches:
        return Card(question, "Not timed", "foresay bench MODEL --json > run/bench.json", "open")
    if found is None or found.speedup <= 1:
        best = f" The best: {found.speedup:.2f} times ({found.where})." if found else " No drafts were kept."
        return Card(question, "Not faster than plain here", f"On the machine of this run.{best}", "even")
    return Card(
        question, f"{found.speedup:.2f} times plain", f"{found.where.capitalize()}; the other cases stand below."
    )


def _pays(run: ResultFiles) -> Card:
    question = "What would pay?"
    for content in run.of("advice"):
        paying = [offer for offer in content["offers"] if offer["speedup"] > 1]
        answer = f"Drafts in {len(paying)} of {len(content['offers'])} cases" if paying else "Plain decoding"
        return Card(question, answer, content["sentence"], "good" if paying else "even")
    for bench in run.benches:
        cases = fastest(bench)
        paying_cases = [f"{best.label} at batch {best.batch_size}" for best in cases if best.speedup > 1]
        if paying_cases:
            return Card(question, "Drafts", f"As measured: {', '.join(dict.fromkeys(paying_cases))}.")
        return Card(question, "Plain decoding", "As measured, in every case of this run.", "even")
    return Card(question, "Not asked", "foresay advise BASE --json > run/advice.json", "open")


def _rates(run: ResultFiles) -> Iterator[tuple[str, str]]:
    """Tokens per step of the domains, least to most, and at how many masks, of each evaluation."""
    for content in run.of("evaluation"):
        most = max((row["masks"] for row in content["domains"]), default=0)
        own = [row for row in content["domains"] if row["masks"] == most]
        rows = sorted(own, key=lambda row: float(row["whole"]["value"]))
        if rows:
            said = [f"{row['whole']['value']:.2f} ({row['domain']})" for row in (rows[0], rows[-1])]
            yield " to ".join(dict.fromkeys(said)), f"at {most} masks"
