"""The memory that one piece of work takes, apart from what the program holds anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relume.core.machine import memory_figure

_RESET = Path("/proc/self/clear_refs")


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

    Work that finds room left over by earlier work is told too low; so a first run tells most.

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
    resident = memory_figure("VmRSS") if _forget_peak() else None
    yield taken
    peak = memory_figure("VmHWM")
    if resident is not None and peak is not None:
        taken.bytes = max(0, peak - resident)


def _forget_peak() -> bool:
    """Let the system's peak of this process start anew; false where that cannot be."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True
