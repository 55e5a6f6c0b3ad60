"""What a step costs on this machine: whole steps of every entry of the menu, measured once and remembered."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from foresay.decoding.config import DecodeConfig
from foresay.decoding.cost_files import Measured, keep, menu_of, place_of, read
from foresay.decoding.live import LiveSequence
from foresay.decoding.planning.acceptance import AcceptanceEstimate, prior
from foresay.decoding.planning.plan import PendingRows
from foresay.decoding.planning.planner import PLAIN, Cost, Costs, Entry, Planner, expected_rate
from foresay.decoding.planning.prompt_lookup import TOKENS
from foresay.decoding.sampling.chooser import Drafts
from foresay.decoding.session import Session
from foresay.foundation.machine import OtherPrograms, now
from foresay.models.drafting import DraftingModel

SECONDS = 10.0
"""Time for one batch size and context length; the first steps of an entry, which may compile, come on top."""
ROUNDS = 24
"""Times that every entry is measured, where there is time."""
USABLE = 3
"""Times that every entry is measured before anybody plans by the figures."""
CONTEXTS = (128, 512, 2048, 8192)
"""Context lengths that are measured; a request takes the next larger one."""
TYPICAL = 512
"""Context length that is measured first where texts of any length will come."""
Watch = Callable[[float], None]
"""Told of the share of a calibration that is done."""


def unwatched(share: float) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What steps cost at one batch size and context length."""

    batch_size: int
    context_tokens: int
    """Tokens cached before the step."""
    costs: Costs
    """An entry is missing where the time was over before its turn."""
    left_out: tuple[Entry, ...] = field(default=(), compare=False)
    """Those: `planned` never takes them here until they are measured."""
    rounds: tuple[Costs, ...] = field(default=(), compare=False)
    """The costs of each round of the measurement, in which every entry had its turn; empty where they were read."""
    calm: bool = field(default=True, compare=False)
    """No other program took the processor while they were measured."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an entry costs and promises."""

    entry: Entry
    rows: int
    """Rows of a sequence in a step with all its drafts."""
    drafted_seconds: float
    undrafted_seconds: float
    times_plain: float
    """A step with drafts against a step of plain decoding."""
    tokens_per_second: float
    """Expected of the whole batch, before anything is observed."""
    chosen: bool
    """What `planned` begins with."""

    @property
    def label(self) -> str:
        """The layout in one word or two."""
        return self.entry.label


def planner_for(
    model: DraftingModel, batch_size: int, length: int, masks: int = 0, watch: Watch = unwatched
) -> Planner:
    """A planner for a batch of prompts of at most `length` tokens, with at most `masks` masks (0: as trained)."""
    most = masks or model.config.drafts
    costs = curve_for(model, batch_size, length, watch).costs
    usable = {entry: cost for entry, cost in costs.items() if entry.masks <= most}
    return Planner(usable, AcceptanceEstimate.from_training(model.acceptance, most))


def known_acceptance(model: DraftingModel) -> tuple[float, ...]:
    """What training left, or a guess where it left nothing."""
    return prior(model.acceptance, model.config.drafts)


def forecast(curve: Curve, known: Sequence[float]) -> tuple[Forecast, ...]:
    """Every entry of `curve`, `plain` first, where the j-th draft is kept with chance `known[j - 1]`."""
    best, plain = Planner(curve.costs, AcceptanceEstimate(known)).best(), curve.costs[PLAIN]
    return tuple(
        Forecast(
            entry=entry,
            rows=cost.rows,
            drafted_seconds=cost.drafted,
            undrafted_seconds=cost.undrafted,
            times_plain=cost.drafted / plain.drafted,
            tokens_per_second=curve.batch_size * expected_rate(entry, cost, known),
            chosen=entry == best,
        )
        for entry, cost in curve.costs.items()
    )


def curve_for(model: DraftingModel, batch_size: int, length: int, watch: Watch = unwatched) -> Curve:
    """Seconds of a step for each entry, at this batch size and about this context length.

    Read from the cache folder (`FORESAY_CACHE`, else `~/.cache/foresay`) when measured before on this machine with the
    same model, dtype and number of threads; else, or when the file is torn or other programs ran then, measured and
    kept there.
    """
    batch, context = rounded(model, batch_size, length)
    path = place_of(model, batch, context)
    kept = read(path)
    if kept is not None and kept.calm:
        return Curve(batch, context, kept.costs)
    curve = calibrate(model, batch_size, length, watch=watch)
    better = read(path)
    return curve if better is None else replace(curve, costs=better.costs)


def calibrate(
    model: DraftingModel, batch_size: int, length: int, seconds: float = SECONDS, watch: Watch = unwatched
) -> Curve:
    """Measure anew and keep it; batch size and length are rounded up to what is measured. See `curve_for`.

    Where other programs took the processor, it warns, and a calm measurement from before stays in its file.
    """
    batch, context = rounded(model, batch_size, length)
    path = place_of(model, batch, context)
    measurement = measured(model, batch, context, seconds, watch)
    found = measurement.found()
    keep(path, found.beside(read(path)))
    if not found.calm:
        warnings.warn(
            f"other programs took the processor while steps of {batch} sequences after {context} tokens were measured, "
            "so planned may choose by wrong costs; stop them and run foresay calibrate",
            stacklevel=2,
        )
    missing = tuple(entry for entry in menu_of(model) if entry not in found.costs)
    return Curve(batch, context, found.costs, missing, measurement.rounds(), found.calm)


def rounded(model: DraftingModel, batch_size: int, length: int) -> tuple[int, int]:
    """Batch size and context length to be measured: the next power of two, the next of `CONTEXTS`."""
    # Masks stand up to k positions after the last draft.
    longest = model.base.limits[0] - _room(model) - max(model.config.drafts, TOKENS)
    context = min(next((c for c in CONTEXTS if c >= length), CONTEXTS[-1]), max(longest, 1))
    return 1 << max(batch_size - 1, 0).bit_length(), context


class Measurement:
    """Seconds of a step with drafts and of one without, after `context` cached tokens, measured turn by turn.

    The entries take turns, so that a machine that drifts drifts for all of them, until `seconds` are spent or each was
    measured `ROUNDS` times. Where that is not even one round, the last entries are left out.
    """

    def __init__(self, model: DraftingModel, batch_size: int, context: int, seconds: float = SECONDS) -> None:
        config = DecodeConfig(layout="planned", max_new_tokens=_room(model), ignore_stop=True)
        if model.shortlist is None:
            model.shortlist = config.shortlist_size(model.base.vocabulary)
        self.batch_size, self.context, self.seconds = batch_size, context, seconds
        self._session = Session(model, [[0] * context] * batch_size, config)
        self._entries = menu_of(model)
        self._laps: dict[Entry, list[Cost]] = {}
        self._alone: dict[Entry, list[Cost]] = {}
        self._turns, self._spent = 0, 0.0

    @property
    def share(self) -> float:
        """What is done of it."""
        return min(max(self._turns / (ROUNDS * len(self._entries)), self._spent / self.seconds), 1.0)

    @property
    def usable(self) -> bool:
        """Whether each entry was measured a few times, or all is done."""
        return self._turns >= USABLE * len(self._entries) or self.share == 1.0

    def turn(self) -> None:
        """Measure the entry whose turn it is once more: four steps."""
        entry = self._session.fixed = self._entries[self._turns % len(self._entries)]
        # Another entry went before: hooks and caches are its own, and what is compiled is compiled at the first call.
        lap(self._session, self.batch_size, self.context)
        others = OtherPrograms()
        cost = lap(self._session, self.batch_size, self.context)
        self._laps.setdefault(entry, []).append(cost)
        if not others.disturbed(cost.drafted + cost.undrafted):
            self._alone.setdefault(entry, []).append(cost)
        self._turns += 1
        self._spent += 2 * (cost.drafted + cost.undrafted)

    def found(self) -> Measured:
        """What is known so far: by laps that had the processor for themselves, where there are a few."""
        alone = {entry: self._alone.get(entry, []) for entry in self._laps}
        calm = {entry: len(some) >= min(USABLE, len(self._laps[entry])) for entry, some in alone.items()}
        chosen = {entry: alone[entry] if calm[entry] else some for entry, some in self._laps.items()}
        return Measured({entry: _undisturbed(some) for entry, some in chosen.items()}, all(calm.values()))

    def rounds(self) -> tuple[Costs, ...]:
        """The same round by round, of those in which every entry had its turn."""
        whole = self._turns // len(self._entries)
        return tuple({entry: some[place] for entry, some in self._laps.items()} for place in range(whole))


def measure(
    model: DraftingModel, batch_size: int, context: int, seconds: float = SECONDS, watch: Watch = unwatched
) -> Costs:
    """What steps cost, at once."""
    return dict(measured(model, batch_size, context, seconds, watch).found().costs)


def measured(
    model: DraftingModel, batch_size: int, context: int, seconds: float = SECONDS, watch: Watch = unwatched
) -> Measurement:
    """A whole `Measurement`, at once."""
    measurement = Measurement(model, batch_size, context, seconds)
    watch(0.0)
    while measurement.share < 1.0:
        measurement.turn()
        watch(measurement.share)
    return measurement


def lap(session: Session, batch_size: int, context: int) -> Cost:
    """A step without drafts, and the step after it that verifies what the first one drafted, as `session.fixed` says.

    Nothing is prefilled: the cache holds zeros, or what an earlier lap left, and a step costs the same on them.
    """
    session.live = [
        LiveSequence(index, PendingRows(context, 1, 0), _room(session.model), []) for index in range(batch_size)
    ]
    session.pending = Drafts(session.pending.tokens.new_zeros(batch_size, 1))
    undrafted = _step(session)
    if session.fixed is not None and session.fixed.lookup:
        session.draft_instead([[0] * session.fixed.lookup] * batch_size)
    drafted = _step(session)
    slots = session.cache.placement.slots
    assert slots is not None, "a step was made"
    return Cost(drafted, undrafted, slots.shape[1])


def _step(session: Session) -> float:
    """Seconds of a step."""
    device = session.model.base.device
    started = now(device)
    session.step()
    return now(device) - started


def _undisturbed(laps: list[Cost]) -> Cost:
    """The lower quartile of each figure: other programs only ever add to it."""
    drafted, undrafted = (
        sorted(seconds)[(len(laps) - 1) // 4]
        for seconds in ([lap.drafted for lap in laps], [lap.undrafted for lap in laps])
    )
    return Cost(drafted, undrafted, max(lap.rows for lap in laps))


def _room(model: DraftingModel) -> int:
    """Tokens that a lap may say, one left over so that no sequence ends."""
    return max(model.config.drafts, TOKENS) + 3
