"""One step of a generator against a discriminator."""

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.generators.family import DiscriminatorNetwork
from lungsynth.training.augment import augment, draw_changes
from lungsynth.training.config import TrainingConfig
from lungsynth.training.controller import adjust, mean_signs
from lungsynth.training.devices import autocast, average_gradients
from lungsynth.training.draws import Draws
from lungsynth.training.losses import LOSSES, AdversarialLoss, slope_penalty, zero_centred_penalty
from lungsynth.training.path_length import add_path_length
from lungsynth.training.schedule import at
from lungsynth.training.state import TrainingState

STATISTICS = ("loss_d", "loss_g", "real_sign", "fake_sign", "p")
"""What a step reports: both losses, `mean_signs` of the scores of real and of synthetic slices, augmentation's p."""


@dataclass(frozen=True)
class Pass:
    """What goes through the networks at once: a batch, or a part of one where memory is short."""

    real: Tensor
    labels: Tensor
    latents: Tensor
    changes: Tensor
    """Augmentation 3×B×…: of the real slices, and of the synthetic ones in either network's turn."""
    shares: Tensor
    """Uniform numbers B, for the slope penalty."""


def adversarial_step(
    state: TrainingState, real: Tensor, labels: Tensor, draws: Draws, config: TrainingConfig, fabric: Fabric
) -> Tensor:
    """Train both networks on `real` B×C×H×W in [-1, 1] of the classes `labels`; gives `STATISTICS`, on the device."""
    generator, discriminator, loss = state.generator, state.discriminator, config.loss
    assert isinstance(loss, AdversarialLoss)
    assert discriminator is not None
    assert state.discriminator_optimizer is not None
    masks = generator.config.masks
    discriminator_loss, generator_loss = LOSSES[loss.kind]
    gammas = at(loss.r1_gamma, state.kimg), at(loss.r2_gamma, state.kimg)
    penalised = state.step % loss.penalty_every == 0 and max(*gammas, loss.slope) > 0
    passes = _passes(real, labels, state, draws, config)
    reals, fakes, statistics = [], [], torch.zeros(len(STATISTICS), device=fabric.device)
    statistics[4] = state.memory["p"]

    # Discriminator: tell real slices from synthetic ones of the same classes.
    discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad()
    for part in passes:
        share = len(part.real) / len(real)
        # Of several passes, all gradients would have to be kept in memory.
        with autocast(fabric, False), torch.set_grad_enabled(len(passes) == 1):
            fakes.append(generator(part.latents, part.labels, draws.local).float())
        with autocast(fabric, penalised):
            reals.append(augment(part.real, part.changes[0], config.augment, masks))
            shown = reals[-1].detach().requires_grad_(penalised)
            drawn = augment(fakes[-1].detach(), part.changes[1], config.augment, masks).requires_grad_(penalised)
            scores = discriminator(torch.cat([shown, drawn]), part.labels.repeat(2)).float().chunk(2)
            loss_d = discriminator_loss(*scores)
            total = loss_d + loss.drift * scores[0].square().mean()
            if penalised:
                total = total + loss.penalty_every * _penalty(discriminator, part, (shown, drawn), scores, gammas, loss)
        (total * share).backward()
        statistics[0] += loss_d.detach() * share
        statistics[2:4] += mean_signs(scores[0], scores[1], loss.kind) * share
    average_gradients(discriminator, fabric)
    state.discriminator_optimizer.step()

    # Generator: pass for real with the discriminator that has just learned.
    discriminator.requires_grad_(False)
    state.generator_optimizer.zero_grad()
    for part, shown, fake in zip(passes, reals, fakes, strict=True):
        share = len(part.real) / len(real)
        with autocast(fabric, False):
            if len(passes) > 1:
                fake = generator(part.latents, part.labels, draws.local)
            fake_scores = discriminator(augment(fake, part.changes[2], config.augment, masks), part.labels).float()
            real_scores = fake_scores.detach()  # which only the relativistic loss looks at
            if loss.kind == "relativistic":
                with torch.no_grad():
                    real_scores = discriminator(shown, part.labels).float()
            loss_g = generator_loss(real_scores, fake_scores)
        (loss_g * share).backward()
        statistics[1] += loss_g.detach() * share
    if loss.path_length and state.step % loss.path_every == 0:
        add_path_length(state, [(part.latents, part.labels) for part in passes], loss, draws.local, fabric)
    average_gradients(generator, fabric)
    state.generator_optimizer.step()
    if config.augment.target is not None:
        adjust(state.memory, statistics[2], config.augment, config.batch, state.step, fabric)
    return statistics


def _penalty(
    discriminator: DiscriminatorNetwork,
    part: Pass,
    images: tuple[Tensor, Tensor],
    scores: tuple[Tensor, Tensor],
    gammas: tuple[float, float],
    loss: AdversarialLoss,
) -> Tensor:
    """The terms on the discriminator's gradient; `images` and `scores` are those of real and of synthetic slices."""
    total = scores[0].new_zeros(())
    for gamma, side, side_scores in zip(gammas, images, scores, strict=True):
        if gamma:
            total = total + gamma * zero_centred_penalty(side_scores, side)
    if loss.slope:
        real, fake = (side.detach() for side in images)
        total = total + loss.slope * slope_penalty(lambda x: discriminator(x, part.labels), real, fake, part.shares)
    return total


def _passes(real: Tensor, labels: Tensor, state: TrainingState, draws: Draws, config: TrainingConfig) -> list[Pass]:
    """The batch in parts of at most `micro_batch` slices; its random numbers do not depend on how it is cut."""
    count, size = len(real), config.micro_batch or len(real)
    latents = draws.normal(count, state.generator.config.nz)
    changes = torch.stack([draw_changes(count, state.memory["p"], config.augment, draws) for _ in range(3)])
    shares = draws.uniform(count)
    cut = (numbers.split(size) for numbers in (real, labels, latents, changes.transpose(0, 1), shares))
    return [Pass(r, y, z, c.transpose(0, 1), s) for r, y, z, c, s in zip(*cut, strict=True)]
