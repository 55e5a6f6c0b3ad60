"""Which rows of the running call LoRA acts on (paper A, section 3.1: `I(t)`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class OpenRows:
    """The call for which the gate stands open."""

    batch: int
    rows: int
    real: int


class Gate:
    """Closed, every row is the base's own. Open, the mask rows of a call, a suffix of its rows, get LoRA.

    One gate is shared by all LoRA layers of a model; nothing else decides where they act.
    """

    def __init__(self) -> None:
        self._open: OpenRows | None = None

    @property
    def is_open(self) -> bool:
        """True while a call with mask rows runs."""
        return self._open is not None

    @contextmanager
    def open(self, batch: int, rows: int, real: int) -> Iterator[None]:
        """Open for one call of `batch` sequences and `rows` rows, of which the first `real` stay the base's own.

        Raises RuntimeError when it stands open already: one call runs at a time.
        """
        if self._open is not None:
            raise RuntimeError("the gate is open already: calls of one model cannot be nested or run in two threads")
        self._open = OpenRows(batch, rows, real)
        try:
            yield
        finally:
            self._open = None

    @property
    def real(self) -> int:
        """Real rows of the running call."""
        assert self._open is not None, "the gate is closed"
        return self._open.real

    def by_row(self, states: Tensor, name: str) -> Tensor:
        """View a linear's (B, T, D) or flattened (B * T, D) input or output as (B, T, D).

        Raises RuntimeError, naming the linear, for any other shape: rows could not be told apart.
        """
        call = self._open
        assert call is not None, "the gate is closed"
        if states.shape[:-1] == (call.batch, call.rows):
            return states
        if states.shape[:-1] == (call.batch * call.rows,):
            return states.view(call.batch, call.rows, states.shape[-1])
        raise RuntimeError(
            f"linear {name} got shape {tuple(states.shape)}; gated LoRA needs ({call.batch}, {call.rows}, width) or "
            f"({call.batch * call.rows}, width)"
        )

    def masks(self, states: Tensor, name: str) -> Tensor:
        """View the mask rows of a linear's input or output: (B, M, D), or (M, D) of one sequence.

        Raises as `by_row`.
        """
        call = self._open
        assert call is not None, "the gate is closed"
        if call.batch == 1 and states.shape[:-1] == (1, call.rows):
            return states[0, self.real :]
        return self.by_row(states, name)[:, self.real :]
