"""The served model draws the same slices whatever torch keeps for the whole process at the consumer, for all seeds."""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_families import TINY, tiny_package

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.export import SERVING_MODEL, export_network

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # MLflow's own
CODES = np.arange(64) % 2
LABELS = pd.DataFrame({"label": [CLASSES[code] for code in CODES]})


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STATES = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),  # stands for any that the tensors are not on
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "gradients": lambda: torch.set_grad_enabled(False),
    "deterministic": deterministic,
    "threads": lambda: threads(2),
}


def serve(package: GeneratorPackage, path: str) -> Any:
    """The model as MLflow loads it, from this file, of the exported network at `path`."""
    spec = importlib.util.spec_from_file_location("serving_model", SERVING_MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.LungSliceGenerator()
    settings = {"classes": list(CLASSES), "latent_size": package.card.generator.nz}
    model.load_context(SimpleNamespace(model_config=settings, artifacts={"generator": path}))
    return model


@pytest.fixture(scope="module", params=TINY)
def exported(request, tmp_path_factory) -> tuple[GeneratorPackage, str]:
    """A package and its network, exported where other defaults hold."""
    folder = tmp_path_factory.mktemp("exported")
    package = tiny_package(request.param, folder / "package")
    with default_dtype(torch.float64), default_device("meta"):
        export_network(package, folder / "generator.pt2")
    return package, str(folder / "generator.pt2")


def test_no_state_of_the_process_changes_a_slice_or_a_score(exported):
    package, path = exported
    slices = package.sample(CODES, 3)
    scores = package.realness(slices, CODES)
    with ExitStack() as all_at_once:
        for state in STATES.values():
            all_at_once.enter_context(state())
        model = serve(package, path)
        np.testing.assert_array_equal(model.predict(None, LABELS, {"seed": 3}), slices)
    for state in (nullcontext, *STATES.values()):
        with state():
            again = [model.predict(None, LABELS, {"seed": 3}), package.sample(CODES, 3)]
            if scores is not None:  # a diffusion model has none
                np.testing.assert_array_equal(package.realness(slices, CODES), scores)
        np.testing.assert_array_equal(again, [slices, slices])


def test_threads_may_draw_at_once(one):
    package, model = one
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda seed: model.predict(None, LABELS, {"seed": seed}), [3, 4] * 4))
    for number, images in enumerate(drawn):
        np.testing.assert_array_equal(images, package.sample(CODES, 3 + number % 2))


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> tuple[GeneratorPackage, Any]:
    folder = tmp_path_factory.mktemp("one")
    package = tiny_package("pggan", folder / "package")
    export_network(package, folder / "generator.pt2")
    return package, serve(package, str(folder / "generator.pt2"))


@pytest.mark.parametrize("seed", [2**32, 2**32 + 3, 2**63 - 1, 2**63, 2**64 - 1])
def test_seeds_of_more_than_32_bits_are_drawn_as_the_project_draws_them(seed, one):
    package, model = one
    drawn = model.predict(None, LABELS, {"seed": seed})
    np.testing.assert_array_equal(drawn, package.sample(CODES, seed))
    np.testing.assert_array_equal(drawn[:5], model.predict(None, LABELS[:5], {"seed": seed}))
    assert not np.array_equal(drawn, model.predict(None, LABELS, {"seed": seed % 2**32}))


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (None, "of the type NoneType"),
        ("3", "of the type str"),
        (3.0, "of the type float"),
        (True, "of the type bool"),
        (-1, "negative"),
        (2**64, "2⁶⁴ or more"),
    ],
)
def test_what_is_no_seed_is_refused_in_one_line(seed, says, one):
    with pytest.raises(ValueError, match=f"^seed is {says}; give a whole number from 0 to 2⁶⁴ - 1, 1844674"):
        one[1].predict(None, LABELS, {"seed": seed})
