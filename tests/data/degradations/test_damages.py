"""What holds for every damage that keeps the size: found by file, so a new one is tested as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.apps.commands.demo import PHOTO
from relume.core.choices import found_by_file
from relume.core.errors import ConfigError, DataError
from relume.core.pictures import read
from relume.data.degradations.base import SameSizeConfig
from relume.nn.resize import imresize

CONFIGS: dict[str, type[SameSizeConfig]] = {
    config.model_fields["name"].default: config
    for config in found_by_file("relume.data.degradations", "CONFIG")
    if issubclass(config, SameSizeConfig)
}
# What a damage is as strong as, where that is not called strength.
AMOUNTS: dict[str, str] = {"holes": "coverage"}
COLOUR_ONLY = {"underwater"}
PAGE = Path(__file__).parents[3] / "docs" / "degradations.md"
WHOLE = {("rain", "layers"), ("snow", "layers"), ("sinc", "size")}

every = pytest.mark.parametrize("name", CONFIGS)
every_with_strength = pytest.mark.parametrize(
    "name", [name for name, config in CONFIGS.items() if AMOUNTS.get(name, "strength") in config.model_fields]
)


def damaged(name: str, high: Tensor, seed: int = 7, **values: Any) -> Tensor:
    degradation = CONFIGS[name](**values).build(1)
    return degradation(high, generator=torch.Generator().manual_seed(seed))


def amount(name: str, value: float) -> dict[str, float]:
    return {AMOUNTS.get(name, "strength"): value}


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return imresize(read(PHOTO).pixels, height=96, width=96).clamp(0, 1).unsqueeze(0)


def test_there_are_ten():
    assert len(CONFIGS) >= 10


def limits() -> list[tuple[str, str, float | None, float]]:
    """Name, setting, least and most, as the page on degradations lists them."""
    found = []
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        _, _, listed = section.partition("Limits:")
        pattern = r"`(\w+)`\s+(?:at\s+most|([-\d.]+)\s+to)\s+([\d.,]*\d)"
        for setting, least, most in re.findall(pattern, listed):
            found.append(
                (section.split()[0], setting, float(least) if least else None, float(most.replace(",", "")))
            )
    return found


def test_the_page_lists_limits():
    listed = {(name, setting) for name, setting, *_ in limits()}
    assert len(listed) == len(limits()) > 30
    assert {name for name, _ in listed} <= set(CONFIGS)


@pytest.mark.parametrize(("name", "setting", "least", "most"), limits())
def test_limits_hold_as_the_page_lists_them(name, setting, least, most):
    def given(value):
        return {setting: int(value) if (name, setting) in WHOLE else value}

    step = 1 if setting == "layers" else 2 if name == "sinc" else most / 100
    CONFIGS[name](**given(most))
    with pytest.raises(ValueError, match=setting):
        CONFIGS[name](**given(most + step))
    if least is not None:
        CONFIGS[name](**given(least))
        with pytest.raises(ValueError, match=setting):
            CONFIGS[name](**given(least - step))


@every_with_strength
def test_strength_has_a_limit(name):
    with pytest.raises(ValueError, match=AMOUNTS.get(name, "strength")):
        CONFIGS[name](**amount(name, 10.1))


@pytest.mark.parametrize(("texts", "says"), [(("a", ""), "empty"), ((" ",), "empty")])
def test_a_text_says_something(texts, says):
    with pytest.raises(ValueError, match=says):
        CONFIGS["text"](texts=texts)


def test_letters_that_the_font_lacks_are_refused():
    CONFIGS["text"](texts=("All of these, (1987): fine?",)).build(1)
    with pytest.raises(ConfigError, match="'Zürich' holds 'ü', which Pillow's own font lacks"):
        CONFIGS["text"](texts=("Zurich", "Zürich")).build(1)


def test_one_number_stands_for_a_range_of_sides():
    assert CONFIGS["sinc"](size=9) == CONFIGS["sinc"](size=(9, 9))


@every
@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), batch=st.integers(1, 3), gray=st.booleans(),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_shape_and_range_are_kept_and_the_input_is_left_alone(name, height, width, batch, gray, seed):
    channels = 1 if gray and name not in COLOUR_ONLY else 3
    high = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    before = high.clone()
    low = damaged(name, high, seed)
    assert low.shape == high.shape
    assert low.dtype == torch.float32
    assert low.min() >= 0
    assert low.max() <= 1
    assert torch.equal(high, before)
    assert low.data_ptr() != high.data_ptr()


@every
def test_black_and_white_stay_in_range(name):
    for level in (0.0, 1.0):
        low = damaged(name, torch.full((1, 3, 24, 31), level))
        assert low.isfinite().all()
        assert 0 <= low.min() <= low.max() <= 1


@every
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_the_same_seed_gives_the_same_and_another_does_not(name, seed):
    high = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    first = damaged(name, high, seed)
    assert torch.equal(first, damaged(name, high, seed))
    assert not torch.equal(first, damaged(name, high, seed + 1))


@every
def test_pictures_of_a_batch_are_damaged_differently(name):
    low = damaged(
        name, torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    )
    assert not torch.equal(low[0], low[1])


@every
def test_a_batch_is_damaged_as_its_pictures_one_after_the_other(name):
    high = torch.rand(3, 3, 33, 26, generator=torch.Generator().manual_seed(1))
    degradation = CONFIGS[name]().build(1)
    generator = torch.Generator().manual_seed(5)
    single = [degradation(picture.unsqueeze(0), generator=generator) for picture in high]
    assert torch.equal(torch.cat(single), degradation(high, generator=torch.Generator().manual_seed(5)))


@every
def test_pictures_draw_no_numbers_from_each_other(name):
    """The second picture's damage does not change with what the first one is."""
    first, second = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    together = damaged(name, torch.stack([first, second]))
    assert torch.equal(together[1], damaged(name, torch.stack([torch.zeros_like(first), second]))[1])


@every_with_strength
def test_strength_0_leaves_the_picture_alone(name, photo):
    assert (damaged(name, photo, **amount(name, 0.0)) - photo).abs().max() < 1e-5


@every_with_strength
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_more_strength_takes_the_picture_farther_away(name, photo, seed):
    distances = [
        float((damaged(name, photo, seed, **amount(name, strength)) - photo).abs().mean())
        for strength in (0.1, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[-1] > 1.5 * distances[0]
    assert distances[0] > 0


@every
def test_another_scale_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} keeps the size"):
        CONFIGS[name]().build(2)


@every
def test_settings_survive_being_written_and_read(name):
    config = CONFIGS[name]()
    assert CONFIGS[name].parse(config.model_dump(mode="json"), where="recipe") == config


def test_one_number_stands_for_a_range():
    config = CONFIGS["haze"].parse({"density": 2}, where="haze")
    assert config.model_dump()["density"] == (2.0, 2.0)


@pytest.mark.parametrize("value", [[3, 1], [1], [-1, 2], "x", True, [0, float("inf")]])
def test_a_range_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="density"):
        CONFIGS["haze"].parse({"density": value}, where="haze")


def test_gray_pictures_do_not_go_under_water():
    with pytest.raises(DataError, match="gray"):
        damaged("underwater", torch.rand(1, 1, 8, 8))


@every
def test_the_page_tells_of_it_and_of_each_of_its_settings(name):
    page = (Path(__file__).parents[3] / "docs/degradations.md").read_text(encoding="utf-8")
    sections = {heading: text for part in page.split("\n### ")[1:] for heading, text in [part.split("\n", 1)]}
    section = next(text for heading, text in sections.items() if name in heading.split(", "))
    for setting in CONFIGS[name].model_fields.keys() - {"name", "strength"}:
        assert f"`{setting}`" in section
