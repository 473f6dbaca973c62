"""What is CFSR's own: its two forms, its masks, its authors' checkpoints, starting from another scale."""

import pytest
import torch
from pydantic import ValidationError

from relume.models.super_resolution.cfsr import CFSR, CFSRConfig, from_official
from relume.nn.edges import EDGE_MASKS, EdgeConv
from relume.nn.surgery import apply_steps

SMALL = CFSRConfig(scale=2, width=8, depths=(1, 2), kernel_size=5)


def randomised(config: CFSRConfig) -> CFSR:
    torch.manual_seed(0)
    network = CFSR(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def authors_state(network: CFSR) -> dict[str, torch.Tensor]:
    """The state of a training-form network under the authors' names."""
    state = {}
    for key, value in network.state_dict().items():
        for ours, theirs in (
            ("shallow.", "conv_first."), ("fuse.", "conv_after_body."), ("reconstruct.", "upsample.0."),
            ("stages.", "layers."), (".layers.", ".blocks."), (".close.", ".conv."),
            (".mixer_scale", ".layer_scale_1"), (".feed_forward_scale", ".layer_scale_2"),
            (".mixer.query", ".attn.a.0"), (".mixer.spread", ".attn.a.2.lkb_reparam"),
            (".mixer.", ".attn."), (".value", ".v"), (".project", ".proj"),
            (".feed_forward.", ".mlp."), (".expand", ".fc1"), (".contract", ".fc2"), (".local.conv", ".pos"),
        ):  # fmt: skip
            key = key.replace(ours, theirs)
        prefix, _, last = key.rpartition(".local.")
        for index, branch in enumerate(("sobel_x", "sobel_y", "laplacian")):
            if last == "masks":
                state[f"{prefix}.mask_{branch}"] = value[index]
            elif last == "strengths":
                state[f"{prefix}.scale_{branch}"] = value[index]
            elif last == "biases":
                state[f"{prefix}.{branch}_bias"] = value[index]
        if not prefix:
            state[key] = value
    return state


@pytest.mark.parametrize("masks", sorted(EDGE_MASKS))
@torch.no_grad()
def test_merged_kernel_is_the_sum_of_the_branches(masks):
    torch.manual_seed(0)
    layer = EdgeConv(6, masks=masks)
    layer.strengths.normal_()
    x = torch.rand(1, 6, 9, 9)
    summed = layer.conv(x)
    for strength, mask, bias in zip(layer.strengths, layer.masks, layer.biases, strict=True):
        summed = summed + torch.nn.functional.conv2d(x, strength * mask, bias, padding=1, groups=6)
    assert (layer(x) - summed).abs().max() <= 1e-5
    assert (layer.merged()(x) - summed).abs().max() <= 1e-5


def test_textbook_masks_ignore_flat_areas_and_find_their_edge():
    sobel_x, sobel_y, laplacian = (torch.tensor(mask) for mask in EDGE_MASKS["textbook"])
    assert sobel_x.sum() == sobel_y.sum() == laplacian.sum() == 0
    assert torch.equal(sobel_x.T, sobel_y)
    assert torch.equal(laplacian, laplacian.T)
    assert torch.equal(laplacian, laplacian.flip(0))


@torch.no_grad()
def test_training_form_of_the_authors_brings_its_own_masks():
    network = randomised(SMALL.model_copy(update={"edge_masks": "authors"}))
    official = from_official(authors_state(network))
    assert official is not None
    assert official.steps == ()
    loaded = CFSR(official.config).eval()
    loaded.load_state_dict(official.state)
    low = torch.rand(1, 3, 8, 9)
    assert torch.equal(loaded(low), network(low))
    assert torch.equal(loaded.state_dict()["stages.0.layers.0.feed_forward.local.masks"],
                       network.state_dict()["stages.0.layers.0.feed_forward.local.masks"])  # fmt: skip


def test_other_checkpoints_are_not_taken_for_cfsr():
    assert from_official({"conv_first.weight": torch.zeros(8, 3, 3, 3)}) is None
    assert from_official({}) is None


@torch.no_grad()
def test_starting_from_a_merged_network_computes_the_same():
    source = apply_steps(randomised(SMALL), ["reparameterise"])
    torch.manual_seed(9)
    target = CFSR(SMALL).eval()
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 9)
    assert (target(low) - source(low)).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [3, 4])
@torch.no_grad()
def test_starting_from_another_scale_is_that_scale_with_repeated_sub_pixels(scale):
    source = apply_steps(randomised(SMALL), ["reparameterise"])
    target = CFSR(SMALL.model_copy(update={"scale": scale})).eval()
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 9)
    nearest = [(2 * index + 1) * 2 // (2 * scale) for index in range(scale)]
    rows = [2 * row + offset for row in range(8) for offset in nearest]
    columns = [2 * column + offset for column in range(9) for offset in nearest]
    assert (target(low) - source(low)[..., rows, :][..., columns]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "wrong", [{"kernel_size": 4}, {"scale": 0}, {"reconstruction": "residual"}, {"width": -1}, {"depth": 3}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        CFSRConfig(**wrong)
