"""Cache keys for the library's own code: ZenML hashes a step's body, not what it calls."""

from lungsynth.hashing import sources_sha256


def training() -> str:
    """Key of the networks and the training loop."""
    return sources_sha256("generators", "training")


def evaluation() -> str:
    """Key of the metrics and the gate; samples come from the generators' code, segmenters are the lungs' U-Net."""
    lungs = ("lungs/unet.py", "lungs/unet_training.py")
    return sources_sha256("evaluation", "generators", "verdict", *lungs)


def everything() -> str:
    """Key of the whole library: the code version of a registered model."""
    return sources_sha256("")
