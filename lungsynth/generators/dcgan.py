"""DCGAN (Radford et al., arXiv 1511.06434), in the form that `oohtmeel/ct-gan-gen` published for lung CT."""

import math
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth import CLASSES
from lungsynth.config import Config
from lungsynth.errors import LungsynthError

INIT_STD = 0.02  # DCGAN, section 4


class DcganConfig(Config):
    """Architecture. `size`, `nz` and `ngf` at 128 with no classes are those of the published lung CT generator."""

    family: Literal["dcgan"] = "dcgan"
    size: Literal[32, 64, 128] = Field(default=128, description="height and width of a slice, pixels")
    nz: int = Field(default=128, ge=1, description="length of the latent vector; ct-gan-gen")
    ngf: int = Field(default=128, ge=1, description="channels of the generator's last hidden block; ct-gan-gen")
    ndf: int = Field(default=64, ge=1, description="channels of the discriminator's first block; DCGAN")
    classes: tuple[str, ...] = Field(
        default=CLASSES, description="names in the order of their codes; none: unconditional"
    )


class Generator(nn.Module):
    """Maps latent vectors and class codes to slices.

    The class is a one-hot code beside the latent vector, so that it widens `main.0` and changes no other tensor.
    64 px leave out the 16·ngf block, 32 px the 8·ngf block as well; the first two blocks always have the leaky ReLU.
    """

    def __init__(self, config: DcganConfig) -> None:
        super().__init__()
        self.config = config
        blocks = int(math.log2(config.size)) - 2
        layers: list[nn.Module] = []
        channels = config.nz + len(config.classes)
        for block in range(blocks):
            width = config.ngf << (blocks - 1 - block)
            stride, padding = (2, 1) if block else (1, 0)
            layers += [
                nn.ConvTranspose2d(channels, width, 4, stride, padding, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2) if block < 2 else nn.ReLU(),
            ]
            channels = width
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(channels, 1, 4, 2, 1, bias=False), nn.Tanh())
        for layer in self.main:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=INIT_STD)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Slices B×1×H×W in [-1, 1] of `z` B×nz, standard normal, and `labels` int64 B, which only classes need."""
        if labels is not None and self.config.classes:
            z = torch.cat([z, F.one_hot(labels, len(self.config.classes)).to(z.dtype)], dim=1)
        return self.main(z[:, :, None, None])


class Discriminator(nn.Module):
    """Scores slices: the higher, the more real.

    DCGAN's convolutions, without batch norm, which the gradient penalty rules out; the class by projection (Miyato and
    Koyama, arXiv 1802.05637); the spread within groups of four as one more channel (Karras et al., arXiv 1710.10196).
    """

    group = 4

    def __init__(self, config: DcganConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels = 1
        for block in range(int(math.log2(config.size)) - 2):
            width = config.ndf * min(2**block, 8)
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = width
        self.main = nn.Sequential(*layers)
        self.mix = nn.Conv2d(channels + 1, channels, 3, 1, 1)
        self.hidden = nn.Linear(channels * 16, channels)
        self.score = nn.Linear(channels, 1)
        self.project = nn.Linear(len(config.classes), channels, bias=False) if config.classes else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×1×H×W in [-1, 1], said to be of the classes `labels` int64 B; `group` divides B."""
        x = self.main(images)
        groups = x.view(self.group, -1, *x.shape[1:])
        spread = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(self.group)
        x = torch.cat([x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
        x = F.leaky_relu(self.mix(x), 0.2)
        x = F.leaky_relu(self.hidden(x.flatten(1)), 0.2)
        score = self.score(x)[:, 0]
        if self.project is None:
            return score
        return score + (self.project(F.one_hot(labels, len(self.config.classes)).to(x.dtype)) * x).sum(dim=1)


def load_ct_gan_gen(path: Path) -> Generator:
    """The published 128 px generator, in evaluation mode, from its file `lung_ct_generator_gan.pth`.

    Raises:
        LungsynthError: the file cannot be read, or its tensors are not those of the architecture.
    """
    generator = Generator(DcganConfig(classes=()))
    load_weights(generator, path)
    return generator.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into `module`, in place, from a `.safetensors` file or a `torch.save` file of tensors alone.

    Raises:
        LungsynthError: the file cannot be read, or a tensor is missing, superfluous or of another shape.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise LungsynthError(
            f"{path}: not a readable weight file; fetch or train it again ({_first_line(error)})"
        ) from error
    differences = _differences(module.state_dict(), state)
    if differences:
        raise LungsynthError(
            f"{path}: weights do not fit {type(module).__name__}; check the configuration. {'; '.join(differences)}"
        )
    module.load_state_dict(state)


def _differences(expected: Mapping[str, Tensor], found: object) -> list[str]:
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        return ["the file holds no state dict"]
    missing = [f"{key} is missing" for key in expected if key not in found]
    superfluous = [f"{key} is superfluous" for key in found if key not in expected]
    shapes = [
        f"{key} is {_shape(found[key])}, not {_shape(tensor)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    return missing + superfluous + shapes


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
