"""Published feature extractors beside the lung CNN: Inception v3, DINOv2 and RadImageNet's ResNet-50."""

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torchvision.models import resnet50

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.features import FeatureExtractor
from lungsynth.intensity import to_network
from lungsynth.progress import hub_progress

DOWNLOAD_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 3
RADIMAGENET_SIZE = 224  # pixels, as it was trained

Pretrained = Literal["inception", "dinov2", "radimagenet"]


def load_pretrained(name: Pretrained, weights: Path | None) -> FeatureExtractor:
    """The extractor of this name, on the GPU where there is one.

    Args:
        name: `inception`: torch-fidelity's, 2048 features, as in published FIDs. `dinov2`: its ViT-S/14, 384 features;
            torch hub fetches code of facebookresearch/dinov2 and runs it. `radimagenet`: ResNet-50 trained on 1.35
            million CT, MR and ultrasound images (Mei 2022, doi:10.1148/ryai.210315), 2048 features.
        weights: a file; none: torch hub's cache, then a download, which there is none of for `radimagenet`.

    Raises:
        OSError: no weights could be had.
        LungsynthError: the file holds something else.
    """
    module = LOADERS[name](weights)
    return FeatureExtractor(name, module.to("cuda" if torch.cuda.is_available() else "cpu"))


def load_inception(weights: Path | None) -> FeatureExtractorInceptionV3:
    """torch-fidelity's Inception v3 with its FID weights; arguments and errors as `load_pretrained`."""
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if weights is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rpartition("-")[2]
        with _patience():
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), digest, progress=False)
    try:
        torch.load(path, weights_only=True, mmap=True)  # torch-fidelity itself would unpickle anything
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    except OSError:
        raise
    except Exception as problem:
        raise LungsynthError(
            f"{path} does not hold torch-fidelity's Inception weights; get {URL_INCEPTION_V3}"
        ) from problem


def load_dinov2(weights: Path | None) -> FeatureExtractorDinoV2:
    """torch-fidelity's DINOv2 (Oquab 2023, arXiv 2304.07193), from torch hub's cache or a download."""
    if weights is not None:
        raise LungsynthError(
            f"fidelity.weights.dinov2 is {weights}, but torch-fidelity reads DINOv2 from torch hub alone: leave it "
            "out, and put its code and weights into $TORCH_HOME/hub where there is no network"
        )
    with _patience():
        return FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])


class RadImageNet(nn.Module):
    """ResNet-50 up to its global mean, with the keys of the published `ResNet50.pt`."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*list(resnet50().children())[:-1])

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Features N×2048 of uint8 N×3×H×W; grey values go to -1 to 1, as in its training."""
        grey = to_network(images)
        scaled = interpolate(grey, (RADIMAGENET_SIZE,) * 2, mode="bilinear", antialias=True)
        return (self.backbone(scaled).flatten(1),)


def load_radimagenet(weights: Path | None) -> RadImageNet:
    """RadImageNet's ResNet-50; arguments and errors as `load_pretrained`."""
    source = "get ResNet50.pt from https://github.com/BMEII-AI/RadImageNet"
    if weights is None:
        raise OSError(f"there is no download of them; {source} and name it by fidelity.weights.radimagenet")
    network = RadImageNet()
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except OSError:
        raise
    except Exception as problem:
        raise LungsynthError(f"{weights} does not hold RadImageNet's ResNet-50; {source}") from problem
    return network.requires_grad_(False).eval()


def within_reach(name: Pretrained, weights: Path | None) -> bool:
    """Whether the extractor can be had now: its file is named or in torch hub's cache, or its server answers."""
    if weights is not None:
        return True
    if name not in DOWNLOADS:
        return False
    cached, url = DOWNLOADS[name]
    if (Path(torch.hub.get_dir()) / cached).exists():
        return True
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_TIMEOUT_S).close()
    except (OSError, http.client.HTTPException):  # URLError and time-outs are OSErrors
        return False
    return True


DOWNLOADS: dict[Pretrained, tuple[str, str]] = {
    "inception": (f"checkpoints/{URL_INCEPTION_V3.rpartition('/')[2]}", URL_INCEPTION_V3),
    "dinov2": ("facebookresearch_dinov2_main", "https://github.com/facebookresearch/dinov2"),
}
"""Where torch hub keeps an extractor, and where it comes from."""
LOADERS: dict[Pretrained, Callable[[Path | None], nn.Module]] = {
    "inception": load_inception,
    "dinov2": load_dinov2,
    "radimagenet": load_radimagenet,
}


@contextmanager
def _patience() -> Iterator[None]:
    """Around a download of torch hub, which takes no time-out of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        with hub_progress():
            yield
    except urllib.error.URLError as problem:
        raise OSError(str(problem.reason)) from problem
    except RuntimeError as problem:  # torch hub, where it has neither the code nor a network
        raise OSError(str(problem)) from problem
    finally:
        socket.setdefaulttimeout(before)
