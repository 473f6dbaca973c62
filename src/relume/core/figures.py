"""What papers claim and what we measured, side by side, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

USUAL = "sr-y"
"""The protocol that goes without saying."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures on one set of pictures under one protocol, each by its metric.

    Attributes:
        dataset: the set.
        protocol: how it was measured.
        claimed: by the paper.
        measured: with the weights that come with relume.
        bicubic: of enlarging by bicubic, measured likewise.
        pictures: how many were measured, or None.
    """

    dataset: str
    protocol: str
    claimed: Mapping[str, float]
    measured: Mapping[str, float]
    bicubic: Mapping[str, float]
    pictures: int | None

    @property
    def place(self) -> str:
        """The set, with the protocol where it is not the usual one."""
        return self.dataset if self.protocol == USUAL else f"{self.dataset} ({self.protocol})"


def rows(
    claims: Iterable[Mapping[str, Any]], measured: Iterable[Mapping[str, Any]], variant: str
) -> list[Row]:
    """Return what is known of a variant, what was measured first.

    Args:
        claims: of its system's card.
        measured: what the header of its weights holds.
        variant: its name.
    """
    entries = {(entry["set"], entry["protocol"]): entry for entry in measured}
    claimed: dict[tuple[str, str], dict[str, float]] = {}
    for claim in claims:
        if claim["variant"] == variant:
            claimed.setdefault((claim["dataset"], claim["protocol"]), {})[claim["metric"]] = claim["value"]
    found = []
    for place in dict.fromkeys([*entries, *claimed]):
        entry = entries.get(place, {})
        # Other facts stand beside the figures; a figure is what bicubic has likewise.
        metrics = [name for name in entry if f"bicubic_{name}" in entry]
        found.append(
            Row(
                dataset=place[0],
                protocol=place[1],
                claimed=claimed.get(place, {}),
                measured={name: entry[name] for name in metrics},
                bicubic={name: entry[f"bicubic_{name}"] for name in metrics},
                pictures=entry.get("pictures"),
            )
        )
    return found


def in_words(values: Mapping[str, float]) -> str:
    """Return figures by metric in one line: PSNR in dB / SSIM, then others by name; empty without any."""
    told = []
    if "psnr" in values:
        told.append(f"{values['psnr']:.2f}")
    if "ssim" in values:
        told.append(f"{values['ssim']:.4f}" if told else f"SSIM {values['ssim']:.4f}")
    first = " / ".join(told)
    others = (f"{name.upper()} {values[name]:.4g}" for name in sorted(values) if name not in ("psnr", "ssim"))
    return ", ".join(part for part in (first, *others) if part)


def counted(count: int, thing: str) -> str:
    """Return how many there are of a thing: "1 picture", "1,200 pictures"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def tried(variant: str, trained: Mapping[str, Any]) -> str:
    """Return what a short training was of: the variant, and how its network differed, if it did.

    Args:
        variant: its name.
        trained: what the catalogue has of it.
    """
    changed = ", ".join(f"{name} {_plain(value)}" for name, value in trained["network"].items())
    return f"{variant} with {changed}: {trained['parameters']:,} parameters" if changed else variant


def budgets_in_words(variant: str, budgets: Mapping[str, int], trained: Mapping[str, Any]) -> str:
    """Return in a line how many steps each budget of a recipe has, and how many of them weights have taken.

    Args:
        variant: the name of what was trained; steps of earlier trainings of the same count.
        budgets: steps by the budget's name.
        trained: what the catalogue has of the weights; a training on a CPU was one of the budget "cpu".
    """
    ran = "cpu" if trained["device"] == "cpu" else "gpu"
    earlier = (each["of_steps"] for each in trained.get("before", ()) if each["variant"] == variant)
    taken = trained["of_steps"] + sum(earlier)
    told = []
    for name, steps in budgets.items():
        share = "not run yet"
        if name == ran:
            share = "run whole" if taken >= steps else f"{taken:,} run"
        told.append(f"{name} {steps:,} steps ({share})")
    return f"budgets of its recipe: {', '.join(told)}"


def _plain(value: object) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, list) else str(value)
