"""Attention in lying and standing windows: its equation, and the bias of relative places."""

import pytest
import torch
from torch import nn

from relume.nn.rectangles import PlaceBias, RectangleAttention, rectangles_of


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_attention_is_its_equation(shifted):
    torch.manual_seed(0)
    attention = RectangleAttention(96, 4, (2, 4)).double()
    for parameter in attention.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    norm = nn.LayerNorm(96).double()
    x = torch.randn(1, 3, 6, 96, dtype=torch.float64)  # B H W C; beyond it zeros
    pair = rectangles_of(3, 6, (2, 4), shifted=shifted, masked=True, filled=True, like=x)
    found = attention(x.flatten(1, 2), pair, x.permute(0, 3, 1, 2), norm=norm).unflatten(1, (3, 6))

    q, k, v = attention.qkv(norm(x[0])).chunk(3, -1)
    mixed = torch.zeros(3, 6, 96, dtype=torch.float64)
    for half, (tall, wide) in enumerate(((2, 4), (4, 2))):
        rows, columns = 4, 8
        down, right = (tall // 2, wide // 2) if shifted else (0, 0)
        bias = attention.places[half]()
        for row in range(3):
            for column in range(6):
                at, beside = (row - down) % rows, (column - right) % columns
                top, left = at // tall * tall, beside // wide * wide
                own = (at - top) * wide + beside - left
                for head in range(2):
                    part = slice(48 * half + 24 * head, 48 * half + 24 * head + 24)
                    logits, values = [], []
                    for other in range(tall * wide):
                        there = (top + other // wide + down) % rows
                        aside = (left + other % wide + right) % columns
                        # What a shift brought from the opposite border is not seen.
                        if (there < down) != (row < down) or (aside < right) != (column < right):
                            continue
                        inside = there < 3 and aside < 6
                        like = q[row, column, part] @ k[there, aside, part] / 24**0.5 if inside else 0.0
                        logits.append(bias[head, own, other] + like)
                        values.append(v[there, aside, part] if inside else torch.zeros(24).double())
                    mixed[row, column, part] = torch.stack(logits).softmax(0) @ torch.stack(values)
    near = attention.near(v.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert torch.allclose(found[0], attention.project(mixed + near))


@torch.no_grad()
def test_a_bias_belongs_to_the_relative_place_and_of_one_channel_is_constant():
    torch.manual_seed(0)
    for width in (1, 5):
        bias = PlaceBias(width, 3, (2, 3))
        for parameter in bias.parameters():
            parameter.normal_()
        table = bias()
        assert table.shape == (3, 6, 6)
        # Each pixel and its neighbour to the right.
        assert torch.equal(table[:, 0, 1], table[:, 4, 5])
        assert torch.equal(table[:, 0, 1], table[:, 1, 2])
        constant = bool((table == table[:, :1, :1]).all())
        assert constant == (width == 1)
        x = bias.offsets
        for norm, layer in zip(bias.norms, bias.layers, strict=True):
            x = layer(norm(x if norm is not bias.norms[0] else bias.enter(x)).relu())
        # Pixel 3 seen from 2 lies one row further down and two columns to the left.
        assert torch.allclose(table[:, 3, 2], x[2 * 5 + 0])
