"""EDM's preconditioning and sampler against closed forms, and the network's promises."""

import math
from itertools import pairwise

import pytest
import torch

from lungsynth.errors import LungsynthError
from lungsynth.generators.edm import EdmConfig, Generator, noise_levels, preconditioning, solve
from lungsynth.generators.edm_unet import Attention, Unet
from lungsynth.generators.family import GeneratorConfig, family
from lungsynth.generators.package import GeneratorCard, GeneratorPackage

TINY = {"size": 32, "patch": 4, "width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (), "steps": 3}
CODES = torch.tensor([0, 1, 1])


def trained(**changes):
    """A tiny generator in evaluation mode whose zero weights, with which it starts, are zero no more."""
    torch.manual_seed(0)
    generator = Generator(EdmConfig.model_validate(TINY | changes)).eval()
    for parameter in generator.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return generator.requires_grad_(False)


def gaussian(mean, deviation):
    """The ideal denoiser of pixels from N(mean, deviation²), and what the flow from one noise to another does to x.

    D(x; t) = (s² x + t² m) / (s² + t²), so dx/dt = t (x - m) / (s² + t²), so that x - m goes as the root of s² + t².
    """

    def denoise(x, sigma):
        return (deviation**2 * x + sigma**2 * mean) / (deviation**2 + sigma**2)

    def flow(x, start, end):
        return mean + (x - mean) * math.sqrt((deviation**2 + end**2) / (deviation**2 + start**2))

    return denoise, flow


def test_noise_levels():
    levels = noise_levels(18, 0.002, 80, rho=7)
    assert len(levels) == 19
    assert (levels[0], levels[17], levels[18]) == pytest.approx((80, 0.002, 0), rel=1e-12)
    assert all(now > after for now, after in pairwise(levels))
    assert noise_levels(3, 0.002, 80, rho=1) == pytest.approx([80, 40.001, 0.002, 0])
    assert noise_levels(3, 1, 128, rho=7) == pytest.approx([128, 1.5**7, 1, 0])


def test_preconditioning_where_noise_is_as_strong_as_the_images():
    values = preconditioning(torch.tensor([0.5]), 0.5)
    assert [value.item() for value in values] == pytest.approx(
        [0.5, 0.5 / math.sqrt(2), math.sqrt(2), math.log(0.5) / 4], rel=1e-6
    )


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80])
def test_input_and_target_of_the_network_have_unit_variance(sigma):
    draw = torch.Generator().manual_seed(0)
    image = 0.3 * torch.randn(400_000, generator=draw, dtype=torch.float64)
    noisy = image + sigma * torch.randn(400_000, generator=draw, dtype=torch.float64)
    c_skip, c_out, c_in, _ = preconditioning(torch.tensor(sigma, dtype=torch.float64), 0.3)
    assert (c_in * noisy).var().item() == pytest.approx(1, abs=0.01)
    assert ((image - c_skip * noisy) / c_out).var().item() == pytest.approx(1, abs=0.01)


def test_solution_is_that_of_the_flow():
    denoise, flow = gaussian(0.2, 0.5)
    start = 80 * torch.linspace(-3, 3, 101, dtype=torch.float64)
    for steps, tolerance in ((18, 0.1), (72, 5e-3), (288, 3e-4)):
        found = solve(denoise, start, noise_levels(steps, 0.002, 80, rho=7))
        torch.testing.assert_close(found, flow(start, 80, 0), rtol=0, atol=tolerance)


def test_half_the_step_quarters_the_error():
    denoise, flow = gaussian(-0.4, 0.6)
    start = torch.tensor([7.0], dtype=torch.float64)
    errors = [
        (solve(denoise, start, noise_levels(steps, 0.05, 10, rho=7)[:-1]) - flow(start, 10, 0.05)).abs().item()
        for steps in (21, 41, 81, 161)
    ]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.15)


def test_generator_draws_from_the_distribution_that_its_denoiser_knows(monkeypatch):
    generator = Generator(EdmConfig.model_validate(TINY | {"steps": 72}))
    denoise, _ = gaussian(-0.3, 0.4)
    monkeypatch.setattr(generator, "denoise", lambda x, sigma, labels: denoise(x, sigma[:, None, None, None]))
    images = generator(torch.randn(64, 32**2, generator=torch.Generator().manual_seed(0)), None)
    assert images.shape == (64, 1, 32, 32)
    assert images.mean().item() == pytest.approx(-0.3, abs=0.01)
    assert images.std().item() == pytest.approx(0.4, abs=0.01)


def test_latents_are_laid_out_as_pixels(monkeypatch):
    generator = Generator(EdmConfig.model_validate(TINY | {"masks": True}))
    monkeypatch.setattr(generator, "denoise", lambda x, sigma, labels: x)  # as if no noise were in it
    z = torch.randn(2, 2 * 32**2)
    torch.testing.assert_close(generator(z), 80 * z.view(2, 2, 32, 32))


def test_a_new_network_gives_zero_so_that_only_c_skip_is_left():
    generator = Generator(EdmConfig.model_validate(TINY))
    x, sigma = torch.randn(3, 1, 32, 32), torch.tensor([0.01, 0.5, 20.0])
    expected = preconditioning(sigma, 0.5)[0][:, None, None, None] * x
    torch.testing.assert_close(generator.denoise(x, sigma, CODES), expected)


def test_forward_is_a_function_of_latents_and_labels():
    generator = trained(dropout=0.5).train()
    z = torch.randn(3, 32**2)
    images = generator(z, CODES)
    assert images.isfinite().all()
    assert torch.equal(images, generator(z, CODES, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(generator(z[1:2], CODES[1:2]), images[1:2], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(images, generator(z, 1 - CODES), atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ()},
        {"masks": True, "classes": ("a", "b", "c")},
        {"size": 64, "patch": 2, "multipliers": (1, 2, 1), "blocks": 2, "attention": (16,)},
        {"size": 128, "multipliers": (1,)},
        {"patch": 1, "width": 8, "multipliers": (1, 1, 1, 2)},
    ],
)
def test_shapes(changes):
    generator = trained(**changes)
    config = generator.config
    labels = None if config.classes == () else torch.tensor([0, 1])
    x = torch.randn(2, config.planes, config.size, config.size)
    found = generator.denoise(x, torch.tensor([0.1, 10.0]), labels)
    assert found.shape == x.shape
    assert found.isfinite().all()


def test_noise_is_told_to_the_network():
    generator = trained()
    x = torch.randn(3, 1, 32, 32)
    low, high = (generator.network(x, torch.full((3,), noise), CODES) for noise in (-1.5, 1.0))
    assert not torch.allclose(low, high, atol=1e-2)


def test_features_are_dropped_by_rng_alone():
    generator = trained(dropout=0.3)
    x, sigma = torch.randn(3, 1, 32, 32), torch.ones(3)

    def found(seed):
        return generator.denoise(x, sigma, CODES, rng=None if seed is None else torch.Generator().manual_seed(seed))

    before = torch.random.get_rng_state()
    assert torch.equal(found(None), found(None))
    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))
    assert not torch.equal(found(1), found(None))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("attention", "layers"), [((), 1), ((16,), 5), ((32, 8), 9)])
def test_attention_at_the_resolutions_that_ask_for_it(attention, layers):
    config = EdmConfig(size=32, width=8, multipliers=(1, 1, 1), blocks=2, attention=attention)
    with torch.device("meta"):
        assert sum(isinstance(module, Attention) for module in Unet(config).modules()) == layers


def test_attention_sees_all_places_and_their_order_does_not_matter():
    torch.manual_seed(0)
    layer = Attention(16)
    torch.nn.init.normal_(layer.answer.weight)
    x = torch.randn(2, 16, 4, 4)
    order = torch.randperm(16)
    shuffled = layer(x.flatten(2)[:, :, order].unflatten(2, (4, 4)))
    torch.testing.assert_close(shuffled, layer(x).flatten(2)[:, :, order].unflatten(2, (4, 4)), rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[0, :, 0, 0] += 1
    moved = (layer(changed) - layer(x)).abs().amax(dim=1)
    assert (moved[0] > 0).all()
    assert not moved[1].any()


def test_default_is_about_as_large_as_the_published_network():
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Generator(EdmConfig(classes=())).parameters())
    assert 50e6 < parameters < 70e6  # 62 million; ours leaves out some layers


def test_nz_follows_from_the_size():
    assert EdmConfig().nz == 64**2
    assert EdmConfig(size=32, masks=True).nz == 2 * 32**2
    config = GeneratorConfig.model_validate({"family": "edm", "size": 128})
    assert (type(config), config.nz) == (EdmConfig, 128**2)
    assert EdmConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"nz": 128}, "nz is 128, but edm starts from one number for each pixel, channels·size² = 1024: leave nz out"),
        ({"size": 48}, "Input should be 32, 64, 128 or 256"),
        ({"multipliers": (1, 1, 1)}, "3 resolutions of 32 px, in patches of 4, end at 2 pixels a side"),
        ({"multipliers": (1, 0)}, "each must be 1 or more"),
        ({"sigma_max": 0.001}, "sigma_min, 0.002, must be less than sigma_max, 0.001"),
        ({"width": 12}, "multiple of 8"),
        ({"steps": 1}, "greater than or equal to 2"),
    ],
)
def test_what_does_not_fit_is_named(wrong, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        EdmConfig.model_validate(TINY | wrong)


def test_it_does_not_grow():
    with pytest.raises(LungsynthError, match="edm does not grow"):
        trained().grow(3.0)


def test_a_package_restores_it(tmp_path):
    generator = trained()
    package = GeneratorPackage.write(tmp_path, generator, GeneratorCard(generator=generator.config, window_hu=None))
    z = torch.ones(1, 1024)
    assert torch.equal(package.load()(z, CODES[:1]), generator(z, CODES[:1]))


def test_the_exported_network_draws_the_same_for_any_batch():
    generator = trained(steps=2, attention=(8,))
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(
        generator, (torch.zeros(2, 1024), CODES[:2]), dynamic_shapes=({0: batch}, {0: batch})
    ).module()
    for count in (1, 3):
        z = torch.randn(count, 1024)
        torch.testing.assert_close(exported(z, CODES[:count]), generator(z, CODES[:count]), rtol=1e-4, atol=1e-4)


def test_family():
    assert family("edm").discriminator is None
    assert family("edm").recipe["loss"] == {"kind": "denoising"}
