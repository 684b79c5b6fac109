"""Of each family, a network narrow enough for a CPU, and what replaces its recipe in so short a run."""

SHORT = {"batch": 16, "ema_kimg": 3, "ema_warm_up": 0.2}

NARROW: dict[str, tuple[dict, dict]] = {
    "dcgan": (
        {"nz": 64, "ngf": 32, "ndf": 24},
        SHORT | {"generator_lr": 1e-3, "discriminator_lr": 1e-3, "beta2": 0.99},
    ),
}
"""The network, and settings of `training`."""
