"""The Warp source of compositing: one text for CPU and CUDA, one thread per ray. `compositing.py` is its door to torch.

Letters: alpha opacity of a segment, T transmittance in front of it, w = T alpha its weight, g d loss / d w.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"
# ruff: noqa: UP018 - in a kernel float(0.0) makes a variable; a bare literal is a constant

from functools import cache
from types import SimpleNamespace
from typing import Any

from dreamcraft3d.kernels.dispatch import warp


@cache
def compositing_kernels() -> SimpleNamespace:
    """Kernels of the weights along rays, with their gradient."""
    wp = warp()

    @wp.kernel(enable_backward=False, module="unique")
    def weigh(
        alphas: wp.array(dtype=wp.float32), offsets: wp.array(dtype=wp.int64), first: int,
        weights: wp.array(dtype=wp.float32), transmittance: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        r = first + wp.tid()
        T = float(1.0)
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            a = alphas[i]
            transmittance[i] = T
            weights[i] = a * T
            T = T * (1.0 - a)

    @wp.kernel(enable_backward=False, module="unique")
    def weigh_backward(
        alphas: wp.array(dtype=wp.float32), offsets: wp.array(dtype=wp.int64), first: int,
        transmittance: wp.array(dtype=wp.float32), grad: wp.array(dtype=wp.float32), result: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """d loss / d alpha_i = T_i (g_i - B_i); B_i = g_k alpha_k + (1 - alpha_k) B_k, k = i + 1, from the far end.

        B_i is the loss per unit of light that passes segment i; nothing is divided by 1 - alpha.
        """
        r = first + wp.tid()
        B = float(0.0)
        end = int(offsets[r + 1])
        for n in range(end - int(offsets[r])):
            i = end - 1 - n
            a = alphas[i]
            g = grad[i]
            result[i] = transmittance[i] * (g - B)
            B = g * a + (1.0 - a) * B

    return SimpleNamespace(weigh=weigh, weigh_backward=weigh_backward)


@cache
def sum_kernels(channels: int) -> SimpleNamespace:
    """Kernels of sums of values with so many channels; each compiles on its first launch and is then cached on disk."""
    wp = warp()
    vector: Any = wp.types.vector(length=channels, dtype=wp.float32)

    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        weights: wp.array(dtype=wp.float32), values: wp.array(dtype=vector), offsets: wp.array(dtype=wp.int64),
        first: int, output: wp.array(dtype=vector),
    ):  # fmt: skip
        """output[r] = sum of w_i v_i over the ray."""
        r = first + wp.tid()
        total = vector()
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            total += values[i] * weights[i]
        output[r] = total

    @wp.kernel(enable_backward=False, module="unique")
    def grade_weights(
        values: wp.array(dtype=vector), offsets: wp.array(dtype=wp.int64), first: int, grad: wp.array(dtype=vector),
        result: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """d loss / d w_i = v_i . grad_r."""
        r = first + wp.tid()
        g = grad[r]
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            result[i] = wp.dot(values[i], g)

    @wp.kernel(enable_backward=False, module="unique")
    def grade_values(
        weights: wp.array(dtype=wp.float32), offsets: wp.array(dtype=wp.int64), first: int,
        grad: wp.array(dtype=vector), result: wp.array(dtype=vector),
    ):  # fmt: skip
        """d loss / d v_i = w_i grad_r."""
        r = first + wp.tid()
        g = grad[r]
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            result[i] = g * weights[i]

    return SimpleNamespace(gather=gather, grade_weights=grade_weights, grade_values=grade_values, vector=vector)
