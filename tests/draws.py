"""Normally distributed test inputs that are the same on every processor.

`torch.randn` fills 16 and more numbers of float32 with vectorised logarithms and sines, whose last digits depend on the
processor's instructions; numpy's Generator draws from tables. `torch.rand`, `randint` and `randperm` need no stand-in:
they are made of the bits of the Mersenne Twister alone.
"""

import numpy as np
import torch
from torch import Tensor


def normal(draws: np.random.Generator, *shape: int) -> Tensor:
    """Standard normal float32 numbers of the given shape."""
    return torch.from_numpy(draws.standard_normal(shape, dtype=np.float32))
