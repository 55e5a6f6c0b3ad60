"""Work on a device, recorded once and replayed: what a CUDA graph asks for, and nothing that knows of decoding.

A recording reads and writes memory at fixed addresses, so what goes in is copied to tensors that stay where they are,
and what comes out is found in such tensors. The host takes no part: whatever Python decided while the work was recorded
is decided for good, and the work may not wait for the device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[[], None]


class CannotRecordError(Exception):
    """Work that cannot be replayed, with the reason."""


class Recorder(Protocol):
    """Records work and gives back what does it again, on the same tensors."""

    def record(self, work: Work) -> Work:
        """`work` was done before, so that nothing in it is made for the first time. Raises CannotRecordError."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory: they are replayed one after the other, never side by side."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        """See `Recorder.record`: once on the stream of the recording, for which libraries allocate, then as a graph."""
        here = torch.cuda.current_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            self.stream.wait_stream(here)
            with torch.cuda.stream(self.stream), _waiting_is_an_error():
                work()
            here.wait_stream(self.stream)
            # Other threads may allocate meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise CannotRecordError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        return graph.replay


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Let whatever makes the host wait for the device raise RuntimeError; a recording that meets it breaks."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Replay:
    """A function of nothing but tensors that stay where they are: computed once, then replayed."""

    def __init__(self, recorder: Recorder, function: Callable[[], Sequence[Tensor]]) -> None:
        """Raises CannotRecordError."""
        self.results = tuple(torch.empty_like(made, memory_format=torch.contiguous_format) for made in function())
        """What `function` gave, in tensors outside the recordings' memory; the next replay writes over them."""

        def work() -> None:
            for kept, made in zip(self.results, function()):
                kept.copy_(made)

        self._again = recorder.record(work)

    def __call__(self) -> tuple[Tensor, ...]:
        """The function's results for what its inputs hold now."""
        self._again()
        return self.results


def recorder_for(device: torch.device) -> Recorder | None:
    """What records work on this device; None where nothing does."""
    return CudaRecorder(device) if device.type == "cuda" else None
