"""A network's anatomy, on networks small enough to say what it must be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.contract import Contract
from relume.insight.anatomy import INPUT, Anatomy, Loop, Module, anatomy
from relume.nn.network import Network, count_parameters
from relume.nn.pieces import by_rows


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.act = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.first(x * 2.0))


class Small(Network):
    """Residual blocks, then twice an enlarging step, with a skip around."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual() for _ in range(3)))
        self.steps_up = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.last = nn.Conv2d(4, 12, 1)

    @property
    def contract(self) -> Contract:
        return Contract(scale=2, channels=3, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(F.pad(x, (0, 0, 0, 0)))
        deep = self.blocks(shallow).movedim(1, -1)
        for step in self.steps_up:
            deep = torch.sigmoid(step(deep))
        gate, value = self.last(deep.movedim(-1, 1)), self.last(shallow)
        return F.pixel_shuffle(gate * value, 2)


def of_small() -> tuple[Anatomy, Module]:
    found = anatomy(Small)
    return found, found.modules[found.root]


def test_steps_come_in_order_with_their_sources():
    _, network = of_small()
    assert [(part.role, part.kind, part.sources) for part in network.parts] == [
        ("shallow", "conv 3×3", (INPUT,)),
        ("blocks", "Residual", (0,)),
        ("steps up", "Linear", (1,)),
        ("", "sigmoid", (2,)),
        ("last", "conv 1×1", (3,)),
        ("last", "conv 1×1", (0,)),
        ("", "×", (4, 5)),
        ("", "pixel shuffle", (6,)),
    ]
    assert (network.shape, network.parts[-1].shape) == ((1, 3, 64, 64), (1, 3, 128, 128))


def test_what_comes_again_is_told_once():
    _, network = of_small()
    assert [part.repeats for part in network.parts] == [1, 3, 1, 1, 1, 1, 1, 1]
    assert network.loops == (Loop(first=2, last=3, repeats=2),)


def test_every_parameter_is_counted_once():
    _, network = of_small()
    assert network.parameters == count_parameters(Small())
    assert sum(part.parameters for part in network.parts) == network.parameters
    assert network.parts[5].parameters == 0  # the same layer again


def test_modules_within_are_opened():
    found, network = of_small()
    opened = network.parts[1].opens
    assert opened is not None
    block = found.modules[opened]
    assert (block.kind, block.parameters) == ("Residual", 40)
    assert [(part.role, part.kind, part.sources) for part in block.parts] == [
        ("first", "depthwise 3×3", (INPUT,)),
        ("", "leaky relu", (0,)),
        ("", "+", (INPUT, 1)),
    ]
    assert all(part.opens is None for part in block.parts)


def test_the_network_is_left_as_it_was():
    """The same twice, the caller's random numbers as well."""
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    assert anatomy(Small) == anatomy(Small)
    assert torch.rand(1) == before


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        return by_rows(lambda some: self.mix(norm(some)), x, halo=0, pixels=512)


class Handing(Network):
    """Hands a module of its own to another one, which works in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(3, 4, 1)
        self.before = nn.GroupNorm(1, 4)
        self.attend = Attending()

    @property
    def contract(self) -> Contract:
        return Contract(scale=1, channels=3, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(self.shallow(x), self.before)[:, :3]


def test_pieces_are_one_step_and_what_is_handed_on_keeps_its_name():
    told = anatomy(Handing)
    (within,) = (module for module in told.modules.values() if module.kind == "Attending")
    assert [part.role for part in within.parts] == ["before", "mix"]
