"""The adversarial objective: a generator learns against a discriminator, a turn each in every step."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lungsynth.generators.family import DiscriminatorNetwork, GeneratorConfig, family
from lungsynth.training.augment import augment, draw_changes
from lungsynth.training.controller import adjust, mean_signs
from lungsynth.training.devices import autocast, average_gradients
from lungsynth.training.inputs import Inputs
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

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Part:
    """The slices that go through the networks in one pass: the batch, or a piece of it where memory is short."""

    weight: float
    """Fraction of the batch."""
    real: Tensor
    """Augmented real slices B×C×H×W."""
    labels: Tensor
    latents: Tensor
    changes: Pair
    """Augmentation B×8 of the synthetic slices in the discriminator's turn, and in the generator's."""
    mix: Tensor
    """Uniform numbers B: where between a synthetic and a real slice the slope penalty is taken."""


@dataclass(frozen=True)
class Adversarial:
    """The `Objective` of generators that have a discriminator."""

    loss: AdversarialLoss

    statistics: ClassVar[tuple[str, ...]] = ("loss_d", "loss_g", "real_sign", "fake_sign", "p")
    """Both losses, `mean_signs` of the scores of real and of synthetic slices, the probability p of augmentation."""

    def check(self, generator: GeneratorConfig) -> None:
        """See `Objective`."""
        if family(generator.family).discriminator is None:
            raise does_not_train(self.loss, generator.family)

    def step(self, state: TrainingState, inputs: Inputs) -> dict[str, Tensor]:
        """See `Objective`."""
        p, config = state.scalars["p"].clone(), inputs.config
        parts = _parts(state, inputs)
        loss_d, (real_sign, fake_sign), fakes = self._discriminator_turn(state, inputs, parts)
        loss_g = self._generator_turn(state, inputs, parts, fakes=fakes)
        if config.augment.target is not None:
            adjust(state.scalars, real_sign, config.augment, batch=config.batch, step=state.step, fabric=inputs.fabric)
        return {"loss_d": loss_d, "loss_g": loss_g, "real_sign": real_sign, "fake_sign": fake_sign, "p": p}

    def _discriminator_turn(
        self, state: TrainingState, inputs: Inputs, parts: list[Part]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Learn to tell real slices from synthetic ones; gives the loss, `mean_signs`, and the synthetic slices."""
        generator, discriminator, optimizer = state.generator, state.discriminator, state.discriminator_optimizer
        assert discriminator is not None
        assert optimizer is not None
        config, fabric = inputs.config, inputs.fabric
        weights = at(self.loss.r1_gamma, state.kimg), at(self.loss.r2_gamma, state.kimg), self.loss.slope
        penalised = state.step % self.loss.penalty_every == 0 and max(weights) > 0
        loss_sum, signs, fakes = torch.zeros((), device=fabric.device), torch.zeros(2, device=fabric.device), []
        discriminator.requires_grad_(True)
        optimizer.zero_grad()
        for part in parts:
            # Graphs of several passes would not fit into memory: the generator's turn then generates again.
            with autocast(fabric, False), torch.set_grad_enabled(len(parts) == 1):
                fakes.append(generator(part.latents, part.labels, inputs.draws.local).float())
            with autocast(fabric, penalised):
                real = part.real.detach().requires_grad_(penalised)
                fake = augment(fakes[-1].detach(), part.changes[0], config.augment, masks=generator.config.masks)
                fake.requires_grad_(penalised)
                scores = discriminator(torch.cat([real, fake]), part.labels.repeat(2)).float()
                real_scores, fake_scores = scores.chunk(2)
                loss = DISCRIMINATOR_LOSSES[self.loss.kind](real_scores, fake_scores)
                total = loss + self.loss.drift * real_scores.square().mean()
                if penalised:
                    images, both = (real, fake), (real_scores, fake_scores)
                    penalty = self._penalty(discriminator, part, images=images, scores=both, kimg=state.kimg)
                    total = total + self.loss.penalty_every * penalty
            (total * part.weight).backward()
            loss_sum += loss.detach() * part.weight
            signs += mean_signs(real_scores, fake_scores, self.loss.kind) * part.weight
        average_gradients(discriminator, fabric)
        optimizer.step()
        return loss_sum, signs, fakes

    def _generator_turn(
        self, state: TrainingState, inputs: Inputs, parts: list[Part], *, fakes: list[Tensor]
    ) -> Tensor:
        """Learn to pass for real with the discriminator that has just learned; gives the loss."""
        generator, discriminator, config = state.generator, state.discriminator, inputs.config
        assert discriminator is not None
        loss_sum = torch.zeros((), device=inputs.fabric.device)
        discriminator.requires_grad_(False)
        state.generator_optimizer.zero_grad()
        for part, fake in zip(parts, fakes, strict=True):
            with autocast(inputs.fabric, False):
                if len(parts) > 1:
                    fake = generator(part.latents, part.labels, inputs.draws.local)
                fake = augment(fake, part.changes[1], config.augment, masks=generator.config.masks)
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
            add_path_length(state, passes, self.loss, rng=inputs.draws.local, fabric=inputs.fabric)
        average_gradients(generator, inputs.fabric)
        state.generator_optimizer.step()
        return loss_sum

    def _penalty(self, judge: DiscriminatorNetwork, part: Part, *, images: Pair, scores: Pair, kimg: float) -> Tensor:
        """The terms on the gradient of the discriminator `judge`; each `Pair` is of real and of synthetic slices."""
        total = scores[0].new_zeros(())
        for gamma, side, side_scores in zip((self.loss.r1_gamma, self.loss.r2_gamma), images, scores, strict=True):
            if weight := at(gamma, kimg):
                total = total + weight * zero_centred_penalty(side_scores, side)
        if self.loss.slope:
            real, fake = (side.detach() for side in images)
            total = total + self.loss.slope * slope_penalty(lambda x: judge(x, part.labels), real, fake, mix=part.mix)
        return total


def _parts(state: TrainingState, inputs: Inputs) -> list[Part]:
    """The batch in parts of at most `micro_batch` slices; its random numbers do not depend on how it is cut."""
    config, draws, count = inputs.config, inputs.draws, len(inputs.real)
    latents = draws.normal(count, state.generator.config.nz)
    changes = [draw_changes(count, state.scalars["p"], config.augment, draws=draws) for _ in range(3)]
    numbers = (inputs.real, inputs.labels, latents, *changes, draws.uniform(count))
    cut = zip(*(tensor.split(config.micro_batch or count) for tensor in numbers), strict=True)
    return [
        Part(len(x) / count, augment(x, c, config.augment, masks=state.generator.config.masks), y, z, (d, g), mix)
        for x, y, z, c, d, g, mix in cut
    ]
