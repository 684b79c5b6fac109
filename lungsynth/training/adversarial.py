"""The adversarial objective: a generator learns against a discriminator, a turn each in every step."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.generators.family import DiscriminatorNetwork, GeneratorConfig, family
from lungsynth.training.augment import augment, draw_changes
from lungsynth.training.config import TrainingConfig
from lungsynth.training.controller import adjust, mean_signs
from lungsynth.training.devices import autocast, average_gradients
from lungsynth.training.draws import Draws
from lungsynth.training.losses import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    AdversarialLoss,
    does_not_train,
    relativistic_generator,
    slope_penalty,
    zero_centred_penalty,
)
from lungsynth.training.path_length import add_path_length
from lungsynth.training.schedule import at
from lungsynth.training.state import TrainingState


@dataclass(frozen=True)
class Part:
    """The slices that go through the networks in one pass: the batch, or a piece of it where memory is short."""

    weight: float
    """Fraction of the batch."""
    real: Tensor
    """Augmented real slices B×C×H×W."""
    labels: Tensor
    latents: Tensor
    changes: tuple[Tensor, Tensor]
    """Augmentation B×8 of the synthetic slices in the discriminator's turn, and in the generator's."""
    mix: Tensor
    """Uniform numbers B: where between a synthetic and a real slice the slope penalty is taken."""


class Adversarial:
    """The `Objective` of generators that have a discriminator."""

    statistics: ClassVar[tuple[str, ...]] = ("loss_d", "loss_g", "real_sign", "fake_sign", "p")
    """Both losses, `mean_signs` of the scores of real and of synthetic slices, the probability p of augmentation."""

    def __init__(self, loss: AdversarialLoss) -> None:
        self.loss = loss

    def check(self, generator: GeneratorConfig) -> None:
        """See `Objective`."""
        if family(generator.family).discriminator is None:
            raise does_not_train(self.loss, generator.family)

    def step(
        self,
        state: TrainingState,
        real: Tensor,
        labels: Tensor,
        *,
        draws: Draws,
        config: TrainingConfig,
        fabric: Fabric,
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        p = state.scalars["p"].clone()
        parts = _parts(state, real, labels, draws=draws, config=config)
        loss_d, signs, fakes = self._discriminator_turn(state, parts, draws=draws, config=config, fabric=fabric)
        loss_g = self._generator_turn(state, parts, fakes, draws=draws, config=config, fabric=fabric)
        if config.augment.target is not None:
            adjust(state.scalars, signs[0], config.augment, batch=config.batch, step=state.step, fabric=fabric)
        return {"loss_d": loss_d, "loss_g": loss_g, "real_sign": signs[0], "fake_sign": signs[1], "p": p}

    def _discriminator_turn(
        self, state: TrainingState, parts: list[Part], *, draws: Draws, config: TrainingConfig, fabric: Fabric
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Learn to tell real slices from synthetic ones; gives the loss, `mean_signs`, and the synthetic slices."""
        generator, discriminator, optimizer = state.generator, state.discriminator, state.discriminator_optimizer
        assert discriminator is not None
        assert optimizer is not None
        penalised = self._is_penalised(state)
        loss_sum, signs, fakes = torch.zeros((), device=fabric.device), torch.zeros(2, device=fabric.device), []
        discriminator.requires_grad_(True)
        optimizer.zero_grad()
        for part in parts:
            # Graphs of several passes would not fit into memory: the generator's turn then generates again.
            with autocast(fabric, False), torch.set_grad_enabled(len(parts) == 1):
                fakes.append(generator(part.latents, part.labels, draws.local).float())
            with autocast(fabric, penalised):
                real = part.real.detach().requires_grad_(penalised)
                fake = augment(fakes[-1].detach(), part.changes[0], config.augment, generator.config.masks)
                fake.requires_grad_(penalised)
                both = discriminator(torch.cat([real, fake]), part.labels.repeat(2)).float()
                real_scores, fake_scores = both.chunk(2)
                loss = DISCRIMINATOR_LOSSES[self.loss.kind](real_scores, fake_scores)
                total = loss + self.loss.drift * real_scores.square().mean()
                if penalised:
                    images, scores = (real, fake), (real_scores, fake_scores)
                    penalty = self._penalty(discriminator, part, images, scores=scores, kimg=state.kimg)
                    total = total + self.loss.penalty_every * penalty
            (total * part.weight).backward()
            loss_sum += loss.detach() * part.weight
            signs += mean_signs(real_scores, fake_scores, self.loss.kind) * part.weight
        average_gradients(discriminator, fabric)
        optimizer.step()
        return loss_sum, signs, fakes

    def _generator_turn(
        self,
        state: TrainingState,
        parts: list[Part],
        fakes: list[Tensor],
        *,
        draws: Draws,
        config: TrainingConfig,
        fabric: Fabric,
    ) -> Tensor:
        """Learn to pass for real with the discriminator that has just learned; gives the loss."""
        generator, discriminator = state.generator, state.discriminator
        assert discriminator is not None
        loss_sum = torch.zeros((), device=fabric.device)
        discriminator.requires_grad_(False)
        state.generator_optimizer.zero_grad()
        for part, fake in zip(parts, fakes, strict=True):
            with autocast(fabric, False):
                if len(parts) > 1:
                    fake = generator(part.latents, part.labels, draws.local)
                fake = augment(fake, part.changes[1], config.augment, generator.config.masks)
                fake_scores = discriminator(fake, part.labels).float()
                if self.loss.kind == "relativistic":
                    with torch.no_grad():
                        real_scores = discriminator(part.real, part.labels).float()
                    loss = relativistic_generator(real_scores, fake_scores)
                else:
                    loss = GENERATOR_LOSSES[self.loss.kind](fake_scores)
            (loss * part.weight).backward()
            loss_sum += loss.detach() * part.weight
        if self.loss.path_length and state.step % self.loss.path_every == 0:
            passes = [(part.latents, part.labels) for part in parts]
            add_path_length(state, passes, self.loss, rng=draws.local, fabric=fabric)
        average_gradients(generator, fabric)
        state.generator_optimizer.step()
        return loss_sum

    def _is_penalised(self, state: TrainingState) -> bool:
        """Whether a gradient penalty is due in this step."""
        weights = at(self.loss.r1_gamma, state.kimg), at(self.loss.r2_gamma, state.kimg), self.loss.slope
        return state.step % self.loss.penalty_every == 0 and max(weights) > 0

    def _penalty(
        self,
        discriminator: DiscriminatorNetwork,
        part: Part,
        images: tuple[Tensor, Tensor],
        *,
        scores: tuple[Tensor, Tensor],
        kimg: float,
    ) -> Tensor:
        """The terms on the discriminator's gradient; `images` and `scores` are (real, synthetic)."""
        total = scores[0].new_zeros(())
        for gamma, side, side_scores in zip((self.loss.r1_gamma, self.loss.r2_gamma), images, scores, strict=True):
            if weight := at(gamma, kimg):
                total = total + weight * zero_centred_penalty(side_scores, side)
        if self.loss.slope:
            real, fake = (side.detach() for side in images)
            total = total + self.loss.slope * slope_penalty(
                lambda x: discriminator(x, part.labels), real, fake, part.mix
            )
        return total


def _parts(state: TrainingState, real: Tensor, labels: Tensor, *, draws: Draws, config: TrainingConfig) -> list[Part]:
    """The batch in parts of at most `micro_batch` slices; its random numbers do not depend on how it is cut."""
    count, size, masks = len(real), config.micro_batch or len(real), state.generator.config.masks
    latents = draws.normal(count, state.generator.config.nz)
    changes = [draw_changes(count, state.scalars["p"], config.augment, draws) for _ in range(3)]
    mix = draws.uniform(count)
    cut = (numbers.split(size) for numbers in (real, labels, latents, *changes, mix))
    return [
        Part(len(x) / count, augment(x, of_real, config.augment, masks), y, z, (of_fake, of_fake_again), m)
        for x, y, z, of_real, of_fake, of_fake_again, m in zip(*cut, strict=True)
    ]
