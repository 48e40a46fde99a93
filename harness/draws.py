"""Every random number: a function of (seed, purpose, index), never of rank or restart.

NumPy's Philox is counter-based: the key is hashed from seed and purpose, the index (a step, an
epoch or a sample) is a word of the counter, so any draw can be made alone and in any order. Draws
are made on the CPU in the same way for every device.
"""

import hashlib

import numpy as np
import torch
from numpy.random import Generator, Philox


def generator(seed: int, purpose: str, index: int = 0) -> Generator:
    """The stream of one (seed, purpose, index); streams do not overlap below 2^64 numbers."""
    hashed = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest()
    key = np.frombuffer(hashed, dtype=np.uint64)
    return Generator(Philox(key=key, counter=[0, index, 0, 0]))


def normal(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal float32 of `shape`."""
    drawn = generator(seed, purpose, index).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(drawn)


def uniform(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform float32 in [0, 1) of `shape`."""
    drawn = generator(seed, purpose, index).random(shape, dtype=np.float32)
    return torch.from_numpy(drawn)


def permutation(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """A random order of 0 .. count - 1 (int64)."""
    return generator(seed, purpose, index).permutation(count)
