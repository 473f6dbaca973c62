"""Attention in groups of alike tokens, against the plain formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relume.nn.token_groups import grouped_attention, means_of_runs, moved, projected, sorted_by_centre


def mirrored(number, length):
    row = list(range(number))
    return torch.tensor([(row + row[::-1])[place % (2 * number)] for place in range(length)])


@pytest.mark.parametrize(("number", "size"), [(24, 8), (29, 8), (9, 8), (8, 8), (5, 8), (1, 8)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_token_sees_its_group_the_next_and_the_centres(number, size, batch):
    torch.manual_seed(number)
    tokens = torch.randn(batch, number, 2, 3, 4, dtype=torch.float64)
    centres = torch.randn(2, 2, 5, 4, dtype=torch.float64).unbind(0)
    order = torch.stack([torch.randperm(number) for _ in range(batch)])
    found = grouped_attention(tokens, order, centres, size=size, scale=0.3)
    size = min(size, number)
    for index in range(batch):
        in_order = tokens[index, order[index]]
        row = in_order[mirrored(number, (-(-number // size) + 1) * size)]
        for place in range(number):
            first = place // size * size
            query = in_order[place, :, 0]  # A D
            key, value = row[first : first + 2 * size, :, 1:].permute(2, 1, 0, 3)  # A 2T D
            near = (query[:, None] @ key.transpose(1, 2) * 0.3).softmax(-1) @ value
            far = (query[:, None] @ centres[0].transpose(1, 2) * 0.3).softmax(-1) @ centres[1]
            assert torch.allclose(found[index, order[index, place]], (near + far)[:, 0])


def test_tokens_of_one_centre_keep_their_order():
    tokens = torch.tensor([[[0.0, 2], [3, 0], [0, 1], [5, 1], [0.1, 4]]])
    order = sorted_by_centre(tokens, torch.tensor([[1.0, 0], [0, 9]]))
    assert order.tolist() == [[1, 3, 0, 2, 4]]


def test_centres_move_to_the_mean_direction_of_their_tokens_and_stay_without():
    torch.manual_seed(0)
    tokens = torch.randn(2, 15, 4, dtype=torch.float64)
    tokens = tokens.abs()  # so that nothing is like a centre of negative numbers
    centres = torch.cat(
        [torch.randn(3, 4, dtype=torch.float64).abs(), -torch.ones(1, 4, dtype=torch.float64)]
    )
    found = moved(tokens, centres)
    flat, unit = F.normalize(tokens.flatten(0, 1), dim=1), F.normalize(centres, dim=1)
    nearest = (flat @ unit.T).argmax(1)
    assert 3 not in nearest
    for index in range(4):
        own = flat[nearest == index]
        wanted = F.normalize(own.sum(0), dim=0) if len(own) else unit[index]
        assert torch.allclose(found[index], wanted)


def test_means_of_runs_are_over_the_batch_and_mirror_what_is_lacking():
    tokens = torch.arange(10.0).reshape(2, 5, 1)
    assert means_of_runs(tokens, 3)[:, 0].tolist() == [3.0, 5.0, 6.5]
    assert means_of_runs(tokens, 5).shape == (5, 1)


def test_projections_are_those_of_the_layers_filled_up():
    query, key, value = (nn.Linear(6, width, bias=False) for width in (4, 4, 10))
    x = torch.rand(3, 7, 6)
    found = projected(x, query, key, value, heads=2)
    assert found.shape == (3, 7, 2, 3, 5)
    for index, layer in enumerate((query, key, value)):
        part = layer(x).unflatten(2, (2, -1))
        assert torch.allclose(found[..., index, : part.shape[3]], part, atol=1e-6)
    assert not found[..., :2, 2:].any()
    with pytest.raises(ValueError, match="longer than values"):
        projected(x, value, key, query, heads=2)
