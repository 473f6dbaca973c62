"""Running the real command, and what its tests look at.

Where nothing speaks against it the command runs in a process that is forked from one which has imported the
libraries already: the same program in a tenth of the time.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pyvips
import torch

from relume.core.pictures import Picture, write

if TYPE_CHECKING:
    from serving import Server

COMMAND = [str(Path(sys.executable).with_name("relume"))]
Done = subprocess.CompletedProcess[str]

# Ours, in the order in which they are replaced, and the authors'.
_AUTHORS_NAMES = (
    (".mixer_scale", ".layer_scale_1"),
    (".feed_forward_scale", ".layer_scale_2"),
    (".mixer.query.", ".attn.a.0."),
    (".mixer.spread.", ".attn.a.2.lkb_reparam."),
    (".mixer.value.", ".attn.v."),
    (".mixer.project.", ".attn.proj."),
    (".mixer.norm.", ".attn.norm."),
    (".feed_forward.norm.", ".mlp.norm."),
    (".feed_forward.expand.", ".mlp.fc1."),
    (".feed_forward.local.", ".mlp.pos."),
    (".feed_forward.contract.", ".mlp.fc2."),
    ("shallow.", "conv_first."),
    ("fuse.", "conv_after_body."),
    ("reconstruct.", "upsample.0."),
    (".close.", ".conv."),
    (".layers.", ".blocks."),
    ("stages.", "layers."),
)


def environment() -> dict[str, str]:
    """This process's, with one thread and without what changes how programs print."""
    unwanted = {"FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "PYTHONIOENCODING", "COLUMNS"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "OMP_NUM_THREADS": "1", "TERM": "xterm"}


def run_relume(
    *args: object, cwd: Path, limits: dict[str, int] | None = None, env: dict[str, str] | None = None
) -> Done:
    """Run the command to its end.

    Args:
        args: its arguments.
        cwd: the folder it runs in.
        limits: of `resource`, by name ("RLIMIT_FSIZE").
        env: variables to add.
    """
    command = [*COMMAND, *map(str, args)]
    # Limits of memory count what a program begins with, and Python looks at its own variables as it begins.
    early = any(name.startswith(("PYTHON", "LD_")) for name in env or {})
    if hasattr(os, "fork") and not limits and not early:
        ended = _server().run("serving:relume", *args, cwd=cwd, environment={**environment(), **(env or {})})
        return Done(command, ended.status, ended.out, ended.err)
    if limits:
        pytest.importorskip("resource")
        # A program that sets its own limits and then becomes the command; `preexec_fn` minds threads.
        code = "import os, resource, sys\n" + "".join(
            f"resource.setrlimit(resource.{name}, ({value}, {value}))\n" for name, value in limits.items()
        )
        command = [sys.executable, "-c", f"{code}os.execv(sys.argv[1], sys.argv[1:])", *command]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**environment(), **(env or {})},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=300,
        check=False,
    )


@cache
def _server() -> Server:
    """Return the process that commands are forked from, which ends with the tests."""
    from serving import Server, libraries

    server = Server(*libraries(), environment=environment())
    atexit.register(server.__exit__, None, None, None)
    return server.__enter__()


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder to any depth, hidden files too; None for what is no ordinary file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def no_artefacts(line: str) -> bool:
    """Whether a line holds neither markup nor what a terminal would obey."""
    return not re.search(r"\[/?(bold|red|green|yellow|)( \w+)?\]|\\\[|\x1b|Traceback", line)


def authors_name(key: str) -> str:
    """What the authors of CFSR call one of our keys."""
    for ours, theirs in _AUTHORS_NAMES:
        key = key.replace(ours, theirs)
    return key


def picture_file(path: Path, width: int = 12, height: int = 9, channels: int = 3, seed: int = 0) -> Path:
    """Write an 8-bit picture of noise."""
    generator = torch.Generator().manual_seed(seed)
    write(Picture(pixels=torch.rand(channels, height, width, generator=generator)), path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture, every pixel of it decoded."""
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "", fail_on="warning")
    image.avg()
    return image.width, image.height
