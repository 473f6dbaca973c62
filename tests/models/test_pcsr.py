"""What is PCSR's own: its samplers, its decisions, what it saves, and how far it looks."""

import math

import pytest
import torch
from torch.nn import functional as F

from relume.models import zoo
from relume.models.super_resolution.pcsr import PCSR, PCSRConfig, Sampler, _places
from relume.nn.bodies.carn import CARNBodyConfig
from relume.nn.bodies.fsrcnn import FSRCNNBodyConfig

SMALL = PCSRConfig(
    scale=3,
    encoder=FSRCNNBodyConfig(width=8, shrunk=4, depth=1),
    heavy=(8, 8),
    light=(4,),
    classifier=(4,),
)


def randomised(config: PCSRConfig, seed: int = 0) -> PCSR:
    torch.manual_seed(seed)
    network = PCSR(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return network.eval()


def middle(network: PCSR, low: torch.Tensor) -> float:
    """The effort at which half of a picture's pixels are heavy."""
    with torch.no_grad():
        return 1 - network._probability(network._features(low - network.mean)).median().item()


@torch.no_grad()
def test_sampler_is_a_plain_network_on_feature_place_and_size():
    torch.manual_seed(0)
    sampler, scale = Sampler(5, (7, 6), 3), 4
    features, places = torch.randn(2, 5), _places(scale)
    plain = [sampler.first, *(layer for layer in sampler.rest if isinstance(layer, torch.nn.Linear))]
    for row in range(2):
        for down in range(scale):
            for right in range(scale):
                offset = [(2 * step + 1) / scale - 1 for step in (down, right)]
                x = torch.cat([features[row], torch.tensor([*offset, 2 / scale, 2 / scale])])
                for layer in plain[:-1]:
                    x = F.relu(layer(x))
                wanted, pixel = plain[-1](x), down * scale + right
                assert (sampler(features, places)[row, pixel] - wanted).abs().max() <= 1e-6
                one = torch.tensor([row * scale**2 + pixel])
                assert (sampler.some(features, places, one)[0] - wanted).abs().max() <= 1e-6


@torch.no_grad()
def test_more_effort_makes_more_pixels_heavy():
    network, low = randomised(SMALL), torch.rand(1, 3, 12, 10)
    before = torch.zeros(1, 1, 36, 30, dtype=torch.bool)
    for step in range(101):
        network.effort = step / 100
        routes = network.routes(low)
        assert not (before & ~routes).any()
        if step == 0:
            assert not routes.any()
        before = routes
    assert before.all()
    network.effort = middle(network, low)
    assert 0.4 < network.routes(low).float().mean() < 0.6


@pytest.mark.parametrize("k", [-3.0, 0.0, 0.7])
@torch.no_grad()
def test_effort_and_the_papers_k_are_one_threshold(k):
    network, low = randomised(SMALL.model_copy(update={"k": k})), torch.rand(1, 3, 12, 10)
    published = network.routes(low)
    light, heavy = network.costs
    odds = (light / heavy) ** k  # k = ln(e / (1 - e)) / ln(light / heavy)
    network.effort = odds / (1 + odds)
    assert torch.equal(network.routes(low), published)
    assert math.isclose(math.log(network.effort / (1 - network.effort)) / math.log(light / heavy), k,
                        abs_tol=1e-9)  # fmt: skip


@torch.no_grad()
def test_each_sampler_runs_on_its_pixels_alone():
    network, low = randomised(SMALL), torch.rand(2, 3, 9, 11)
    network.effort = middle(network, low)
    heavy = int(network.routes(low).sum())
    counts = {}
    for name in ("heavy_sampler", "light_sampler"):
        sampler = getattr(network, name)
        plain = sampler.some
        counts[name] = 0

        def counted(features, places, chosen, name=name, plain=plain):
            counts[name] += len(chosen)
            return plain(features, places, chosen)

        sampler.some = counted
    network(low)
    assert counts == {"heavy_sampler": heavy, "light_sampler": 2 * 9 * 11 * 9 - heavy}
    for effort, idle in ((0, "heavy_sampler"), (1, "light_sampler")):
        counts[idle] = 0
        network.effort = effort
        network(low)
        assert counts[idle] == 0


@torch.no_grad()
def test_routed_output_is_each_samplers_own():
    network, low = randomised(SMALL.model_copy(update={"refinement": False})), torch.rand(2, 3, 9, 11)
    outputs = {}
    for effort in (0, 1, middle(network, low)):
        network.effort = effort
        outputs[effort] = network(low)
    wanted = torch.where(network.routes(low), outputs[1], outputs[0])
    assert (outputs[effort] - wanted).abs().max() <= 1e-6


@torch.no_grad()
def test_refinement_smooths_light_pixels_beside_heavy_ones_but_no_border():
    network, low = randomised(SMALL), torch.rand(1, 3, 8, 8)
    network.effort = middle(network, low)
    routes = network.routes(low)[0, 0]
    plain = PCSR(SMALL.model_copy(update={"refinement": False})).eval()
    plain.load_state_dict(network.state_dict())
    plain.effort = network.effort
    before, after = plain(low)[0], network(low)[0]
    refined = 0
    for row in range(24):
        for column in range(24):
            inside = 0 < row < 23 and 0 < column < 23
            around = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
            if inside and not routes[row, column] and routes[around].any():
                wanted = before[:, *around].mean((1, 2))
                refined += 1
            else:
                wanted = before[:, row, column]
            assert (after[:, row, column] - wanted).abs().max() <= 1e-5
    assert refined > 20


@pytest.mark.parametrize("encoder", [SMALL.encoder, CARNBodyConfig(width=4, groups=2, batch_norm=True)])
@torch.no_grad()
def test_reach_with_refinement_is_exact(encoder):
    """Where light and heavy meet, some pixel sees as far as the halo, and none further."""
    network = randomised(SMALL.model_copy(update={"encoder": encoder})).double()
    halo, scale = network.contract.halo, network.contract.scale
    side = 2 * halo + 5
    torch.manual_seed(1)
    low = torch.rand(1, 3, side, side, dtype=torch.float64)
    network.effort = middle(network, low)
    reference = network(low)
    changed = low.clone()
    changed[..., 0, :] += 1
    rows = (network(changed) - reference).abs().amax((0, 1, 3)).unflatten(0, (side, scale)).amax(1)
    assert rows[halo] > 0
    assert rows[halo + 1 :].max() == 0


@torch.no_grad()
def test_clustering_takes_each_picture_by_itself():
    network = randomised(SMALL.model_copy(update={"adaptive": True}))
    low = torch.stack([torch.rand(3, 8, 9), torch.rand(3, 8, 9) * 0.1])
    assert network.contract.halo is None
    apart = torch.cat([network(picture[None]) for picture in low])
    assert (network(low) - apart).abs().max() <= 1e-5
    assert 0 < network.routes(low).float().mean() < 1
    network.effort = 0
    assert not network.routes(low).any()


def test_training_mixes_both_by_probability():
    network = randomised(SMALL).train()
    low = torch.rand(1, 3, 6, 7)
    heard = []
    with network.router.register_forward_hook(lambda _module, _input, output: heard.append(output)):
        mixed = network(low)
    weight = network._spread(heard[0][..., None], low)
    outputs = []
    for effort in (0, 1):
        network.effort = effort
        outputs.append(network(low))
    assert (mixed - torch.lerp(*outputs, weight)).abs().max() <= 1e-5


@torch.no_grad()
def test_authors_checkpoint_with_its_optimiser_loads(tmp_path):
    """The authors save the weights inside the model's description, beside the state of the training."""
    network = randomised(SMALL.model_copy(update={"scale": 4, "mean": (0.0, 0.0, 0.0)}))
    state = {}
    for key, value in network.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "encoder":
            numbers = {"extract": "head_conv", "shrink": "body_conv.0", "mapping": "body_conv",
                       "expand": f"body_conv.{SMALL.encoder.depth + 2}"}  # fmt: skip
            name, _, inner = rest.partition(".")
            if name == "mapping":
                number, _, inner = inner.partition(".")
                inner = f"{int(number) + 1}.{inner}"
            state[f"encoder.{numbers[name]}.{inner}"] = value
        else:
            first, _, inner = rest.partition(".")
            number, _, last = inner.partition(".")
            inner = f"0.{inner}" if first == "first" else f"{int(number) + 1}.{last}"
            state[f"{part}.imnet.layers.{inner}"] = value
    saved = {"model": {"name": "pcsr-phase1", "args": {"classifier_spec": {"name": "mlp"}}, "sd": state},
             "optimizer": {"name": "adam", "sd": {"step": torch.zeros(())}}, "iter": 5}  # fmt: skip
    torch.save(saved, tmp_path / "iter_last.pth")
    loaded, header = zoo.load(tmp_path / "iter_last.pth")
    assert header.model == "pcsr"
    low = torch.rand(1, 3, 6, 7)
    assert torch.equal(loaded(low), network(low))
