"""The networks of the paper: their sizes, their layers, and how one resolution passes into the next."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.generators.family import family
from lungsynth.generators.layers import EqualConv2d, EqualLinear
from lungsynth.generators.pggan import Discriminator, Generator, PgganConfig, pixel_norm

SMALL = PgganConfig(size=32, nz=16, width=12, fmap_base=256)
LABELS = torch.tensor([0, 1, 1, 0])
LEVELS = [2, 2.5, 3, 3.01, 4, 4.25, 4.99, 5]
JOINT = 1e-7
"""From a whole level to one that is the same but for rounding."""


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def latents():
    return torch.randn(4, SMALL.nz)


def drawn(generator, z, level):
    generator.grow(level)
    with torch.no_grad():
        return generator(z, LABELS)


def scored(discriminator, images, level):
    discriminator.grow(level)
    with torch.no_grad():
        return discriminator(images, LABELS)


@pytest.mark.parametrize("level", LEVELS)
def test_both_networks_work_at_the_resolution_of_their_level(level):
    images = drawn(Generator(SMALL), latents(), level)
    side = 2 ** math.ceil(level)
    assert images.shape == (4, 1, side, side)
    assert scored(Discriminator(SMALL), images, level).shape == (4,)


@pytest.mark.parametrize(("size", "masks"), [(4, False), (8, True), (512, False)])
def test_new_networks_are_fully_grown(size, masks):
    config = PgganConfig(size=size, nz=4, width=4, fmap_base=512, masks=masks)
    images = Generator(config)(torch.randn(4, 4), LABELS)
    assert images.shape == (4, 1 + masks, size, size)
    assert Discriminator(config)(images, LABELS).shape == (4,)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_new_block_enters_unnoticed(level):
    generator, discriminator, z = Generator(SMALL), Discriminator(SMALL), latents()
    before, after = drawn(generator, z, level), drawn(generator, z, level + JOINT)
    torch.testing.assert_close(after, F.interpolate(before, scale_factor=2.0), atol=1e-5, rtol=0)
    images = torch.randn(4, 1, 2 ** (level + 1), 2 ** (level + 1))
    scores = scored(discriminator, F.avg_pool2d(images, 2), level)
    torch.testing.assert_close(scored(discriminator, images, level + JOINT), scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [3, 4, 5])
def test_a_block_is_complete_without_a_jump(level):
    generator, discriminator, z = Generator(SMALL), Discriminator(SMALL), latents()
    images = drawn(generator, z, level)
    torch.testing.assert_close(drawn(generator, z, level - JOINT), images, atol=1e-5, rtol=0)
    scores = scored(discriminator, images, level)
    torch.testing.assert_close(scored(discriminator, images, level - JOINT), scores, atol=1e-5, rtol=0)


def test_pictures_are_blended_by_the_fraction_of_the_level():
    generator, z = Generator(SMALL), latents()
    coarse, fine = drawn(generator, z, 3), drawn(generator, z, 4)
    expected = 0.7 * coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + 0.3 * fine
    torch.testing.assert_close(drawn(generator, z, 3.3), expected)


def test_only_blocks_in_use_are_trained():
    generator = Generator(SMALL)
    generator.grow(3.5)
    generator(latents(), LABELS).sum().backward()
    trained = {name for name, parameter in generator.named_parameters() if parameter.grad is not None}
    unused = {
        f"blocks.{i}.{layer}.{kind}" for i in (2,) for layer in ("first", "second") for kind in ("weight", "bias")
    }
    unused |= {f"to_image.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")}
    assert trained == {name for name, _ in generator.named_parameters()} - unused


def test_the_level_is_no_part_of_the_weights():
    young, grown = Generator(SMALL), Generator(SMALL)
    young.grow(3.5)
    assert young.state_dict().keys() == dict(young.named_parameters()).keys()
    grown.load_state_dict(young.state_dict())
    assert grown(latents(), LABELS).shape == (4, 1, 32, 32)


def test_equalized_learning_rate():
    for network in (Generator(PgganConfig(size=8, width=64)), Discriminator(PgganConfig(size=8, width=64))):
        layers = {name: m for name, m in network.named_modules() if isinstance(m, EqualConv2d | EqualLinear)}
        for name, layer in layers.items():
            fan_in = layer.weight[0].numel()
            gain = {"first": math.sqrt(2) / 4, "score": 1}.get(name, 1 if "to_image" in name else math.sqrt(2))
            assert layer.scale == pytest.approx(gain / math.sqrt(fan_in)), name
            assert layer.weight.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * layer.weight.numel())), name
            assert not layer.bias.any()


def test_a_convolution_doubles_the_variance_which_the_leaky_relu_takes_back():
    y = EqualConv2d(64, 64, 3)(torch.randn(8, 64, 16, 16))[:, :, 1:-1, 1:-1]
    assert y.var().item() == pytest.approx(2, rel=0.1)
    assert F.leaky_relu(y, 0.2).square().mean().item() == pytest.approx(1.04, rel=0.1)


def test_pixel_norm():
    x = torch.tensor([3.0, 4.0])[None, :, None, None].expand(1, 2, 3, 3)
    expected = torch.tensor([3.0, 4.0]) / math.sqrt(12.5)
    torch.testing.assert_close(pixel_norm(x)[0, :, 1, 2], expected)
    assert torch.equal(pixel_norm(torch.zeros(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1))


def test_every_pixel_of_every_block_is_normed():
    generator, lengths = Generator(SMALL), []
    for block in generator.blocks:
        block.register_forward_hook(lambda _, __, x: lengths.append(x.square().mean(dim=1)))
    generator(latents(), LABELS)
    assert len(lengths) == 3
    for length in lengths:
        torch.testing.assert_close(length, torch.ones_like(length), atol=1e-4, rtol=0)


def test_latents_are_points_on_a_sphere():
    generator, z = Generator(SMALL), latents()
    torch.testing.assert_close(drawn(generator, 3 * z, 5), drawn(generator, z, 5), atol=1e-5, rtol=0)


def test_the_class_is_one_number_beside_the_latent():
    generator = Generator(PgganConfig(size=4, width=512))
    inputs = []
    generator.first.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    generator(torch.randn(4, 512), LABELS)
    assert inputs[0][:, 512:].tolist() == [[1, 0] if label == 0 else [0, 1] for label in LABELS.tolist()]


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_the_class_decides_where_there_are_classes(classes):
    config = SMALL.model_copy(update={"classes": classes})
    generator, discriminator, z = Generator(config), Discriminator(config), latents()
    images = generator(z, LABELS)
    assert torch.equal(images, generator(z, 1 - LABELS)) == (not classes)
    scores = discriminator(images, LABELS)
    assert torch.equal(scores, discriminator(images, 1 - LABELS)) == (not classes)
    if not classes:
        assert torch.equal(images, generator(z))


def test_a_score_depends_on_the_spread_of_its_group():
    discriminator, image = Discriminator(SMALL), torch.randn(1, 1, 32, 32)
    alike = scored(discriminator, image.expand(4, -1, -1, -1), 5)
    mixed = scored(discriminator, torch.cat([image, torch.randn(3, 1, 32, 32)]), 5)
    assert not torch.isclose(alike[0], mixed[0])


# Table 2, generator: 4×4 convolution from the latent, then per resolution two 3×3 convolutions, then 1×1.
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32}


def test_size_of_the_paper():
    with torch.device("meta"):
        generator, discriminator = (kind(PgganConfig(size=512, classes=())) for kind in (Generator, Discriminator))
    assert PgganConfig(size=512).widths == list(WIDTHS.values())
    table = 512 * 512 * 16 + 512 + 512 * 512 * 9 + 512
    before = 512
    for side in (8, 16, 32, 64, 128, 256, 512):
        width = WIDTHS[side]
        table += before * width * 9 + width + width * width * 9 + width
        before = width
    table += 32 + 1
    assert round(table / 1e6, 1) == 23.1  # the paper's, at 1024 px, which has 7,000 more
    # Beyond the table: a 1×1 layer for each lower resolution, and a bias for each place of the 4×4.
    lower = sum(width + 1 for width in WIDTHS.values()) - 33
    assert _count(generator) == table + lower + 512 * 15
    assert _count(discriminator) / 1e6 == pytest.approx(23.1, abs=0.05)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_a_narrow_network_is_possible():
    assert PgganConfig(size=64, width=48, fmap_base=768).widths == [48, 48, 48, 48, 24]
    assert PgganConfig(size=512, width=1, fmap_base=256).widths == [1] * 8


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_exports_with_a_dynamic_batch(classes):
    generator = Generator(SMALL.model_copy(update={"classes": classes})).eval()
    z, labels = torch.randn(6, SMALL.nz), torch.tensor([0, 1, 1, 0, 1, 0])
    inputs = (z, labels) if classes else (z,)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        generator, tuple(x[:2] for x in inputs), dynamic_shapes=tuple({0: batch} for _ in inputs)
    ).module()
    torch.testing.assert_close(exported(*inputs), generator(*inputs))
    one = tuple(x[:1] for x in inputs)
    torch.testing.assert_close(exported(*one), generator(*one))


@pytest.mark.parametrize(
    "wrong", [{"size": 48}, {"size": 1024}, {"size": 2}, {"width": 0}, {"fmap_base": 8}, {"ngf": 3}]
)
def test_wrong_configuration(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PgganConfig(**wrong)


def test_is_found_by_its_name():
    assert family("pggan").config is PgganConfig
