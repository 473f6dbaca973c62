"""Settings of `relume upscale`, as they travel to workers and are kept in manifests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from relume.core.catalogue import families, find_variant, is_family
from relume.core.checkpoints import file_sha256
from relume.core.config import Config
from relume.core.errors import ConfigError
from relume.core.pictures import CUBES, SUFFIXES
from relume.infer.engines.base import Precision
from relume.infer.targets import Target
from relume.models import zoo

_HOW_MADE = frozenset({"engine", "device", "threads", "tile", "memory", "max_megapixels"})
"""Settings that do not change an output."""


class UpscaleSettings(Config):
    """How pictures are enlarged; everything that decides what an output looks like, and how it is made.

    Attributes:
        model: system, variant or weights file; None takes the default system.
        scale: how many times longer the sides get; None takes the model's.
        width: of the output; the height follows unless it is given too.
        height: likewise.
        megapixels: of the output.
        fit: width and height of a box that the output fits.
        ensemble: whether eight flips and turns are averaged.
        faithful: whether the output is corrected until it agrees with the input.
        effort: 0..1, quality against time, for models that have such a choice.
        strength: 0..1, for models that have a slider between two looks.
        precision: of the arithmetic.
        quality: 1..100 for JPEG, WebP and AVIF.
        engine: name, or "auto" for the quickest; None takes the environment's (RELUME_ENGINE), else "auto".
        device: "cpu", "cuda" …; None takes what is there.
        threads: on the CPU; None takes all.
        tile: longest side of the tiles in input pixels, 0 for the whole picture; None by memory.
        memory: the most bytes that the process may come to hold; None takes a share of what is free.
        max_megapixels: larger inputs are refused.
    """

    model: str | None = None
    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None
    fit: tuple[int, int] | None = None
    ensemble: bool = False
    faithful: bool = False
    effort: float | None = None
    strength: float | None = None
    precision: Precision = "fp32"
    quality: int | None = Field(default=None, ge=1, le=100)
    engine: str | None = None
    device: str | None = None
    threads: int | None = Field(default=None, ge=1)
    tile: int | None = Field(default=None, ge=0)
    memory: int | None = Field(default=None, ge=1)
    max_megapixels: float = 500.0

    def target(self) -> Target | None:
        """Return the size asked for; None is the model's own scale.

        Raises:
            RelumeError: several sizes are asked for, or none that can be.
        """
        wishes = {name: getattr(self, name) for name in ("scale", "width", "height", "megapixels", "fit")}
        return Target(**wishes) if any(value is not None for value in wishes.values()) else None

    def kept(self, **naming: str | None) -> dict[str, Any]:
        """Return what decides how outputs look, as a manifest keeps it; `from_kept` reads it back.

        Args:
            naming: settings of the outputs' names to be kept with it.

        Raises:
            RelumeError: the model is not there.
        """
        values = self.model_dump(mode="json", exclude=set(_HOW_MADE))
        model = values["model"] = self.model_name()
        if values["scale"] == own_scale(model):
            values["scale"] = None
        return {**values, "weights": weights_digest(model), "naming": naming}

    @classmethod
    def from_kept(cls, kept: Mapping[str, Any], *, where: str, how_made: UpscaleSettings) -> UpscaleSettings:
        """Return the settings that `kept` gave.

        Args:
            kept: what it gave.
            where: what it was kept in, for messages.
            how_made: from which the settings come that do not change an output.

        Raises:
            ConfigError: they are of another version, or the model's weights are not the same any more.
        """
        values = {name: value for name, value in kept.items() if name not in ("weights", "naming")}
        settings = cls.parse({**values, **how_made.model_dump(include=set(_HOW_MADE))}, where=where)
        if weights_digest(settings.model_name()) != kept.get("weights"):
            raise ConfigError(
                f"{where}: the weights of {settings.model} have changed since, so the rest would look "
                "different; begin a new batch in another folder"
            )
        return settings

    def model_name(self) -> str:
        """Return the model's name in full: the default's, and the whole path of a file."""
        from relume.apps.face import DEFAULT_SYSTEM

        name = self.model or DEFAULT_SYSTEM
        return os.path.abspath(name) if _is_file(name) else name  # noqa: PTH100 - links are kept


def own_scale(model: str) -> int:
    """Return by how much a model enlarges when no size is asked for.

    Raises:
        RelumeError: there is no such model.
    """
    from relume.apps.face import variant_named

    model = variant_named(model)
    if _is_file(model):
        return zoo.load(model)[0].contract.scale
    return find_variant(model).scale


def endings(model: str) -> Collection[str]:
    """Return how the names of files end that a model takes when folders are searched.

    Raises:
        RelumeError: there is no such model.
    """
    from relume.apps.face import variant_named

    return CUBES if zoo.load(variant_named(model))[0].contract.of_cubes else SUFFIXES


def weights_digest(model: str) -> str:
    """Return what changes when the weights of a model do: of a family, those of all its scales.

    Raises:
        RelumeError: there is no such model.
    """
    from relume.apps.face import choose

    if _is_file(model):
        zoo.load(model)  # tells what is wrong with it, where something is
        paths: list[Path | None] = [Path(model)]
    elif is_family(model):
        choose(model, None)  # tells why, where none can be chosen
        paths = [variant.weights_path for variant in families()[model].values()]
    else:
        paths = [find_variant(model).weights_path]
    digests = "".join(file_sha256(path) for path in paths if path is not None)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _is_file(model: str) -> bool:
    return not is_family(model) and zoo.looks_like_a_file(model)
