"""What this machine is, and what this process uses of it."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import shutil
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far in bytes, or None where it cannot be read."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux its peak begins with that of the process which started this one.
    peak = memory_figure("VmHWM")
    return peak and max(peak, _forgotten)


_forgotten = 0


def forget_peak() -> bool:
    """Let the system's peak of this process (`VmHWM`) start anew; false where that cannot be.

    `peak_memory` keeps counting from the start.
    """
    global _forgotten
    _forgotten = peak_memory() or 0
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def give_back_memory() -> None:
    """Have the C library give the memory that it keeps for later back to the system, where it can (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def memory_figure(name: str) -> int | None:
    """Return one of Linux's figures of this process, as `VmRSS`, in bytes; None where it cannot be read."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def resident_memory() -> int | None:
    """Return the resident memory of this process now in bytes, or None where it cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_memory() -> int | None:
    """Return how many bytes this process may still take, or None where that cannot be read.

    What the system calls available, or what a container's limit leaves where that is less.
    """
    found = [limit for limit in (_available(), _left_in_container()) if limit is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_in_container() -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            return max(0, int((folder / limit).read_text()) - int((folder / used).read_text()))
        except (OSError, ValueError):  # no container, no limit ("max")
            continue
    return None


def cache_folder(part: str = "") -> Path:
    """Return a folder for what can be made again (built kernels, measurements); it is there.

    `RELUME_CACHE` names another place than the system's. Where none can be made, it is a temporary one that
    goes with this process, and `cache_trouble` says why.

    Args:
        part: a folder in it.
    """
    wanted = _wanted_cache()
    for base in (_stand_ins.get(wanted, wanted), None):
        folder = (base or _stand_in(wanted)) / part
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if base is None:
                raise
            _trouble[wanted] = f"{wanted}: {error.strerror or error}"
            continue
        if base is None or os.access(folder, os.W_OK | os.X_OK):
            return folder
        _trouble[wanted] = f"{wanted}: may not be written"
    raise AssertionError("a temporary folder was made")


def cache_trouble() -> str | None:
    """Return why what is made is not kept, in a sentence; None where nothing is wrong."""
    said = _trouble.get(_wanted_cache())
    return said and f"the cache folder cannot be used ({said}), so nothing is kept; name one in RELUME_CACHE"


_stand_ins: dict[Path, Path] = {}
_trouble: dict[Path, str] = {}


def _stand_in(wanted: Path) -> Path:
    if wanted not in _stand_ins:
        _stand_ins[wanted] = Path(tempfile.mkdtemp(prefix="relume-"))
        atexit.register(shutil.rmtree, _stand_ins[wanted], ignore_errors=True)
    return _stand_ins[wanted]


def _wanted_cache() -> Path:
    if chosen := os.environ.get("RELUME_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "relume"


@cache
def processor() -> str:
    """Return what tells this processor from others, as far as speed and instructions go."""
    return _processor("model name", "CPU part", "flags", "Features")


def processor_name() -> str:
    """Return what the processor is called, for people."""
    return _processor("model name", "CPU part")


def _processor(*keys: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in lines}
    return f"{platform.machine()} {' '.join(named[key] for key in keys if named.get(key))}"


def most_threads() -> int:
    """Return how many threads may be asked for: more than a few for each core only cost time and memory."""
    return 4 * (os.cpu_count() or 1)


def versions() -> dict[str, str]:
    """Return the versions of what figures and weights depend on, by name."""
    found = {"python": platform.python_version()}
    for package in ("relume", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found
