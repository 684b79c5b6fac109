"""The range of grey values that networks take and give."""

from torch import Tensor


def to_network(images: Tensor) -> Tensor:
    """uint8 grey values, 0 to 255, as float32 from -1 to 1; any shape."""
    scaled: Tensor = images.float() / 127.5 - 1
    return scaled
