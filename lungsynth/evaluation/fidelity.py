"""How like real slices the synthetic ones are, and how varied, beside what real slices of other patients score."""

import socket
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch_fidelity
from pydantic import Field
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kernel_poly, kid_features_to_metric

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.diversity import (
    COVERAGE_NEIGHBOURS,
    PRC_NEIGHBOURS,
    manifold,
    modes_of,
    ms_ssim,
    share_hit,
)
from lungsynth.evaluation.extractor import Extractor, extract
from lungsynth.evaluation.sampler import Sampler, draw
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.sides import Images, metric_of_draws
from lungsynth.imaging.store import SliceDataset

SMALLEST_KID = 10  # images; below, even an unbiased estimate says nothing
DOWNLOAD_TIMEOUT_S = 10


class FidelityConfig(Config):
    """Sizes and extractors of the fidelity measures."""

    max_images: int = Field(
        5000, ge=20, description="images at most on either side, drawn at random where there are more"
    )
    resamples: int = Field(100, ge=20, description="bootstrap resamples behind each interval")
    kid_subsets: int = Field(100, ge=1, description="random subsets that KID averages over; 100 as in torch-fidelity")
    kid_subset_size: int = Field(
        1000, ge=2, description="images in a subset, or all where there are fewer; 1000 as in torch-fidelity"
    )
    inception: Literal["auto", "off"] = "auto"
    """`auto` adds Inception features where the weights are given, cached or can be downloaded."""
    inception_weights: Path | None = None
    """Weight file of torch-fidelity's `inception-v3-compat`; none: torch hub's cache, then a download."""
    ssim_pairs: int = Field(500, ge=20, description="pairs of slices of a class whose MS-SSIM is averaged")
    seed: int = Field(0, ge=0, description="of samples, subsets and resamples")


def measure_fidelity(
    dataset: SliceDataset, sampler: Sampler, extractor: Extractor, config: FidelityConfig
) -> Scorecard:
    """FID, KID, precision, recall, density, coverage and modes of synthetic against `train` slices, and MS-SSIM.

    By extractor, overall and per class; MS-SSIM within each class. As many synthetic slices are drawn as there are
    held-out ones (`val` and `test`), with their class mix; the same measure of held-out against `train` slices is the
    floor, `…/floor`: what real slices of other patients score. MS-SSIM's floor is that of `train`.
    """
    rng = np.random.default_rng(config.seed)
    train = _at_most(config.max_images, dataset.rows("train"), rng)
    held_out = _at_most(config.max_images, np.sort(np.concatenate([dataset.rows("val"), dataset.rows("test")])), rng)
    patients = np.unique(dataset.table["patient"].to_numpy(str), return_inverse=True)[1]
    labels = dataset.labels
    synthetic = draw(sampler, labels[held_out], config.seed, dataset.meta.size)

    extractors: dict[str, Callable[[np.ndarray], np.ndarray]] = {"lung": extractor.features}
    card = Scorecard(metrics=())
    if config.inception == "auto":
        try:
            inception = load_inception(config.inception_weights)
            extractors["inception"] = lambda images: extract(inception, images)
        except OSError as problem:  # URLError and time-outs are OSErrors
            note = (
                f"Inception metrics were left out: no weights could be had ({problem}); set fidelity.inception_weights"
            )
            card = Scorecard(metrics=(), notes=(note,))
    for name, features in extractors.items():
        real = Images(features(dataset.images[train]), labels[train], patients[train])
        fake = Images(features(synthetic), labels[held_out], np.arange(len(synthetic)))
        floor = Images(features(dataset.images[held_out]), labels[held_out], patients[held_out])
        others = {"": ("synthetic", fake), "/floor": ("held-out", floor)}
        card += _compare_scopes(name, real, others, dataset.meta.classes, config)
    alike = []
    for code, name in enumerate(dataset.meta.classes):
        mine, theirs = labels[held_out] == code, labels[train] == code
        own = np.arange(mine.sum())
        alike += [
            _likeness(f"ms_ssim/{name}", synthetic[mine], own, "synthetic", config),
            _likeness(f"ms_ssim/{name}/floor", dataset.images[train][theirs], patients[train][theirs], "real", config),
        ]
    return card + Scorecard(metrics=tuple(metric for metric in alike if metric))


def load_inception(weights: Path | None) -> FeatureExtractorInceptionV3:
    """torch-fidelity's Inception v3 with its FID weights: from a file, torch hub's cache, or a download.

    Raises:
        OSError: no weights could be had.
        LungsynthError: the file holds something else than tensors.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if weights is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)  # torch.hub takes no time-out of its own
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), path.stem.rpartition("-")[2], progress=False)
        except urllib.error.URLError as problem:
            raise OSError(str(problem.reason)) from problem
        finally:
            socket.setdefaulttimeout(patience)
    try:
        torch.load(path, weights_only=True, mmap=True)  # torch-fidelity itself would unpickle anything
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    except OSError:
        raise
    except Exception as problem:
        raise LungsynthError(
            f"{path} does not hold torch-fidelity's Inception weights; get {URL_INCEPTION_V3}"
        ) from problem
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def fid(real: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of features N×D (Heusel 2017), by torch-fidelity."""
    statistics = [fid_features_to_statistics(torch.from_numpy(side)) for side in (real, other)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kid(real: np.ndarray, other: np.ndarray, config: FidelityConfig) -> float:
    """Kernel distance of features N×D (Bińkowski 2018), unbiased at any size, by torch-fidelity."""
    sides = [torch.from_numpy(side) for side in (other, real)]
    size = min(config.kid_subset_size, len(real), len(other))
    found = kid_features_to_metric(
        *sides, kid_subsets=config.kid_subsets, kid_subset_size=size, rng_seed=config.seed, verbose=False
    )
    return float(found[KEY_METRIC_KID_MEAN])


def _compare_scopes(
    extractor: str,
    real: Images,
    others: dict[str, tuple[str, Images]],
    classes: tuple[str, ...],
    config: FidelityConfig,
) -> Scorecard:
    metrics: list[Metric] = []
    notes: list[str] = []
    for scope, code in [("", None), *((f"/{name}", code) for code, name in enumerate(classes))]:
        for suffix, (side, images) in others.items():
            ours, theirs = real.of_class(code), images.of_class(code)
            name = f"{extractor}{scope}{suffix}"
            fewest, dimension = min(len(ours.features), len(theirs.features)), real.features.shape[1]
            if fewest < SMALLEST_KID:
                notes.append(f"{name}: {fewest} images are too few for any fidelity measure")
                continue
            with_fid = fewest >= 2 * dimension
            if not with_fid:
                notes.append(f"fid_{name} was left out: {fewest} images are too few for {dimension} features; see KID")
            metrics += _metrics(name, ours, theirs, side, extractor, with_fid, config)
    return Scorecard(metrics=tuple(metrics), notes=tuple(notes))


def _metrics(
    name: str, real: Images, other: Images, side: str, extractor: str, with_fid: bool, config: FidelityConfig
) -> Iterator[Metric]:
    """Every measure of one pair of sides."""
    n = {side: len(other.features), "real": len(real.features), "patients": real.count_clusters()}
    how = f"torch-fidelity {torch_fidelity.__version__}, {extractor} extractor"
    if with_fid:
        value = fid(real.features, other.features)
        yield metric_of_draws(f"fid_{name}", value, _fid_draws(real, other, config), n, how, least=0)
    value = kid(real.features, other.features, config)
    yield metric_of_draws(f"kid_{name}", value, kid_draws(real, other, config), n, how)

    found = manifold(real.features, other.features)
    for measure, values, drawn, source in (
        ("precision", found.precision, other, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
        ("recall", found.recall, real, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
        ("density", found.density, other, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
        ("coverage", found.coverage, real, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
    ):
        draws = drawn.mean_draws(values, config.resamples, config.seed)
        how = f"{source}, {extractor} extractor, neighbours held fixed"
        most = None if measure == "density" else 1
        yield metric_of_draws(f"{measure}_{name}", float(values.mean()), draws, n, how, least=0, most=most)

    modes, count = modes_of(real.features, other.features, config.seed)
    rng = np.random.default_rng(config.seed)
    draws = np.array([share_hit(modes[other.weights(rng) > 0], count) for _ in range(config.resamples)])
    how = f"share of {count} k-means cells of real slices that are hit, {extractor} extractor"
    yield metric_of_draws(f"modes_{name}", share_hit(modes, count), draws, n, how, least=0, most=1)


def _likeness(name: str, images: np.ndarray, clusters: np.ndarray, what: str, config: FidelityConfig) -> Metric | None:
    """Mean MS-SSIM of two slices of a class, of different clusters; None where there is but one."""
    rng = np.random.default_rng(config.seed)
    pairs = rng.integers(len(images), size=(2, 4 * config.ssim_pairs))
    first, second = pairs[:, clusters[pairs[0]] != clusters[pairs[1]]][:, : config.ssim_pairs]
    if not len(first):
        return None
    values = ms_ssim(images[first], images[second])
    side = Images(images, clusters, clusters)
    draws = np.empty(config.resamples)
    for b in range(config.resamples):
        times = side.weights(rng)
        weights = times[first] * times[second]
        draws[b] = weights @ values / max(weights.sum(), 1)
    n = {what: len(images), "pairs": len(values)}
    return metric_of_draws(name, float(values.mean()), draws, n, "Wang 2003, pairs at random", least=0, most=1)


def _fid_draws(real: Images, other: Images, config: FidelityConfig) -> np.ndarray:
    rng = np.random.default_rng(config.seed)
    draws = np.empty(config.resamples)
    for b in range(config.resamples):
        picks = [np.repeat(np.arange(len(side.clusters)), side.weights(rng)) for side in (real, other)]
        draws[b] = fid(real.features[picks[0]], other.features[picks[1]])
    return draws


def kid_draws(real: Images, other: Images, config: FidelityConfig) -> np.ndarray:
    """KID of each of `config.resamples` bootstrap resamples of the clusters of both sides; take their spread alone."""
    rng = np.random.default_rng(config.seed)
    kernels = [kernel_poly(a.features, b.features) for a, b in ((real, real), (other, other), (real, other))]
    for kernel in kernels[:2]:
        np.fill_diagonal(kernel, 0)  # a slice drawn twice must not meet itself
    draws = np.empty(config.resamples)
    for b in range(config.resamples):
        w, v = (side.weights(rng).astype(float) for side in (real, other))
        within = sum(u @ k @ u / (u.sum() ** 2 - u @ u) for u, k in zip((w, v), kernels, strict=False))
        draws[b] = within - 2 * (w @ kernels[2] @ v) / (w.sum() * v.sum())
    return draws


def _at_most(count: int, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
