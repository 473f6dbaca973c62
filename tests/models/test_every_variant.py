"""What every model must do, on a tiny relative of each variant; a model's file names its exemptions."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from relume.core.catalogue import systems, variants
from relume.core.checkpoints import Header, read_checkpoint, write_checkpoint
from relume.infer.engines.base import Place
from relume.infer.restorer import Restorer
from relume.insight.leaderboard import count_macs
from relume.models import zoo
from relume.nn.network import Network, count_parameters
from relume.nn.surgery import apply_steps

FINGERPRINTS = Path(__file__).parent / "fingerprints.json"
SIZES = ((1, 1), (1, 9), (7, 5), (16, 17))


def tiny(name: str) -> Network:
    torch.manual_seed(3)
    variant = variants()[name]
    module = zoo.model_file(systems()[variant.system])
    network = zoo.build(module.tiny(zoo.variant(name).config), system=variant.system)
    # Weights that start at 1e-6 or zero would hide a wrong branch.
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def in_use(name: str) -> Network:
    return apply_steps(tiny(name), zoo.variant(name).steps).eval()


def exempt(name: str, test: str) -> None:
    module = zoo.model_file(systems()[variants()[name].system])
    reason = getattr(module, "EXEMPTIONS", {}).get(test)
    if reason:
        pytest.skip(reason)


def forms() -> list[str]:
    """One variant for each small relative that there is: many variants differ in size alone."""
    found: dict[str, str] = {}
    for name, listed in sorted(variants().items()):
        variant, module = zoo.variant(name), zoo.model_file(systems()[listed.system])
        config = module.tiny(variant.config).model_dump_json()
        found.setdefault(f"{listed.system} {config} {variant.steps}", name)
    return sorted(found.values())


every_variant = pytest.mark.parametrize("name", sorted(variants()))
every_form = pytest.mark.parametrize("name", forms())


@every_variant
def test_parameter_count_is_the_papers(name):
    variant = zoo.variant(name)
    with torch.device("meta"):  # numbers that nobody looks at
        network = zoo.build(variant.config, system=variants()[name].system, steps=variant.steps)
    assert count_parameters(network) == variant.parameters


@every_form
@torch.no_grad()
def test_any_size_comes_out_scaled(name):
    exempt(name, "sizes")
    network = in_use(name)
    contract = network.contract
    for height, width in SIZES:
        output = network(torch.rand(2, contract.channels, height, width))
        assert output.shape == (2, contract.channels, height * contract.scale, width * contract.scale)
        assert output.isfinite().all()


@every_form
def test_gradients_reach_every_parameter(name):
    network = tiny(name).train()
    network(torch.rand(2, network.contract.channels, 12, 12)).square().mean().backward()
    missed = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    cancelled = getattr(zoo.model_file(systems()[variants()[name].system]), "CANCELLED", ())
    assert [key for key in missed if not key.endswith(cancelled)] == []


@every_form
def test_multiply_accumulates_are_counted(name):
    network = in_use(name)
    scale, channels = network.contract.scale, network.contract.channels
    low = torch.rand(1, channels, 24, 20)
    # At least every weight of the plain convolutions over the input is used for each pixel.
    assert count_macs(network, low) > low[0, 0].numel() * channels * scale


@every_form
@torch.no_grad()
def test_surgery_keeps_the_output(name):
    network = tiny(name).eval()
    low = torch.rand(1, network.contract.channels, 11, 13)
    before = network(low)
    apply_steps(network, zoo.variant(name).steps)
    assert network.steps == zoo.variant(name).steps
    assert (network(low) - before).abs().max() <= 1e-5


@every_form
@torch.no_grad()
def test_save_and_load_give_the_same_output(name, tmp_path):
    network = in_use(name)
    low = torch.rand(1, network.contract.channels, 9, 8)
    path = tmp_path / "weights.safetensors"
    system = variants()[name].system
    header = Header(
        model=system, variant=None, config=network.config.model_dump(mode="json"), steps=network.steps
    )
    write_checkpoint(path, network.state_dict(), header)
    loaded, read = zoo.load(path)
    assert torch.equal(loaded(low), network(low))
    assert read.sha256 == read_checkpoint(path)[0].sha256 != ""


@every_form
@torch.no_grad()
def test_another_process_can_be_handed_it(name):
    network = in_use(name)
    low = torch.rand(1, network.contract.channels, 9, 8)
    handed = pickle.loads(pickle.dumps(network))
    assert torch.equal(handed(low), network(low))
    assert (type(handed), handed.steps, handed.contract) == (type(network), network.steps, network.contract)


@every_form
def test_tiled_equals_whole(name):
    restorer = Restorer(in_use(name), name=name, engine="torch", place=Place())
    low = torch.rand(1, restorer.contract.channels, 37, 50)
    whole = restorer.run(low)
    for tile in (8, 16, 33):
        assert (restorer.run(low, tile=tile) - whole).abs().max() <= 1e-5


@every_form
@torch.no_grad()
def test_halo_is_exactly_the_reach(name):
    """Changing the input just outside the halo changes nothing; just inside, something."""
    network = in_use(name).double()
    halo, scale = network.contract.halo, network.contract.scale
    if halo is None:
        pytest.skip("the model's reach is unbounded")
    side = 2 * halo + 3
    low = torch.rand(1, network.contract.channels, side, side, dtype=torch.float64)
    centre = slice((halo + 1) * scale, (halo + 2) * scale)
    reference = network(low)[..., centre, centre]
    for offset, reaches in ((halo + 1, False), (halo, True)):
        changed = low.clone()
        changed[..., halo + 1 + offset, halo + 1] += 1
        moved = (network(changed)[..., centre, centre] - reference).abs().max()
        if reaches:
            exempt(name, "halo")
        assert (moved > 0) == reaches


@every_form
@torch.no_grad()
def test_bfloat16_stays_close(name):
    exempt(name, "bfloat16")
    network = in_use(name)
    low = torch.rand(1, network.contract.channels, 12, 12)
    reference = network(low)
    low_precision = network.bfloat16()(low.bfloat16()).float()
    assert (low_precision - reference).abs().mean() <= 0.03 * reference.abs().mean()


@every_form
def test_one_training_step_lowers_the_loss(name):
    network = tiny(name).train()
    contract = network.contract
    low = torch.rand(2, contract.channels, 8, 8)
    high = torch.rand(2, contract.channels, 8 * contract.scale, 8 * contract.scale)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4)
    before = (network(low) - high).square().mean()
    before.backward()
    optimiser.step()
    assert (network(low) - high).square().mean() < before


@every_form
@torch.no_grad()
def test_exported_program_gives_the_same_output_at_another_size(name):
    exempt(name, "export")
    network = in_use(name)
    channels = network.contract.channels
    sizes = {2: torch.export.Dim("height", min=2, max=4096), 3: torch.export.Dim("width", min=2, max=4096)}
    program = torch.export.export(network, (torch.rand(1, channels, 16, 12),), dynamic_shapes=(sizes,))
    low = torch.rand(1, channels, 9, 21)
    whole = network(low)
    # Outputs of random weights may be large, and sums taken in another order differ by a share of them.
    assert (program.module()(low) - whole).abs().max() <= 1e-5 * max(1.0, float(whole.abs().max()))


def fingerprint(name: str) -> list[float]:
    """A few outputs under weights that depend on no random generator."""
    network = in_use(name).double()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            values = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((torch.sin(values * 1.7 + index) * 0.3).reshape(parameter.shape))
        channels = network.contract.channels
        values = torch.arange(channels * 6 * 7, dtype=torch.float64)
        low = torch.sin(values * 0.37).reshape(1, channels, 6, 7) / 2 + 0.5
        return [round(float(value), 9) for value in network(low).flatten()[:: 97 * channels][:6]]


@every_variant
def test_fingerprint_has_not_changed(name):
    assert fingerprint(name) == pytest.approx(json.loads(FINGERPRINTS.read_text())[name], abs=1e-7)


if __name__ == "__main__":
    FINGERPRINTS.write_text(
        json.dumps({name: fingerprint(name) for name in sorted(variants())}, indent=1) + "\n"
    )
