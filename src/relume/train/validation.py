"""Validation during a training: the same figures as `relume evaluate`, and pictures to look at."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import NonNegativeInt, ValidationInfo, field_validator
from torch import Tensor, nn

from relume.core.config import Config, told
from relume.core.contract import Contract
from relume.core.errors import ConfigError, UnknownNameError, nearest
from relume.core.sheets import contact_sheet, save_sheet
from relume.data.benchmarks import Pair
from relume.measures.protocols import protocol
from relume.nn.channels import run_picture

_PART = 48
"""Side in input pixels of what a validation's time is reckoned from."""


BASELINE = "_bicubic"
"""After a figure's name: the same of what was enlarged plainly, or of the input where nothing is enlarged."""


def plain_name(scale: int | None) -> str:
    """Return what a network's outputs are compared with, for people.

    Args:
        scale: of the network; None where it is not known, and the word of the logs is taken.
    """
    return "input" if scale == 1 else "bicubic"


class ValidationConfig(Config):
    """What to validate on.

    Attributes:
        folder: a benchmark set as `relume evaluate` takes it; None validates on what training holds out
            (`data.held_out`), if anything.
        protocol: how it is measured.
        pictures: how many of the set are saved as pictures, beside bicubic and target.
        best: the figure that decides which weights are best.
        damaged: whether its low pictures are made by the recipe's degradation, picture i of a folder by seed
            i, rather than given or shrunk by bicubic.
    """

    folder: Path | None = None
    protocol: str = "sr-y"
    pictures: NonNegativeInt = 2
    best: str = "psnr"
    damaged: bool = False

    @property
    def lowest(self) -> bool:
        """Whether the lowest of the figure is best, rather than the highest."""
        return protocol(self.protocol).lowest_is_best(self.best)

    @field_validator("protocol")
    @classmethod
    def _is_a_protocol(cls, name: str) -> str:
        try:
            return protocol(name).name
        except UnknownNameError as error:
            raise told(str(error)) from error

    @field_validator("best")
    @classmethod
    def _is_measured(cls, figure: str, info: ValidationInfo) -> str:
        if "protocol" not in info.data:  # which has been said
            return figure
        measured = protocol(info.data["protocol"]).figures
        if figure not in measured:
            close = nearest(figure, measured)
            known = ", ".join(sorted(measured, key=lambda name: name != close))
            advice = f"did you mean {close!r}? It measures" if close else "it measures"
            raise told(f"protocol {info.data['protocol']} has no figure {figure!r}; {advice} {known}")
        return figure


class Validation:
    """Enlarges a set with a network, measures, and saves pictures under `pictures/`.

    Pictures are RGB; a model of other channels gets them as it does in use (`nn.channels`).

    Args:
        config: the protocol and what is saved.
        pairs: the set.
        contract: the network's.
        folder: the run's folder.

    Raises:
        DataError: the set cannot be used.
        ConfigError: cubes are to be measured as pictures, or the other way round.
    """

    def __init__(
        self, config: ValidationConfig, pairs: Iterable[Pair], *, contract: Contract, folder: Path
    ) -> None:
        scale = contract.scale
        self._protocol = protocol(config.protocol)
        if self._protocol.of_cubes != contract.of_cubes:
            kind = "cubes" if contract.of_cubes else "pictures"
            raise ConfigError(
                f"validation.protocol {config.protocol} does not measure {kind}, which this model takes"
            )
        self._pairs = [pair.fitting(contract) for pair in pairs]
        for pair in self._pairs:
            pair.refuse_smaller(self._protocol.smallest_side(scale), needed_by=self._protocol.name)
        self._contract = contract
        self._folder = folder / "pictures"
        self._pictures = config.pictures
        # Where nothing is enlarged, this is the input itself.
        self._bicubic = [pair.bicubic() for pair in self._pairs]
        self._plain = plain_name(scale)
        self._baseline = [
            self._protocol.measure(bicubic, pair.high, scale)
            for bicubic, pair in zip(self._bicubic, self._pairs, strict=True)
        ]

    @torch.inference_mode()
    def __call__(self, network: nn.Module, step: int) -> Mapping[str, float]:
        """Return the protocol's figures, means over the set, and bicubic's beside them."""
        figures = []
        for index, pair in enumerate(self._pairs):
            output = self._enlarged(network, pair.low)
            figures.append(self._protocol.measure(output, pair.high, self._contract.scale))
            if index < self._pictures:
                self._save(index, output, figures[-1], step)
        return {
            **{name: _mean(figures, name) for name in figures[0]},
            **{f"{name}{BASELINE}": _mean(self._baseline, name) for name in figures[0]},
        }

    @torch.inference_mode()
    def rehearse(self, network: nn.Module, *, most_seconds: float) -> tuple[float, bool]:
        """Validate once where there is time for it; pictures are saved as ever.

        Returns:
            The seconds that it took, and whether it was done; else they are reckoned, pixel by pixel, from a
            part of a picture.
        """
        part = self._pairs[0].low[:, :_PART, :_PART]
        spent = 0.0
        for _ in range(2):  # the first time may be slow
            started = time.perf_counter()
            self._enlarged(network, part)
            spent = time.perf_counter() - started
        reckoned = spent * sum(pair.low[0].numel() for pair in self._pairs) / part[0].numel()
        if reckoned > most_seconds:
            return reckoned, False
        started = time.perf_counter()
        self(network, 0)
        return time.perf_counter() - started, True

    def _enlarged(self, network: nn.Module, low: Tensor) -> Tensor:
        device = next(network.parameters()).device
        contract = self._contract
        output = run_picture(network, low[None].to(device), channels=contract.channels, luma=contract.luma)
        return output[0].float().cpu()

    def _save(self, index: int, output: Tensor, figures: Mapping[str, float], step: int) -> None:
        pair, baseline = self._pairs[index], self._baseline[index]
        self._folder.mkdir(exist_ok=True)
        sheet = contact_sheet(
            [
                (f"{self._plain}, {baseline['psnr']:.2f} dB", self._bicubic[index]),
                (f"step {step}, {figures['psnr']:.2f} dB", output),
                (f"{pair.name}, original", pair.high),
            ]
        )
        save_sheet(sheet, self._folder / f"{pair.name}-{step:07d}.png")


def _mean(figures: list[dict[str, float]], name: str) -> float:
    return sum(values[name] for values in figures) / len(figures)
