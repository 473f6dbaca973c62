"""The memory that one piece of work takes, apart from what the program holds anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relume.core.machine import forget_peak, give_back_memory, memory_figure


@dataclass
class MemoryTaken:
    """The result of `memory_taken`.

    Attributes:
        bytes: the largest that was in use at once beyond what was before; None where this system does not
            tell it (only Linux does, and CUDA of its own memory), and until the work is done.
    """

    bytes: int | None = None


@contextmanager
def memory_taken(device: str) -> Iterator[MemoryTaken]:
    """Measure the memory that the work inside takes.

    What earlier work left over is given back before, as far as the C library has it; a library with a pool
    of its own is told too low when it did the same work before.

    Args:
        device: where the work runs: of a CUDA device its own memory is measured, else the main memory.
    """
    taken = MemoryTaken()
    if device.startswith("cuda"):
        import torch

        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield taken
        taken.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    give_back_memory()
    resident = memory_figure("VmRSS") if forget_peak() else None
    yield taken
    peak = memory_figure("VmHWM")
    if resident is not None and peak is not None:
        taken.bytes = max(0, peak - resident)
