"""R3GAN's networks against the paper: sizes, initialisation, resampling, conditioning."""

import math
from typing import ClassVar, TypeVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lungsynth.generators.r3gan import FAMILY, Discriminator, Generator, R3ganConfig, ResidualBlock
from lungsynth.training import TrainingConfig
from lungsynth.training.losses import relativistic_discriminator, zero_centred_penalty
from lungsynth.training.schedule import at

Network = TypeVar("Network", bound=nn.Module)


def narrow(size: int = 32, **settings: object) -> R3ganConfig:
    defaults = {"nz": 6, "embedding": 3, "channel_base": 8 * size, "channel_max": 16, "blocks": 1, "group": 8}
    return R3ganConfig.model_validate({"size": size, **defaults, **settings})


def lively(network: Network) -> Network:
    """The network with weights that use all its layers, as it has them after training."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def parameters(network: nn.Module) -> float:
    """In millions, as the paper gives them."""
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


IMAGENET = {"channel_max": 1536, "channel_base": 10**6, "group": 32}


class InColour(R3ganConfig):
    """As published: for pictures of three channels."""

    planes: ClassVar[int] = 3


@pytest.mark.parametrize(
    ("size", "classes", "settings", "generator", "discriminator"),
    [  # table 9: Stacked MNIST, CIFAR-10, FFHQ, ImageNet
        (32, 0, {}, 20.73, 20.68),
        (32, 10, {}, 20.78, 21.28),
        (256, 0, {}, 23.06, 23.01),
        (64, 0, {}, 22.43, 22.38),
        (32, 1000, IMAGENET, 82.91, 86.55),
        (64, 1000, IMAGENET, 103.57, 107.21),
    ],
)
def test_the_published_configurations_have_the_published_numbers_of_parameters(
    size, classes, settings, generator, discriminator
):
    config = InColour(size=size, classes=tuple(map(str, range(classes))), **settings)
    with torch.device("meta"):
        assert parameters(Generator(config)) == generator
        assert parameters(Discriminator(config)) == discriminator


def test_the_published_channels_of_every_resolution():
    assert R3ganConfig(size=256).widths == (768, 768, 768, 768, 384, 192, 96)


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512])
def test_every_size_is_drawn_and_scored(size):
    config = narrow(size)
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        images = Generator(config)(torch.randn(2, 6), labels)
        scores = Discriminator(config)(images, labels)
    assert images.shape == (2, 1, size, size)
    assert scores.shape == (2,)


def test_masks_are_one_more_channel():
    config = narrow(masks=True, classes=())
    images = Generator(config)(torch.randn(1, 6))
    assert images.shape == (1, 2, 32, 32)
    assert Discriminator(config)(images, torch.zeros(1, dtype=torch.int64)).shape == (1,)


def test_every_branch_is_zero_at_first_and_the_stem_the_identity():
    for network in (Generator(narrow()), Discriminator(narrow())):
        blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
        assert len(blocks) == 4
        for block in blocks:
            x = torch.randn(1, block.widen.in_channels, 4, 4)
            assert torch.equal(block(x), x)
            block.narrow.weight.data.fill_(0.1)
            assert not torch.equal(block(x), x)


def test_the_other_layers_of_a_branch_start_small_by_the_depth():
    # Section 3: MSRA's deviation √2/√((1 + 0.2²)·fan in), times L^-0.25; here L = 4 stages of 4 blocks.
    block = ResidualBlock(256, R3ganConfig(size=32, blocks=4, channel_max=256))
    for layer, fan_in in ((block.widen, 256), (block.mix, 16 * 9)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 1.04 / fan_in) * 0.5, rel=0.02)
        assert not layer.bias.any()


def test_slices_are_independent_of_the_others_in_the_batch():
    torch.manual_seed(0)
    config = narrow()
    generator, discriminator = lively(Generator(config)), lively(Discriminator(config))
    z, labels = torch.randn(4, 6), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        images = generator(z, labels)
        torch.testing.assert_close(generator(z[1:2], labels[1:2]), images[1:2])
        scores = discriminator(images, labels)
        torch.testing.assert_close(discriminator(images[1:2], labels[1:2]), scores[1:2])


def test_scores_are_proportional_to_slices_where_no_branch_has_learned():
    # Without biases, normalization or an activation on the stem, a new discriminator is a linear map.
    discriminator, images = Discriminator(narrow(classes=())), torch.randn(2, 1, 32, 32)
    labels = torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(discriminator(3 * images, labels), 3 * discriminator(images, labels))


def test_the_class_changes_what_a_conditional_generator_draws():
    generator = lively(Generator(narrow()))
    z = torch.randn(1, 6).expand(2, -1)
    first, second = generator(z, torch.tensor([0, 1]))
    assert not torch.allclose(first, second)


def test_without_classes_labels_count_for_nothing():
    config = narrow(classes=())
    generator, discriminator = lively(Generator(config)), lively(Discriminator(config))
    z, labels = torch.randn(2, 6), torch.tensor([0, 1])
    images = generator(z)
    assert torch.equal(generator(z, labels), images)
    assert torch.equal(discriminator(images, labels), discriminator(images, 1 - labels))


def test_scores_are_the_features_projected_on_the_class():
    discriminator, features = lively(Discriminator(narrow())), []
    discriminator.features.register_forward_hook(lambda *call: features.append(call[2]))
    scores = discriminator(torch.randn(2, 1, 32, 32), torch.tensor([1, 0]))
    torch.testing.assert_close(scores, (features[0] * discriminator.embed.weight[[1, 0]]).sum(dim=1))


def test_classes_start_close_together():
    generator, discriminator = Generator(narrow(64, nz=64, embedding=64)), Discriminator(narrow(64))
    z, images = torch.randn(64, 64), torch.randn(64, 1, 64, 64)
    with torch.no_grad():
        for network, x in ((generator, z), (discriminator, images)):
            first, second = (network(x, torch.full((64,), code)) for code in (0, 1))
            assert (first - second).std() < 0.4 * first.std(dim=0).mean()


def test_class_embeddings_learn():
    config, labels = narrow(), torch.tensor([0, 0])
    generator, discriminator = lively(Generator(config)), lively(Discriminator(config))
    discriminator(generator(torch.randn(2, 6), labels), labels).sum().backward()
    for network in (generator, discriminator):
        assert network.embed.weight.grad[0].any()
        assert not network.embed.weight.grad[1].any()


def regularized_loss(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    labels = torch.tensor([0, 1])
    sides = [images.clone().requires_grad_() for images in (real, fake)]
    scores = [discriminator(images, labels) for images in sides]
    penalties = [zero_centred_penalty(s, x) for s, x in zip(scores, sides, strict=True)]
    return relativistic_discriminator(*scores) + 2 * sum(penalties)


def test_the_regularized_loss_changes_along_its_gradient_as_much_as_that_says():
    torch.manual_seed(0)
    discriminator = lively(Discriminator(narrow())).double()
    real, fake = torch.randn(2, 2, 1, 32, 32, dtype=torch.double).tanh().unbind()
    weights = list(discriminator.parameters())
    directions = [torch.randn_like(weight) for weight in weights]
    regularized_loss(discriminator, real, fake).backward()
    slope = sum((weight.grad * direction).sum().item() for weight, direction in zip(weights, directions, strict=True))
    losses = []
    for distance in (1e-7, -1e-7):
        moved = lively(Discriminator(narrow())).double()
        for own, weight, direction in zip(moved.parameters(), weights, directions, strict=True):
            own.data = weight.detach() + distance * direction
        losses.append(regularized_loss(moved, real, fake).item())
    assert (losses[0] - losses[1]) / 2e-7 == pytest.approx(slope, rel=1e-4)


def test_a_generator_is_exported_for_any_number_of_slices():
    generator = lively(Generator(narrow())).eval()
    z, labels, batch = torch.randn(5, 6), torch.tensor([0, 1, 1, 0, 1]), torch.export.Dim("batch", min=1)
    exported = torch.export.export(generator, (z[:2], labels[:2]), dynamic_shapes=({0: batch}, {0: batch})).module()
    with torch.no_grad():
        for count in (1, 5):
            torch.testing.assert_close(exported(z[:count], labels[:count]), generator(z[:count], labels[:count]))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"channel_base": 640}, "a stage 20 channels, its blocks 40: not whole groups of 16"), ({"size": 48}, "size")],
)
def test_impossible_architectures_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        R3ganConfig(**{"size": 32} | settings)


def test_the_recipe_is_the_published_one():
    training = TrainingConfig.model_validate(FAMILY.recipe)
    assert training.loss.kind == "relativistic"
    assert training.loss.penalty_every == 1
    assert (training.beta1, training.batch) == (0, 256)
    for schedule, start, end in (
        (training.generator_lr, 2e-4, 5e-5),
        (training.discriminator_lr, 2e-4, 5e-5),
        (training.beta2, 0.9, 0.99),
        (training.ema_kimg, 0, 500),
        (training.augment.p, 0, 0.3),
    ):
        assert [at(schedule, kimg) for kimg in (0, 20_000, 100_000)] == pytest.approx([start, end, end])
        assert at(schedule, 10_000) == pytest.approx((start + end) / 2)
    for gamma in (training.loss.r1_gamma, training.loss.r2_gamma):  # between those of 64 and of 256 px
        assert at(gamma, 0) == pytest.approx(math.sqrt(2 * 150), rel=0.02)
        assert at(gamma, 20_000) == pytest.approx(math.sqrt(0.2 * 15), rel=0.02)
