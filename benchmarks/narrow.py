"""Of each family, a network narrow enough for a CPU, and what replaces its recipe in a short run, chosen by val."""

from typing import Any

SHORT = {"batch": 16, "ema_kimg": 3, "ema_warm_up": 0.2, "precision": "auto"}
SHIFTS = {"translate": 0.0625, "scale": 0, "rotate_degrees": 0, "brightness": 0, "cutout": 0, "p": 1}


def narrow(family: str, kimg: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network, and settings of `training`, for a run of `kimg`."""
    falling = {"end": 1e-4, "from_kimg": kimg / 5, "until_kimg": kimg}
    late = falling | {"from_kimg": kimg / 2}
    table: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "dcgan": (
            {"nz": 64, "ngf": 32, "ndf": 24},
            {"generator_lr": {"start": 1e-3} | falling, "discriminator_lr": {"start": 1e-3} | falling, "beta2": 0.99},
        ),
        "pggan": (
            {"nz": 64, "width": 128, "fmap_base": 512},
            {
                "generator_lr": {"start": 1e-3} | late,
                "discriminator_lr": {"start": 3e-3} | late,  # no faster than the generator, it is fooled for good
                "loss": {"penalty_every": 2},
                "growth": {"start": 8, "stable_kimg": kimg / 30, "fade_kimg": kimg / 30, "batches": {}, "rates": {}},
            },
        ),
        "r3gan": (
            {"channel_base": 1024, "channel_max": 256, "blocks": 1},
            {
                "loss": {"r1_gamma": 30, "r2_gamma": 30, "penalty_every": 4},
                "generator_lr": {"start": 1e-3} | falling,
                "discriminator_lr": {"start": 1e-3} | falling,
                "beta2": 0.99,
                "augment": SHIFTS | {"target": 0.6, "adjust_kimg": kimg / 5},
            },
        ),
        "stylegan2": (
            {"nz": 128, "nw": 128, "mapping_layers": 2, "channel_base": 512, "channel_max": 128},
            {
                "loss": {"r1_gamma": 1},
                "generator_lr": {"start": 1e-2} | falling,
                "discriminator_lr": {"start": 2.5e-3} | falling,
                "augment": SHIFTS,
            },
        ),
        "edm": (
            {
                "width": 32,
                "multipliers": [1, 2, 2],
                "blocks": 1,
                "attention": [8],
                "patch": 2,
                "dropout": 0,
                "steps": 12,
            },
            {"generator_lr": {"start": 1e-3} | falling, "micro_batch": None},
        ),
    }
    network, settings = table[family]
    return network, SHORT | settings
