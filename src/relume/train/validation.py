"""Validation during a training: the same figures as `relume evaluate`, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.sheets import contact_sheet, save_sheet
from relume.data.benchmarks import Damage, find_pairs
from relume.measures.protocols import protocol
from relume.nn.channels import run_picture
from relume.nn.resize import enlarge_bicubic


class ValidationConfig(Config):
    """What to validate on.

    Attributes:
        folder: a benchmark set as `relume evaluate` takes it; None validates nothing.
        protocol: how it is measured.
        pictures: how many of the set are saved as pictures, beside bicubic and target.
        best: the figure that decides which weights are best.
        lowest: whether the lowest of it is best, rather than the highest.
        damaged: whether its low pictures are made by the recipe's degradation, each time alike, rather than
            given or shrunk by bicubic.
    """

    folder: Path | None = None
    protocol: str = "sr-y"
    pictures: NonNegativeInt = 2
    best: str = "psnr"
    lowest: bool = False
    damaged: bool = False


class Validation:
    """Enlarges the set with a network, measures, and saves pictures under `pictures/`.

    The pictures are RGB; a model of other channels gets them as it does in use (`nn.channels`).

    Args:
        config: the set and the protocol; its folder must be given.
        contract: the network's.
        folder: the run's folder.
        damage: what makes low pictures, where the set is to be damaged.

    Raises:
        DataError: the set cannot be found or used.
    """

    def __init__(
        self, config: ValidationConfig, *, contract: Contract, folder: Path, damage: Damage | None = None
    ) -> None:
        assert config.folder is not None
        scale = contract.scale
        self._pairs = list(find_pairs(config.folder, scale=scale, damage=damage))
        self._protocol = protocol(config.protocol)
        for pair in self._pairs:
            pair.refuse_smaller(self._protocol.smallest_side(scale), needed_by=self._protocol.name)
        self._contract = contract
        self._folder = folder / "pictures"
        self._pictures = config.pictures
        self._bicubic = [enlarge_bicubic(pair.low, scale=scale) for pair in self._pairs]
        self._baseline = [
            self._protocol.measure(bicubic, pair.high, scale)
            for bicubic, pair in zip(self._bicubic, self._pairs, strict=True)
        ]

    @torch.inference_mode()
    def __call__(self, network: nn.Module, step: int) -> Mapping[str, float]:
        """Return mean psnr and ssim over the set, and bicubic's beside them."""
        device = next(network.parameters()).device
        figures = []
        for index, pair in enumerate(self._pairs):
            output = run_picture(
                network, pair.low[None].to(device),
                channels=self._contract.channels, luma=self._contract.luma,
            )[0].float().cpu()  # fmt: skip
            figures.append(self._protocol.measure(output, pair.high, self._contract.scale))
            if index < self._pictures:
                self._save(index, output, figures[-1], step)
        return {
            **{name: _mean(figures, name) for name in ("psnr", "ssim")},
            **{f"{name}_bicubic": _mean(self._baseline, name) for name in ("psnr", "ssim")},
        }

    def _save(self, index: int, output: Tensor, figures: Mapping[str, float], step: int) -> None:
        pair, baseline = self._pairs[index], self._baseline[index]
        self._folder.mkdir(exist_ok=True)
        sheet = contact_sheet(
            [
                (f"bicubic, {baseline['psnr']:.2f} dB", self._bicubic[index]),
                (f"step {step}, {figures['psnr']:.2f} dB", output),
                (f"{pair.name}, original", pair.high),
            ]
        )
        save_sheet(sheet, self._folder / f"{pair.name}-{step:07d}.png")


def _mean(figures: list[dict[str, float]], name: str) -> float:
    return sum(values[name] for values in figures) / len(figures)
