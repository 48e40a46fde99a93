"""Real images for tests that want a tensor of them."""

import torch

from harness.config import Data
from harness.data import real_images

FASHION = Data(name="fashion_mnist", resolution=(8, 8))


def fashion(split: str, count: int, size: tuple[int, int]) -> torch.Tensor:
    """The first of Fashion-MNIST's reference images at `size`: uint8 [count, 1, h, w]."""
    return torch.cat([*real_images(FASHION, split, count, size)])
