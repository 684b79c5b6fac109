"""How like real slices the synthetic ones are, and how varied, beside what real slices of other patients score."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch_fidelity
from pydantic import Field

from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.features import FeatureExtractor
from lungsynth.evaluation.fidelity.distances import DistancesConfig, fid, fid_draws, kernels, kid, kid_draws
from lungsynth.evaluation.fidelity.diversity import (
    COVERAGE_NEIGHBOURS,
    PRC_NEIGHBOURS,
    manifold,
    modes_of,
    ms_ssim,
    share_hit,
)
from lungsynth.evaluation.fidelity.normalisation import Normalisation, histogram, normalise
from lungsynth.evaluation.fidelity.pretrained import Pretrained, load_pretrained
from lungsynth.evaluation.fidelity.sides import Images, Trio, metric_of_draws
from lungsynth.evaluation.sampler import Sampler, draw
from lungsynth.evaluation.scorecard import Metric, Scorecard

SMALLEST_KID = 10  # images; below, even an unbiased estimate says nothing


class FidelityConfig(DistancesConfig):
    """Sizes and extractors of the fidelity measures."""

    max_images: int = Field(
        5000,
        ge=20,
        description="images at most on either side, drawn at random where there are more [chosen here: minutes of "
        "features on a CPU]",
    )
    extractors: tuple[Pretrained, ...] = ("inception",)
    """Extractors beside the lung CNN. One whose weights cannot be had is left out, which the scorecard notes."""
    weights: dict[Pretrained, Path] = Field(
        {}, description="weight files by extractor; without one, torch hub's cache or a download"
    )
    normalisations: tuple[Normalisation, ...] = ("min-max", "clip", "matched")
    """Normalisations under which FID and KID are measured once more, beside the dataset's own window."""
    ssim_pairs: int = Field(
        500,
        ge=20,
        description="pairs of slices of a class whose MS-SSIM is averaged [chosen here: the mean's error is 4 % of "
        "their spread]",
    )


def measure_fidelity(
    dataset: SliceDataset, sampler: Sampler, extractor: Extractor, config: FidelityConfig
) -> Scorecard:
    """FID, KID, precision, recall, density, coverage and modes of synthetic against `train` slices, and MS-SSIM.

    By extractor, overall and per class; MS-SSIM within each class. As many synthetic slices are drawn as there are
    held-out ones (`val` and `test`), with their class mix; the same measure of held-out against `train` slices is the
    floor, `…/floor`: what real slices of other patients score. `fid_ratio_…` is that floor over FID, 1 where synthetic
    slices are as good as real ones. MS-SSIM's floor is that of `train`. `fid_…@min-max` and the like are FID under
    another normalisation of both sides.

    Raises:
        LungsynthError: a weight file of the configuration is missing or holds something else.
    """
    rng = np.random.default_rng(config.seed)
    train, held_out = (
        _at_most(config.max_images, rows, rng) for rows in (dataset.rows("train"), dataset.rows("val", "test"))
    )
    patients = np.unique(dataset.table["patient"].to_numpy(str), return_inverse=True)[1]
    real, unseen = (Images(dataset.images[rows], dataset.labels[rows], patients[rows]) for rows in (train, held_out))
    synthetic = draw(sampler, unseen.labels, config.seed, dataset.meta.size)
    pixels = Trio(real, Images(synthetic, unseen.labels, np.arange(len(synthetic))), unseen)

    extractors, card = _load(extractor, config)
    for features in extractors:
        card += _compare(features, pixels, dataset.meta.classes, config)
    alike = []
    for code, name in enumerate(dataset.meta.classes):
        alike += [
            _likeness(f"ms_ssim/{name}", "synthetic", pixels.synthetic.of_class(code), config),
            _likeness(f"ms_ssim/{name}/floor", "real", pixels.real.of_class(code), config),
        ]
    return card + Scorecard(metrics=tuple(metric for metric in alike if metric))


def _load(lung: Extractor, config: FidelityConfig) -> tuple[list[FeatureExtractor], Scorecard]:
    """The extractors that can be had, and a note on each of the others."""
    found, notes = [lung.network], []
    for name in config.extractors:
        try:
            found.append(load_pretrained(name, config.weights.get(name)))
        except OSError as problem:  # URLError and time-outs are OSErrors
            if name in config.weights:
                raise LungsynthError(f"fidelity.weights.{name}: {problem}") from problem
            remedy = f"set fidelity.weights.{name}, or leave it out of fidelity.extractors"
            notes.append(f"{name} was left out: no weights could be had ({problem}); {remedy}")
    return found, Scorecard(metrics=(), notes=tuple(notes))


def _compare(extractor: FeatureExtractor, pixels: Trio, classes: tuple[str, ...], config: FidelityConfig) -> Scorecard:
    """Every measure by one extractor."""
    metrics: list[Metric] = []
    notes: list[str] = []
    own = _features(extractor, pixels, config)
    for scope, code in [("", None), *((f"/{name}", code) for code, name in enumerate(classes))]:
        trio, name = own.of_class(code), f"{extractor.name}{scope}"
        few = f"{trio.fewest} images are too few for"
        if trio.fewest < SMALLEST_KID:
            notes.append(f"{name}: {few} any fidelity measure")
            continue
        if not _enough_for_fid(trio):
            notes.append(f"fid_{name} was left out: {few} {trio.real.values.shape[1]} features; see KID")
        metrics += _distances(name, extractor.name, trio, config)
        metrics += _manifolds(name, extractor.name, trio, config)
        metrics += _modes(name, extractor.name, trio, config)
    reference = histogram(pixels.real.values)
    for how in config.normalisations if own.fewest >= SMALLEST_KID else ():
        scaled = Trio(*(side._replace(values=normalise(side.values, how, reference)) for side in pixels))
        metrics += _distances(f"{extractor.name}@{how}", extractor.name, _features(extractor, scaled, config), config)
    return Scorecard(metrics=tuple(metrics), notes=tuple(notes))


def _features(extractor: FeatureExtractor, pixels: Trio, config: FidelityConfig) -> Trio:
    """Features of all sides; those of real slices are kept for the next run, whose synthetic ones will be others."""
    kept = [
        side._replace(values=extractor.features(side.values, config.cache)) for side in (pixels.real, pixels.held_out)
    ]
    return Trio(kept[0], pixels.synthetic._replace(values=extractor.features(pixels.synthetic.values)), kept[1])


def _enough_for_fid(trio: Trio) -> bool:
    result: bool = trio.fewest >= 2 * trio.real.values.shape[1]
    return result


def _distances(name: str, extractor: str, trio: Trio, config: FidelityConfig) -> Iterator[Metric]:
    """FID and its ratio, where there are enough images, and KID."""
    how = f"torch-fidelity {torch_fidelity.__version__}, {extractor} extractor"
    if _enough_for_fid(trio):
        values, draws = [], []
        for suffix, other, n in trio.pairs:
            values.append(fid(trio.real.values, other.values))
            draws.append(fid_draws(trio.real, other, config))
            yield metric_of_draws(f"fid_{name}{suffix}", values[-1], draws[-1], n, how, least=0)
        sizes = {what: count for _, _, n in trio.pairs for what, count in n.items()}
        # Of both the same resamples of real slices. Of logarithms, since a ratio's spread is skewed.
        reach = np.exp(1.96 * np.std(np.log(draws[1] / draws[0]), ddof=1))
        ratio = values[1] / values[0]
        yield Metric(
            name=f"fid_ratio_{name}",
            value=ratio,
            low=ratio / reach,
            high=ratio * reach,
            n=sizes,
            computed_with=f"FID of held-out over FID of synthetic slices, ±1.96 SE of its logarithm, {how}",
        )
    for suffix, other, n in trio.pairs:
        found = kernels(trio.real.values, other.values)
        spread = kid_draws(found, trio.real, other, config)
        yield metric_of_draws(f"kid_{name}{suffix}", kid(found, config), spread, n, how)


def _manifolds(name: str, extractor: str, trio: Trio, config: FidelityConfig) -> Iterator[Metric]:
    """Precision, recall, density and coverage."""
    for suffix, other, n in trio.pairs:
        found = manifold(trio.real.values, other.values)
        for measure, values, drawn, source in (
            ("precision", found.precision, other, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
            ("recall", found.recall, trio.real, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
            ("density", found.density, other, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
            ("coverage", found.coverage, trio.real, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
        ):
            weights = drawn.weights(config.resamples, config.seed)
            draws = weights @ values / weights.sum(axis=1)
            how = f"{source}, {extractor} extractor, neighbours held fixed"
            most = None if measure == "density" else 1
            value = float(values.mean())
            yield metric_of_draws(f"{measure}_{name}{suffix}", value, draws, n, how, least=0, most=most)


def _modes(name: str, extractor: str, trio: Trio, config: FidelityConfig) -> Iterator[Metric]:
    """Share of the modes of real slices that are hit."""
    for suffix, other, n in trio.pairs:
        modes, count = modes_of(trio.real.values, other.values, config.seed)
        weights = other.weights(config.resamples, config.seed)
        draws = np.array([share_hit(modes[row > 0], count) for row in weights])
        how = f"share of {count} k-means cells of real slices that are hit, {extractor} extractor"
        yield metric_of_draws(f"modes_{name}{suffix}", share_hit(modes, count), draws, n, how, least=0, most=1)


def _likeness(name: str, what: str, pixels: Images, config: FidelityConfig) -> Metric | None:
    """Mean MS-SSIM of two slices of a class, of different clusters; None where there is but one, or no slice."""
    if not len(pixels.values):
        return None
    rng = np.random.default_rng(config.seed)
    pairs = rng.integers(len(pixels.values), size=(2, 4 * config.ssim_pairs))
    first, second = pairs[:, pixels.clusters[pairs[0]] != pixels.clusters[pairs[1]]][:, : config.ssim_pairs]
    if not len(first):
        return None
    values = ms_ssim(pixels.values[first], pixels.values[second])
    times = pixels.weights(config.resamples, config.seed)
    weights = times[:, first] * times[:, second]
    draws = weights @ values / np.maximum(weights.sum(axis=1), 1)
    n = {what: len(pixels.values), "pairs": len(values)}
    return metric_of_draws(name, float(values.mean()), draws, n, "Wang 2003, pairs at random", least=0, most=1)


def _at_most(count: int, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
