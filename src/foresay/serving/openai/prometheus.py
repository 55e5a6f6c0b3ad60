"""What happens, counted for Prometheus under the names that dashboards of vLLM look for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from foresay.decoding.planners import Planners
from foresay.decoding.prefix_cache import PrefixCache
from foresay.decoding.steps import Step

LATENCIES = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
COUNTS = (1, 2, 5, 10, 20, 50, 100)
PER_STEP = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


@dataclass(slots=True)
class Course:
    """How one answer went so far; times are those of `monotonic`."""

    prompt: int = 0
    """Tokens of its prompt."""
    asked: float = field(default_factory=monotonic)
    begun: float = 0.0
    """Start of its first step."""
    first: float = 0.0
    """End of its first step; 0: there was none yet."""
    last: float = 0.0
    """End of its last step."""
    tokens: int = 0


class Metrics:
    """Counters of one server."""

    def __init__(self, model: str, running: Callable[[], int], waiting: Callable[[], int], share: float) -> None:
        """`running` and `waiting` say how many answers are, `share` what of the cache one that runs may fill."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._labels = {"model_name": model, "engine": "0"}
        for name, about, value in (
            ("num_requests_running", "Answers being written.", running),
            ("num_requests_waiting", "Answers that wait for a place.", waiting),
            ("kv_cache_usage_perc", "Share of the cache that is given away (0 to 1).", lambda: running() * share),
        ):
            Gauge(f"vllm:{name}", about, list(self._labels), registry=self._registry).labels(
                **self._labels
            ).set_function(value)
        self._prompt_tokens = self._count("prompt_tokens", "Tokens of prompts.")
        self._tokens = self._count("generation_tokens", "Tokens generated.")
        self._ended = self._counter("request_success", "Answers that ended, by reason.", "finished_reason")
        self._drafts = self._count("spec_decode_num_drafts", "Steps that verified drafts, by answer.")
        self._drafted = self._count("spec_decode_num_draft_tokens", "Drafts verified.")
        self._accepted = self._count("spec_decode_num_accepted_tokens", "Drafts accepted.")
        self._places = self._counter(
            "spec_decode_num_accepted_tokens_per_pos", "Drafts accepted, by position.", "position"
        )
        self._queries = self._count("prefix_cache_queries", "Tokens of prompts looked up in the prefix cache.")
        self._hits = self._count("prefix_cache_hits", "Tokens of prompts that were found there, and not read again.")
        self._layouts = Counter(
            "foresay:steps", "Steps of answers, by layout.", [*self._labels, "layout"], registry=self._registry
        )
        self._first = self._times("time_to_first_token_seconds", "From the request to its first token.")
        self._between = self._times("inter_token_latency_seconds", "From one step of an answer to the next.")
        self._whole = self._times("e2e_request_latency_seconds", "From the request to the end of its answer.")
        self._queue = self._times("request_queue_time_seconds", "From the request to the start of its first step.")
        self._prefill = self._times("request_prefill_time_seconds", "From the start of the first step to its end.")
        self._decode = self._times("request_decode_time_seconds", "From the end of the first step to that of the last.")
        self._inference = self._times(
            "request_inference_time_seconds", "From the start of the first step to the end of the last."
        )
        self._per_token = self._times(
            "request_time_per_output_token_seconds", "Time after the first step, by the tokens after the first."
        )
        self._limits = self._histogram("request_params_max_tokens", "Most tokens that an answer may have.", TOKENS)
        self._counts = self._histogram("request_params_n", "Answers to each prompt of a request.", COUNTS)
        self._prompt_lengths = self._histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS)
        self._lengths = self._histogram("request_generation_tokens", "Tokens of an answer.", TOKENS)
        self._batches = self._histogram("iteration_tokens_total", "Tokens of one forward of the base.", PER_STEP)

    def plans_with(self, planners: Planners) -> None:
        """Show what layouts are chosen by: the acceptance that is expected, and what is measured of steps."""
        names, book = [*self._labels, "position"], planners.book
        about = "Share of steps expected to keep the draft at a position."
        expected = Gauge("foresay:expected_acceptance", about, names, registry=self._registry)
        for place in range(len(planners.acceptance.estimate())):
            shown = expected.labels(**self._labels, position=str(place))
            shown.set_function(partial(planners.expected_acceptance, place))
        for name, about, cells in (
            ("costs_known", "Batch sizes and context lengths whose steps were measured.", book.known),
            ("costs_wanted", "Those that are yet to be measured.", book.wanted),
        ):
            gauge = Gauge(f"foresay:{name}", about, list(self._labels), registry=self._registry)
            gauge.labels(**self._labels).set_function(partial(len, cells))

    def keeps(self, prefixes: PrefixCache) -> None:
        """Show what the prefix cache holds."""
        gauge = Gauge(
            "foresay:prefix_cache_bytes",
            "Bytes that the prefix cache holds.",
            list(self._labels),
            registry=self._registry,
        )
        gauge.labels(**self._labels).set_function(lambda: prefixes.bytes)

    def asked(self, tokens: int, max_tokens: int) -> None:
        """An answer of at most `max_tokens` was asked for, to a prompt of `tokens`."""
        self._prompt_tokens.inc(tokens)
        self._prompt_lengths.observe(tokens)
        self._limits.observe(max_tokens)

    def repeated(self, count: int) -> None:
        """A request wants so many answers to each of its prompts."""
        self._counts.observe(count)

    def forward(self, tokens: int) -> None:
        """A forward of the base gave so many tokens, of all answers together."""
        self._batches.observe(tokens)

    def looked_up(self, course: Course, cached: int | None) -> None:
        """An answer's prompt was read but for so many tokens, which the prefix cache had; None: there is none."""
        if cached is not None:
            self._queries.inc(course.prompt)
            self._hits.inc(cached)

    def step(self, course: Course, step: Step, begun: float) -> None:
        """One answer got a step, which began at the time `begun`."""
        now, before = monotonic(), course.last
        # Whole before anything is counted: the end of the answer may be counted by another thread meanwhile.
        course.last = now
        course.tokens += len(step.tokens)
        if course.first:
            self._between.observe(now - before)
        else:
            course.begun, course.first = begun, now
            self._queue.observe(begun - course.asked)
            self._prefill.observe(now - begun)
            self._first.observe(now - course.asked)
        self._tokens.inc(len(step.tokens))
        if step.layout:
            self._layouts.labels(**self._labels, layout=step.layout).inc()
        if step.drafted:
            self._drafts.inc()
            self._drafted.inc(step.drafted)
            self._accepted.inc(step.accepted)
            for place in range(step.accepted):
                self._places.labels(**self._labels, position=str(place)).inc()

    def ended(self, course: Course, reason: str) -> None:
        """An answer is over."""
        self._ended.labels(**self._labels, finished_reason=reason).inc()
        self._lengths.observe(course.tokens)
        self._whole.observe(monotonic() - course.asked)
        if course.first:
            self._decode.observe(course.last - course.first)
            self._inference.observe(course.last - course.begun)
        if course.tokens > 1:
            self._per_token.observe((course.last - course.first) / (course.tokens - 1))

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"vllm:{name}", about, [*self._labels, *labels], registry=self._registry)

    def _count(self, name: str, about: str) -> Counter:
        return self._counter(name, about).labels(**self._labels)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        kind = Histogram(f"vllm:{name}", about, list(self._labels), registry=self._registry, buckets=buckets)
        return kind.labels(**self._labels)

    def _times(self, name: str, about: str) -> Histogram:
        return self._histogram(name, about, LATENCIES)
