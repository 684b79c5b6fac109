"""How like real slices the synthetic ones are, and how varied, beside what real slices of other patients score."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.features import FeatureExtractor
from lungsynth.evaluation.fidelity import formulas
from lungsynth.evaluation.fidelity.distances import DistancesConfig
from lungsynth.evaluation.fidelity.diversity import ms_ssim
from lungsynth.evaluation.fidelity.formulas import Compared
from lungsynth.evaluation.fidelity.normalisation import Normalisation, histogram, normalise
from lungsynth.evaluation.fidelity.pretrained import Pretrained, load_pretrained
from lungsynth.evaluation.fidelity.sides import Images, Trio, metric_of_draws
from lungsynth.evaluation.quantities import FID, MS_SSIM
from lungsynth.evaluation.sampler import Sampler, draw
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard

SMALLEST_KID = 10  # images; of fewer, even an unbiased estimate says nothing


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
    dataset: SliceDataset, sampler: Sampler, extractor: Extractor, *, config: FidelityConfig
) -> Scorecard:
    """All of `formulas.FORMULAS` for synthetic against `train` slices, and MS-SSIM.

    Each is measured with every extractor, for all slices and for each class; MS-SSIM within each class, without an
    extractor. As many synthetic slices are drawn as there are held-out ones (`val` and `test`), with the same class
    mix. The floor is the same measure of held-out against `train` slices; MS-SSIM's floor is that of `train`. Distances
    are measured once more under each other normalisation of both sides.

    Raises:
        LungsynthError: a weight file of the configuration is missing or holds something else.
    """
    rng = np.random.default_rng(config.seed)
    train, held_out = (
        _at_most(config.max_images, rows, rng) for rows in (dataset.rows("train"), dataset.rows("val", "test"))
    )
    patients = np.unique(dataset.table["patient"].to_numpy(str), return_inverse=True)[1]
    real, unseen = (Images(dataset.images[rows], dataset.labels[rows], patients[rows]) for rows in (train, held_out))
    synthetic = draw(sampler, unseen.labels, config.seed, size=dataset.meta.size)
    pixels = Trio(real, Images(synthetic, unseen.labels, np.arange(len(synthetic))), unseen)

    extractors, card = _load(extractor, config)
    for features in extractors:
        card += _compare(features, pixels, dataset.meta.classes, config=config)
    for code, name in enumerate(dataset.meta.classes):
        card += Scorecard(metrics=tuple(_likeness(pixels.of_class(code), name, config)))
    return card


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


def _compare(
    extractor: FeatureExtractor, pixels: Trio, classes: tuple[str, ...], *, config: FidelityConfig
) -> Scorecard:
    """Every measure by one extractor."""
    metrics: list[Metric] = []
    notes: list[str] = []
    whole = _features(extractor, pixels, config)
    parts = [Compared(whole, extractor.name)]
    parts += [Compared(whole.of_class(code), extractor.name, class_name=name) for code, name in enumerate(classes)]
    for part in parts:
        few = f"{part.sides.fewest} images are too few for"
        if part.sides.fewest < SMALLEST_KID:
            what = "/".join(filter(None, (part.extractor, part.class_name)))
            notes.append(f"{what}: {few} any fidelity measure")
            continue
        if not part.enough_for_fid:
            count = part.sides.real.values.shape[1]
            notes.append(f"{part.measurand(FID).name} was left out: {few} {count} features; see KID")
        for formula in formulas.FORMULAS:
            metrics += formula.compute(part, config)
    reference = histogram(pixels.real.values)
    for how in config.normalisations if whole.fewest >= SMALLEST_KID else ():
        scaled = Trio(*(side._replace(values=normalise(side.values, how, reference)) for side in pixels))
        compared = Compared(_features(extractor, scaled, config), extractor.name, how)
        for formula in formulas.FORMULAS:
            metrics += formula.compute(compared, config) if formula.is_distance else ()
    return Scorecard(metrics=tuple(metrics), notes=tuple(notes))


def _features(extractor: FeatureExtractor, pixels: Trio, config: FidelityConfig) -> Trio:
    """Features of all sides; those of real slices are kept for the next run, whose synthetic ones will be others."""
    kept = [
        side._replace(values=extractor.features(side.values, config.cache)) for side in (pixels.real, pixels.held_out)
    ]
    return Trio(kept[0], pixels.synthetic._replace(values=extractor.features(pixels.synthetic.values)), kept[1])


def _likeness(pixels: Trio, class_name: str, config: FidelityConfig) -> Iterator[Metric]:
    """Mean MS-SSIM of pairs of slices of a class, of different clusters; nothing where there is no such pair."""
    for floor, what, side in ((False, "synthetic", pixels.synthetic), (True, "real", pixels.real)):
        if not len(side.values):
            continue
        rng = np.random.default_rng(config.seed)
        pairs = rng.integers(len(side.values), size=(2, 4 * config.ssim_pairs))
        first, second = pairs[:, side.clusters[pairs[0]] != side.clusters[pairs[1]]][:, : config.ssim_pairs]
        if not len(first):
            continue
        values = ms_ssim(side.values[first], side.values[second])
        times = side.weights(config.resamples, config.seed)
        weights = times[:, first] * times[:, second]
        yield metric_of_draws(
            Measurand(quantity=MS_SSIM, class_name=class_name, floor=floor),
            float(values.mean()),
            "Wang 2003, pairs at random",
            draws=weights @ values / np.maximum(weights.sum(axis=1), 1),
            n={what: len(side.values), "pairs": len(values)},
            least=0,
            most=1,
        )


def _at_most(count: int, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
