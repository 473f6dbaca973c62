"""Build the kernels once, keep them, load them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import secrets
import shutil
import subprocess
from functools import cache
from pathlib import Path

from relume.core.errors import RelumeError
from relume.core.machine import cache_folder, processor

SOURCE = Path(__file__).with_name("kernels.cpp")

_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-pthread")
_TUNED = {"aarch64": "-mcpu=native", "arm64": "-mcpu=native"}


class NativeError(RelumeError):
    """The kernels cannot be had on this machine."""


@cache
def library() -> ctypes.CDLL:
    """Return the kernels, building them where this machine has not done so before.

    They are kept in the cache folder, under a name that says source, compiler, flags and processor.

    Raises:
        NativeError: no compiler is at hand, or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise NativeError(
            "the native kernels need a C++ compiler (g++, clang++ or CXX); install one or take another engine"
        )
    flags = (*_FLAGS, _TUNED.get(platform.machine(), "-march=native"))
    source = SOURCE.read_bytes()
    made_of = (source, compiler.encode(), _version(compiler), " ".join(flags).encode(), processor().encode())
    digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:24]
    built = cache_folder("native") / f"kernels-{digest}.so"
    if not built.is_file():
        _build(compiler, flags, built)
    try:
        return ctypes.CDLL(os.fspath(built))
    except OSError as error:
        raise NativeError(f"{built}: the built kernels cannot be loaded ({error}); delete the file") from None


def find_compiler() -> str | None:
    """Return the C++ compiler's path, or None where there is none; `CXX` comes first."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def _version(compiler: str) -> bytes:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeError(f"the compiler {compiler} cannot be run ({error}); set CXX to another") from None


def _build(compiler: str, flags: tuple[str, ...], target: Path) -> None:
    # Beside it and renamed: two processes may build at once, and neither may see half a file.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        command = [compiler, *flags, os.fspath(SOURCE), "-o", os.fspath(part)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=600, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            said = lines[0].strip() if lines else f"it ended with {done.returncode}"
            raise NativeError(f"the compiler {compiler} could not build the native kernels: {said[:300]}")
        part.replace(target)
    except OSError as error:
        raise NativeError(f"the native kernels cannot be kept in {target.parent}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NativeError(f"the compiler {compiler} did not end within 10 minutes") from None
    finally:
        part.unlink(missing_ok=True)
