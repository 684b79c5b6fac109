"""The parts of StyleGAN2 against the paper's own formulas; what is random, and what must not be."""

from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.generators.layers import EqualLinear
from lungsynth.generators.stylegan2 import (
    Discriminator,
    DownBlock,
    Generator,
    Mapping,
    Stylegan2Config,
    modulated_convolution,
)

TAPS = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64)
FILTER = torch.outer(TAPS, TAPS)[None, None] / 64


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def config(**changes):
    narrow = {"size": 32, "nz": 8, "nw": 12, "mapping_layers": 2, "channel_base": 256, "channel_max": 16}
    return Stylegan2Config.model_validate(narrow | changes)


def noisy(**changes):
    """A generator whose noise is as strong as training may make it; at first it has no strength."""
    network = Generator(config(**changes)).eval().requires_grad_(False)
    for conv in network.convs:
        conv.strength.fill_(0.5)
    return network


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def own_weights(weight, style):
    """The weights of one sample, by equations 1 and 3."""
    modulated = style[None, :, None, None] * weight
    return modulated / (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()


def test_modulated_convolution_is_that_of_each_samples_own_weights():
    x, weight, styles = (torch.randn(*s, dtype=torch.float64) for s in ((3, 5, 6, 6), (4, 5, 3, 3), (3, 5)))
    expected = [
        F.conv2d(one[None], own_weights(weight, style), padding=1) for one, style in zip(x, styles, strict=True)
    ]
    torch.testing.assert_close(modulated_convolution(x, weight, styles), torch.cat(expected))


def test_upsampling_convolution_is_the_filter_and_then_the_convolution():
    x, weight, styles = (torch.randn(*s, dtype=torch.float64) for s in ((2, 5, 6, 6), (4, 5, 3, 3), (2, 5)))
    spread = torch.zeros(2, 5, 12, 12, dtype=torch.float64)
    spread[:, :, ::2, ::2] = x
    larger = F.conv2d(spread.flatten(0, 1)[:, None], 4 * FILTER, padding=3).view(2, 5, 15, 15)
    mirrored = weight.flip(2, 3)
    expected = [
        F.conv2d(one[None], own_weights(mirrored, style), padding=2)[:, :, 2:14, 2:14]
        for one, style in zip(larger, styles, strict=True)
    ]
    torch.testing.assert_close(modulated_convolution(x, weight, styles, up=True), torch.cat(expected))


@pytest.mark.parametrize("scale", [0.1, 50])
def test_demodulation_gives_unit_variance_whatever_the_styles(scale):
    x, weight = torch.randn(4, 32, 48, 48), 7 * torch.randn(8, 32, 3, 3)
    y = modulated_convolution(x, weight, scale * torch.randn(4, 32), gain=3)[:, :, 1:-1, 1:-1]
    assert y.std(dim=(2, 3)).flatten().tolist() == pytest.approx([3] * 32, rel=0.1)


def test_mapping_normalises_latents_and_then_adds_the_class():
    mapping = Mapping(8, 2, 12, 3)
    z, labels = torch.randn(5, 8), torch.tensor([0, 1, 0, 1, 0])
    w = mapping(z, labels)
    torch.testing.assert_close(mapping(3 * z, labels), w)
    x = torch.cat([z / z.norm(dim=1, keepdim=True) * 8**0.5, torch.zeros(5, 12)], dim=1)
    embedded = mapping.embed.weight.T / 2**0.5 + mapping.embed.bias
    x[:, 8:] = (embedded / embedded.norm(dim=1, keepdim=True) * 12**0.5)[labels]
    for layer in mapping.layers:  # gain √2 behind the activation, as it is published
        x = 2**0.5 * F.leaky_relu(x @ (0.01 * layer.weight).T / x.shape[1] ** 0.5, 0.2)
    torch.testing.assert_close(w, x)


def test_mapping_learns_a_hundred_times_slower():
    mapping = Mapping(8, 0, 12, 1)
    (layer,) = mapping.layers
    usual = EqualLinear(8, 12, gain=2**0.5)

    def moved(module):
        """How far one step of Adam, which is of the same size for all parameters, moves what a unit input gives."""
        before = module(torch.eye(8)) - module(torch.zeros(1, 8))
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        module(torch.eye(8)).sum().backward()
        optimizer.step()
        return (module(torch.eye(8)) - module(torch.zeros(1, 8)) - before).abs().mean().item()

    assert moved(layer) == pytest.approx(moved(usual) / 100, rel=0.02)
    assert moved(usual) == pytest.approx(1e-3 * (2 / 8) ** 0.5, rel=0.02)


def test_without_rng_the_latents_and_labels_decide():
    network = noisy()
    z, labels = torch.randn(1, 8).expand(3, -1), torch.tensor([0, 0, 1])
    before = torch.random.get_rng_state()
    images = network(z, labels)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(images[0], images[1])
    assert not torch.allclose(images[0], images[2])
    assert torch.equal(images, network(z, labels))
    assert torch.equal(images, network.synthesis(network.mapping(z, labels)))


def test_with_rng_each_image_has_its_own_noise():
    network = noisy()
    styles = network.mapping(torch.randn(1, 8).expand(2, -1), torch.zeros(2, dtype=torch.int64))
    images = network.synthesis(styles, rng(1))
    assert not torch.allclose(images[0], images[1])
    assert torch.equal(images, network.synthesis(styles, rng(1)))
    assert not torch.allclose(images, network.synthesis(styles, rng(2)))
    for conv in network.convs:
        conv.strength.zero_()
    torch.testing.assert_close(network.synthesis(styles, rng(1)), network.synthesis(styles))


def test_noise_of_the_seed_goes_into_the_package():
    kept = [name for name in Generator(config()).state_dict() if name.endswith("noise")]
    assert len(kept) == 7


def test_styles_mix_with_rng_only():
    network, images, layers = noisy(), 4000, 8
    z, labels = torch.randn(images, 8), torch.arange(images) % 2
    plain = network.mapping(z, labels)
    assert plain.shape == (images, layers, 12)
    assert torch.equal(plain, plain[:, :1].expand(-1, layers, -1))
    mixed = network.mapping(z, labels, rng())
    own = (mixed == plain).all(dim=2)
    assert own[:, 0].all()
    assert torch.equal(own.int(), own.int().cummin(dim=1).values)  # the image's own first, then the other one
    assert torch.equal(mixed[:, -1:].expand(-1, layers, -1)[~own], mixed[~own])
    shares = own.sum(dim=1).bincount(minlength=layers + 1) / images
    assert shares[0] == 0
    assert shares[1:layers].tolist() == pytest.approx([0.9 / 7] * 7, abs=0.03)
    assert shares[layers] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512])
@pytest.mark.parametrize("classes", [(), CLASSES])
def test_shapes(size, classes):
    small = config(size=size, channel_base=size, channel_max=8, masks=size == 32, classes=classes)
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        images = Generator(small)(torch.randn(2, 8), labels if classes else None, rng())
        assert images.shape == (2, small.planes, size, size)
        scores = Discriminator(small)(images, labels)
    assert scores.shape == (2,)
    assert scores[0] != scores[1]


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_the_claimed_class_changes_the_score(classes):
    discriminator = Discriminator(config(classes=classes))
    images = torch.randn(4, 1, 32, 32)
    zeros, ones = (discriminator(images, torch.full((4,), code)) for code in (0, 1))
    assert torch.equal(zeros, ones) == (not classes)


def test_the_discriminator_sees_a_generator_that_repeats_itself():
    discriminator = Discriminator(config(classes=()))
    images = torch.randn(1, 1, 32, 32).expand(4, -1, -1, -1)
    others = torch.cat([images[:1], torch.randn(3, 1, 32, 32)])
    labels = torch.zeros(4, dtype=torch.int64)
    assert not torch.isclose(discriminator(images, labels)[0], discriminator(others, labels)[0])


def test_discriminator_blocks_keep_the_scale_of_an_even_picture():
    # Noise would lose what the blur takes; what is even over the picture passes it unchanged.
    block = DownBlock(64, 256)
    even = torch.randn(32, 64, 1, 1).expand(-1, -1, 16, 16)
    main = F.leaky_relu(F.conv2d(even, block.conv.weight / 24, padding=1), 0.2) * 2**0.5
    main = F.conv2d(main[:, :, 6:9, 6:9], block.down.weight / 24)
    skip = F.conv2d(even[:, :, :1, :1], block.skip.weight / 8)
    expected = (F.leaky_relu(main, 0.2) * 2**0.5 + skip) / 2**0.5
    found = block(even)
    assert found.shape == (32, 256, 8, 8)
    torch.testing.assert_close(found[:, :, 4:5, 4:5], expected)
    assert expected.square().mean().item() == pytest.approx(1, rel=0.15)


class InColour(Stylegan2Config):
    """As published: for pictures of three channels."""

    planes: ClassVar[int] = 3


def test_layers_of_the_size_that_official_runs_print():
    # github.com/open-mmlab/mmgeneration, issue 394; github.com/NVlabs/stylegan2-ada-pytorch, issues 181 and 182
    published = InColour(size=512, classes=(), channel_base=32768)
    with torch.device("meta"):
        network, critic = Generator(published), Discriminator(published)
    assert [count(layer) for layer in network.to_style.layers] == [262656] * 8
    assert network.constant.numel() == 8192
    assert [count(conv) for conv in network.convs[:9]] == [2622465] * 9
    assert [count(conv) for conv in network.convs[9:14]] == [1442561, 721409, 426369, 213249, 139457]
    assert [count(grey) for grey in network.greys[:7]] == [264195] * 5 + [132099, 66051]
    blocks = [[count(part) for part in (block.skip, block.conv, block.down)] for block in critic.blocks[:3]]
    assert blocks == [[8192, 36928, 73856], [32768, 147584, 295168], [131072, 590080, 1180160]]


def test_exports_with_a_dynamic_batch():
    network = noisy()
    z, labels, batch = torch.randn(6, 8), torch.tensor([0, 1, 1, 0, 1, 0]), torch.export.Dim("batch", min=1)
    exported = torch.export.export(network, (z[:2], labels[:2]), dynamic_shapes=({0: batch}, {0: batch})).module()
    for few in (1, 6):
        torch.testing.assert_close(exported(z[:few], labels[:few]), network(z[:few], labels[:few]))


def test_too_few_channels_are_an_error():
    with pytest.raises(ValidationError, match="channel_base must be at least size, 64"):
        config(size=64, channel_base=63)
