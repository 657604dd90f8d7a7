"""The Warp source of compositing: one text for CPU and CUDA, one thread per ray. `compositing.py` is its door to torch.

Letters: alpha opacity of a segment, T transmittance in front of it, w = T alpha its weight, g gradient of the loss in w.
"""

from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp


@cache
def compositing_kernels() -> SimpleNamespace:
    """Kernels of weights and sums along rays, with their gradients."""
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
        """d loss / d alpha_i = T_i (g_i - B_i), with B_i = g_{i+1} alpha_{i+1} + (1 - alpha_{i+1}) B_{i+1} from the far end.

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

    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        weights: wp.array(dtype=wp.float32), values: wp.array2d(dtype=wp.float32), offsets: wp.array(dtype=wp.int64),
        first: int, output: wp.array2d(dtype=wp.float32),
    ):  # fmt: skip
        """output[r] = sum of w_i v_i over the ray."""
        r = first + wp.tid()
        channels = values.shape[1]
        for c in range(channels):
            total = float(0.0)
            for i in range(int(offsets[r]), int(offsets[r + 1])):
                total += weights[i] * values[i, c]
            output[r, c] = total

    @wp.kernel(enable_backward=False, module="unique")
    def gather_backward(
        weights: wp.array(dtype=wp.float32), values: wp.array2d(dtype=wp.float32), offsets: wp.array(dtype=wp.int64),
        first: int, grad: wp.array2d(dtype=wp.float32), grad_weights: wp.array(dtype=wp.float32),
        grad_values: wp.array2d(dtype=wp.float32),
    ):  # fmt: skip
        """grad w_i = v_i . grad_r and grad v_i = w_i grad_r; a result of no rows is not wanted."""
        r = first + wp.tid()
        channels = values.shape[1]
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            total = float(0.0)
            for c in range(channels):
                total += values[i, c] * grad[r, c]
                if grad_values.shape[0] > 0:
                    grad_values[i, c] = weights[i] * grad[r, c]
            if grad_weights.shape[0] > 0:
                grad_weights[i] = total

    return SimpleNamespace(weigh=weigh, weigh_backward=weigh_backward, gather=gather, gather_backward=gather_backward)
