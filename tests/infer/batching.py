"""A small real batch: pictures read, enlarged by bicubic interpolation, and written.

Run as a program it is what the tests kill: `batching.py IN OUT [--slow SECONDS]`.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F

from relume.core.errors import RelumeError
from relume.core.pictures import SUFFIXES, Picture, read, write
from relume.infer.batch.inputs import Finder
from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.pipeline import run
from relume.infer.batch.planning import Planned, Wish, plan
from relume.infer.batch.stages import Advance, Job, Load, Outcome, Skip, Tally

MEMORY = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Enlarge:
    """Stages that enlarge by bicubic interpolation, as slowly as wished."""

    scale: int = 2
    seconds: float = 0.0

    def weigh(self, job: Job) -> Load:
        return Load(decoded=1 << 16, computed=1 << 18)

    def decode(self, job: Job) -> Picture:
        return read(job.source)

    def compute(self, decoded: Picture, advance: Advance) -> Picture:
        for step in range(4):
            time.sleep(self.seconds / 4)
            advance((step + 1) / 4)
        pixels = F.interpolate(decoded.pixels[None], scale_factor=self.scale, mode="bicubic")[0].clamp(0, 1)
        return decoded.replace(pixels=pixels)

    def encode(self, job: Job, computed: Picture, hidden: Path) -> Outcome:
        notes = write(computed, hidden)
        return Outcome(
            pixels=computed.width * computed.height, notes=tuple(notes), facts={"output": computed.size}
        )


class Copy:
    """Stages that copy text with a "!" behind it, where neither pictures nor time matter.

    What a file holds may ask for a certain end: "bad", "bug", "skip", "no output".
    """

    def weigh(self, job: Job) -> Load:
        return Load(decoded=100, computed=400)

    def decode(self, job: Job) -> str:
        text = job.source.read_text()
        if job.scratch is not None:
            (job.scratch / "pixels").write_text(text)  # as large pictures lie on disk
        if text == "bad":
            raise RelumeError(f"{job.source}: is bad; mend it")
        if text == "skip":
            raise Skip("nothing to do")
        return text

    def compute(self, decoded: str, advance: Advance) -> str:
        advance(1.0)
        if decoded == "bug":
            raise KeyError(decoded)
        return decoded

    def encode(self, job: Job, computed: str, hidden: Path) -> Outcome:
        if computed != "no output":
            assert job.scratch is None or (job.scratch / "pixels").exists()
            hidden.write_text(f"{computed}!")
        return Outcome(pixels=len(computed))


@dataclass
class Heard:
    """A listener that remembers."""

    begun_ones: list[Path] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    ends: dict[str, Outcome] = field(default_factory=dict)

    def begun(self, job: Job) -> None:
        self.begun_ones.append(job.source)

    def advanced(self, job: Job, share: float) -> None:
        self.shares.append(share)

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.ends[job.source.name] = outcome


def wishes(finder: Finder, given: list[Path], output: Path | None, suffix: str = "") -> list[Wish]:
    """Outputs go below `output`, as the inputs lie, or beside the inputs."""
    made = []
    for found in finder.find(given):
        path = Path(found.path)
        folder = path.parent if output is None else output / found.folder
        target = folder / f"{path.stem}{suffix}{path.suffix}"
        made.append(
            Wish(found.path, str(target), found.size, found.mtime_ns, found.search if suffix else None)
        )
    return made


def plan_folder(
    manifest: Manifest, given: list[Path], output: Path | None, *, suffix: str = "", deep: bool = False,
    overwrite: bool = False, lines: list[str] | None = None,
) -> Planned:  # fmt: skip
    said = [] if lines is None else lines
    finder = Finder(SUFFIXES, deep=deep, manifest=manifest, tell=said.append)
    return plan(
        manifest, wishes(finder, given, output, suffix), overwrite=overwrite,
        refuse=lambda _, line: said.append(line),
    )  # fmt: skip


def batch(
    source: Path, output: Path, *, stages: Enlarge | Copy | None = None, heard: Heard | None = None,
    stop: threading.Event | None = None, overwrite: bool = False, lines: list[str] | None = None,
    **settings: object,
) -> Tally:  # fmt: skip
    """Plan a folder into another and do what is left."""
    output.mkdir(exist_ok=True)
    with Manifest.open(output / FILE_NAME, settings) as manifest:
        plan_folder(manifest, [source], output, overwrite=overwrite, lines=lines)
        return run(manifest, stages or Enlarge(), listener=heard or Heard(), memory=MEMORY, stop=stop)


def picture(path: Path, width: int = 16, height: int = 12, seed: int = 0) -> Path:
    """Write a picture of noise."""
    generator = torch.Generator().manual_seed(seed)
    write(Picture(pixels=torch.rand(3, height, width, generator=generator)), path)
    return path


def pictures(folder: Path, count: int) -> Path:
    """Make a folder of pictures of noise of several sizes and formats."""
    folder.mkdir(parents=True)
    for number in range(count):
        ending = (".png", ".tif", ".webp")[number % 3]
        picture(folder / f"{number:03}{ending}", 12 + number % 7, 9 + number % 5, seed=number)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder to any depth with its content, hidden things too; nothing for folders."""
    return {
        str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def outputs(folder: Path) -> dict[str, bytes]:
    """All that is in a folder but its manifest."""
    return {name: data for name, data in contents(folder).items() if name != FILE_NAME}


if __name__ == "__main__":
    try:
        tally = batch(
            Path(sys.argv[1]), Path(sys.argv[2]),
            stages=Enlarge(seconds=float(sys.argv[4]) if len(sys.argv) > 3 else 0.0),
        )  # fmt: skip
    except RelumeError as error:
        sys.exit(f"error: {error}")
    print(tally)
    sys.exit(130 if tally.stopped else 0)
