"""Photos to prepare, and preparing them with few words."""

import torch
from PIL import Image
from torch.nn import functional as F

from relume.core.pictures import read
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.running import prepare

SMALL = {"side": 64, "overlap": 16, "least": 40, "blockiness": 0.0}


class Listening:
    def __init__(self, *, stop_after=None):
        self.seen, self.stop_after = [], stop_after

    def begun(self, what, total):
        self.what = what

    def done(self, source):
        self.seen.append((self.what, source))
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise KeyboardInterrupt


def scene(seed, height=96, width=120):
    """A picture with large forms and fine grain, unlike that of another seed; `3 H W`, 0..1."""
    generator = torch.Generator().manual_seed(seed)
    forms = F.interpolate(torch.rand(1, 3, 5, 5, generator=generator), (height, width), mode="bicubic")[0]
    return (forms * 0.8 + 0.1 * torch.rand(3, height, width, generator=generator)).clamp(0, 1)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(path, **options)


def run(folder, output=None, *, listener=None, held_back=(), workers=1, **changes):
    config = PreparationConfig(**{**SMALL, **changes})
    result = prepare(folder, output, config, listener or Listening(), held_back=held_back, workers=workers)
    return {row["source"]: row for row in result.rows}


def reasons(rows):
    return {source: row["reason"] for source, row in rows.items() if row["reason"]}


def levels_of(path):
    return read(path).pixels.mul(255).round().byte()
