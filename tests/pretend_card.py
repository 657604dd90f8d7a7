"""A CUDA card that is only pretended: finds tensors on the wrong device where there is no card.

    with pretend_card():
        x = torch.zeros(3, device="cuda")    # x.device is cuda:0, its numbers lie in main memory
        x + torch.ones(3)                    # RuntimeError: Expected all tensors to be on the same device ...

A `PretendTensor` wraps an ordinary CPU tensor and says that it lives on cuda:0. Every operation of torch's dispatcher
(also inside other libraries, and in a backward pass) is checked as a real card would check it, and then done on the
tensors inside, so results are those of the CPU. The project's Warp kernels run on the CPU too, and arrays of both
devices may not meet in a launch either.

What differs from a card: torch's global generator draws the CPU's numbers, and the card has no generators of its own;
autocast for "cuda" does nothing; `torch.save` stores CPU tensors; nothing takes memory of the card; only the thread
that entered the context can make or move its tensors. New memory holds NaN or the largest integer, so that reading it
shows.
"""

import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch._dynamo  # which looks at torch's functions when it is first imported: before they are replaced
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

CARD = torch.device("cuda:0")
CPU = torch.device("cpu")
BELOW = torch.device("meta:7")
"""What torch's C++ is told instead of cuda:0: a device without driver and streams, and a number that nobody else uses.
The project never sees it."""
MEMORY = 24 << 30

COPIES = ("aten::_to_copy", "aten::copy_", "aten::copy", "aten::_foreach_copy_")
"""They go from device to device."""
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index",
            "aten::_unsafe_index_put")  # fmt: skip
SCALAR_FRIENDS = ("aten::where", "aten::masked_fill", "aten::masked_fill_", "aten::index_fill", "aten::index_fill_",
                  "aten::fill", "aten::fill_", "aten::linspace", "aten::logspace")  # fmt: skip
"""Beside the elementwise operations: they read a CPU tensor of no dimensions as a number."""
STRICT = ("aten::clamp", "aten::clamp_", "aten::isin")
"""Elementwise, but they do not."""

NARROW = {"BFloat16": torch.bfloat16, "Half": torch.float16}


@dataclass
class Mistakes:
    """What a real card would have refused, where it was met: `found` maps 'file:line' of the caller to messages."""

    forgiven: bool = False
    owner: str = ""
    found: dict[str, str] = field(default_factory=dict)
    known: Callable[[str], None] | None = None

    def blame(self, message: str, kind: type[Exception] = RuntimeError) -> None:
        """Raises, or notes the place and goes on.

        Raises:
            RuntimeError: (or `kind`) unless mistakes are forgiven.
        """
        if not self.forgiven:
            raise kind(message)
        frames = [frame for frame in traceback.extract_stack() if self.owner in Path(frame.filename).as_posix()]
        frames = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:])]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere known (a backward pass?)"
        if place not in self.found:
            self.found[place] = f"{message}  [{' < '.join(places)}]"
            if self.known is not None:
                self.known(f"{place}: {self.found[place]}")


_mistakes = Mistakes()


class PretendTensor(Tensor):
    """A tensor that says it is on the card; `held` is the CPU tensor with its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> "PretendTensor":
        with (
            torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        ):  # of both kinds of views
            made: PretendTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                real.size(),
                strides=real.stride(),
                storage_offset=real.storage_offset(),
                dtype=real.dtype,
                layout=real.layout,
                device=BELOW,
            )
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _perform(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:
        with _disable_current_modes(), torch.no_grad():
            text = repr(self.held)
        grad = ", requires_grad=True)" if self.requires_grad else ")"
        return f"{text[:-1]}, device='{CARD}'{grad}"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    device = property(lambda self: CARD)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def type(self, dtype: Any = None, non_blocking: bool = False, **options: Any) -> Any:
        return Tensor.type(self, dtype, non_blocking, **options) if dtype else f"torch.cuda{self.held.type()[5:]}"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            message = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first."
            _mistakes.blame(message, TypeError)
        return self.held.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        copy.grad = None if self.grad is None else self.grad.detach().clone()
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)


class _Card(TorchDispatchMode):
    """Sees the operations that have no pretend tensor among their arguments: those that make or move one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _perform(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """Calls from Python name the card; what is below is told `BELOW`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.cuda:
            return args[0].to(BELOW)
        if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
            return _made_of_data(func, args, kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return func(args[0], _index(args[1]), *args[2:])
        return func(*map(_below, args), **{key: _below(value) for key, value in kwargs.items()})


def _backward(*args: Any, **kwargs: Any) -> Any:
    """A backward pass, in which Python code may name the card too."""
    with _Names():
        return torch.autograd.graph._engine_run_backward(*args, **kwargs)


def _made_of_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`torch.tensor` and its like read their data on the CPU; what they make is moved."""
    device, grad = kwargs.pop("device", None), kwargs.pop("requires_grad", False)
    if func is Tensor.new_tensor:
        kwargs.setdefault("dtype", args[0].dtype)
        device = args[0].device if device is None else device
        func, args = torch.tensor, args[1:]
    made: Tensor = func(*args, **kwargs)
    if device is not None:
        made = made.to(_below(device))
    return made.requires_grad_() if grad else made


def _index(index: Any) -> Any:
    """Lists and arrays of numbers as tensors; torch would make them beside the indexed tensor, where there is none."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, np.ndarray) or (isinstance(index, list) and not any(map(_is_no_number, index))):
        made = torch.as_tensor(index)
        return made if made.numel() else made.long()
    return index


def _is_no_number(item: Any) -> bool:
    return isinstance(item, (Tensor, slice)) or item is None or item is Ellipsis


def _below(value: Any) -> Any:
    return BELOW if isinstance(value, (str, torch.device)) and str(value) in ("cuda", "cuda:0") else value


def real_of(tensor: Tensor) -> Tensor:
    """The CPU tensor inside a pretend one; any other tensor as it is."""
    return tensor.held if isinstance(tensor, PretendTensor) else tensor


def _perform(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation of the dispatcher: checked, done on the tensors inside, and its results on the right device."""
    name = func._schema.name
    if _is_composite(func):  # only in inference mode
        with _Card():
            return func.decompose(*args, **kwargs)
    wrapped: dict[int, PretendTensor] = {}
    plain: list[Tensor] = []
    real_args = _inside(args, wrapped, plain)
    real_kwargs = {key: _inside(value, wrapped, plain) for key, value in kwargs.items()}
    asked = real_kwargs.get("device")
    if asked is not None:  # cuda:0 from Python code that torch's C++ calls, or that was called as an operation
        asked = BELOW if asked == CARD else asked
        real_kwargs["device"] = CPU if asked == BELOW else asked
    if real_kwargs.get("pin_memory"):
        real_kwargs["pin_memory"] = False
    on_card = asked == BELOW if asked is not None else bool(wrapped)
    _check_generator(args, kwargs, on_card)
    if wrapped and plain and name not in COPIES:
        _check_mixture(func, name, args, kwargs, wrapped, plain)
    result = _compute(func, real_args, real_kwargs)
    if on_card and name.startswith(("aten::empty", "aten::new_empty")):
        result.fill_(_poison(result.dtype))
    for tensor in wrapped.values():
        if tensor.held.shape != tensor.shape or tensor.held.stride() != tensor.stride():
            _follow(func, args, kwargs, tensor)
    return _outside(result, wrapped, plain, on_card)


def _inside(value: Any, wrapped: dict[int, PretendTensor], plain: list[Tensor]) -> Any:
    """An argument with CPU tensors for those of the card; notes both kinds."""
    if isinstance(value, PretendTensor):
        wrapped[id(value.held)] = value
        return value.held
    if isinstance(value, Tensor):
        plain.append(value)
    elif isinstance(value, (list, tuple)):
        return type(value)(_inside(item, wrapped, plain) for item in value)
    return value


def _outside(value: Any, wrapped: dict[int, PretendTensor], plain: list[Tensor], on_card: bool) -> Any:
    """A result on its device; what an operation returns of its arguments is the same object again."""
    if isinstance(value, Tensor):
        if id(value) in wrapped:
            return wrapped[id(value)]
        return PretendTensor(value) if on_card and not any(value is own for own in plain) else value
    if isinstance(value, (list, tuple)):
        return type(value)(_outside(item, wrapped, plain, on_card) for item in value)
    return value


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    """On the CPU; in single precision where only cards know a narrow kind of number."""
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError) as error:
        narrow = next((kind for word, kind in NARROW.items() if f"not implemented for '{word}'" in str(error)), None)
        if narrow is None:
            raise
    change = torch.utils._pytree.tree_map_only
    args, kwargs = change(Tensor, lambda t: t.float() if t.dtype == narrow else t, (args, kwargs))
    return change(Tensor, lambda t: t.to(narrow) if t.dtype == torch.float32 else t, func(*args, **kwargs))


@cache
def _poison(dtype: torch.dtype) -> Any:
    """What new memory holds: nobody may rely on it."""
    if dtype.is_floating_point or dtype.is_complex:
        return math.nan
    return True if dtype == torch.bool else torch.iinfo(dtype).max


def _follow(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensor: PretendTensor) -> None:
    """The wrapper takes the new shape of what it holds after `unsqueeze_` and its like."""
    if torch.Tag.inplace_view not in func.tags:
        raise NotImplementedError(f"{func} changed a tensor of shape {tuple(tensor.shape)} in place")
    with torch.utils._mode_utils.no_dispatch():
        func(*args, **kwargs)


@cache
def _is_composite(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _check_generator(args: tuple[Any, ...], kwargs: dict[str, Any], on_card: bool) -> None:
    """A generator draws only for tensors of its own device."""
    if on_card and any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
        _mistakes.blame("Expected a 'cuda' device type for generator but found 'cpu'")


def _check_mixture(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wrapped: dict[int, PretendTensor],
    plain: list[Tensor],
) -> None:
    """Tensors of both devices in one operation: what TensorIterator and the index kernels allow, and nothing else."""
    if name in INDEXING:
        _check_index(args, kwargs)
        return
    scalars = (torch.Tag.pointwise in func.tags and name not in STRICT) or name in SCALAR_FRIENDS
    if scalars and all(tensor.dim() == 0 for tensor in plain):
        written = args[0] if name.endswith("_") else kwargs.get("out")
        if written is None or isinstance(written, PretendTensor):
            return
    shapes = ", ".join(f"{t.device} {list(t.shape)}" for t in [*wrapped.values(), *plain])
    _mistakes.blame(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"({func}: {shapes})"
    )


def _check_index(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """An index may lie on the CPU or with the indexed tensor; a value of dimensions must lie with the tensor."""
    target, indices = args[0], args[1]
    home = isinstance(target, PretendTensor)
    if not home and any(isinstance(index, PretendTensor) for index in indices):
        _mistakes.blame("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    value = args[2] if len(args) > 2 else kwargs.get("values")
    if isinstance(value, Tensor) and value.dim() > 0 and isinstance(value, PretendTensor) != home:
        _mistakes.blame(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(values of shape {list(value.shape)} written at indices)"
        )


@contextmanager
def pretend_card(
    *,
    accelerate: bool = False,
    forgive: bool = False,
    owner: str = "backend/dreamcraft3d",
    tell: Callable[[str], None] | None = None,
) -> Iterator[Mistakes]:
    """A card is there; what is on it when the context ends must not be used any more.

    Args:
        accelerate: whether the accelerators of other packages may be looked for.
        forgive: mistakes do not raise, they are noted with the project's line that made them (`Mistakes.found`), and
            the operation is done as if the tensors had been on one device: one run finds many.
        owner: part of the path of the files whose lines are noted.
        tell: called with each new mistake, if they are forgiven.
    """
    global _mistakes
    before = _mistakes
    mistakes = Mistakes(forgive, owner, known=tell)
    with ExitStack() as stack:
        _pretend_cuda(stack)
        _pretend_warp(stack, accelerate)
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes on the CPU, and then moves where modes see it
        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", _backward))
        stack.enter_context(_Names())
        stack.enter_context(_Card())
        _mistakes = mistakes
        try:
            yield mistakes
        finally:
            _mistakes = before


def _pretend_cuda(stack: ExitStack) -> None:
    """`torch.cuda` as on a machine with one card, and parameters that keep their identity when they move."""
    properties = SimpleNamespace(
        name="Pretend Card", total_memory=MEMORY, major=8, minor=9, multi_processor_count=64, is_integrated=False
    )
    replies: dict[str, Any] = {
        "_lazy_init": None,
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "synchronize": None,
        "empty_cache": None,
        "get_device_properties": properties,
        "get_device_name": properties.name,
        "get_device_capability": (8, 9),
        "mem_get_info": (MEMORY, MEMORY),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_allocated": 0,
        "max_memory_reserved": 0,
        "reset_peak_memory_stats": None,
        "manual_seed": None,
        "manual_seed_all": None,
        "set_rng_state": None,
    }
    for name, reply in replies.items():
        stack.enter_context(patch.object(torch.cuda, name, lambda *_, _reply=reply, **__: _reply))
    stack.enter_context(patch.object(torch.cuda, "get_rng_state", lambda *_, **__: torch.zeros(16, dtype=torch.uint8)))
    stack.enter_context(patch.object(torch, "load", _loading(torch.load)))
    # A module moves its parameters with `parameter.data = moved`, which torch refuses between two kinds of tensors.
    compatible = torch._has_compatible_shallow_copy_type

    def movable(one: Tensor, other: Tensor) -> bool:
        return isinstance(one, PretendTensor) or isinstance(other, PretendTensor) or compatible(one, other)

    stack.enter_context(patch.object(torch, "_has_compatible_shallow_copy_type", movable))
    stack.enter_context(
        patch.object(Tensor, "data", property(torch._C.TensorBase.data.__get__, _set_data), create=True)
    )


def _set_data(tensor: Tensor, value: Tensor) -> None:
    """`tensor.data = value` also where the two are on different devices, and where both are on the card."""
    if not isinstance(tensor, PretendTensor) and not isinstance(value, PretendTensor):
        torch._C.TensorBase.data.__set__(tensor, value)
        return
    grad, requires_grad, is_parameter = tensor.grad, tensor.requires_grad, isinstance(tensor, torch.nn.Parameter)
    tensor.grad = None
    fresh = value.detach()
    fresh = torch.nn.Parameter(fresh, requires_grad) if is_parameter else fresh.requires_grad_(requires_grad)
    own = {key: item for key, item in vars(tensor).items() if key not in ("held", "_is_param")}
    for key, item in own.items():
        setattr(fresh, key, item)
    tensor.__class__, fresh.__class__ = fresh.__class__, tensor.__class__
    tensor.__dict__, fresh.__dict__ = vars(fresh), vars(tensor)
    torch._C._swap_tensor_impl(tensor, fresh)
    if grad is not None:
        if grad.device != tensor.device:  # `module.to` moves it in its next line
            grad = grad.to(tensor.device)
        tensor.grad = grad


def _loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.load` that puts on the card what it is told to."""

    def loaded(file: Any, map_location: Any = None, **options: Any) -> Any:
        if not isinstance(map_location, (str, torch.device)) or torch.device(map_location).type != "cuda":
            return load(file, map_location, **options)
        content = load(file, "cpu", **options)
        return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor.to(CARD), content)

    return loaded


def _pretend_warp(stack: ExitStack, accelerate: bool) -> None:
    """The project's kernels take pretend tensors; every module of the package that holds a patched function is told."""
    from dreamcraft3d.kernels import compositing, dispatch, hash_grid, marching, mesh_query, rasterize  # noqa: F401

    wp = dispatch.warp()
    ours = {"view": dispatch.view, "launch": dispatch.launch, "warp_device": dispatch.warp_device}
    device_from_torch, mesh_class = wp.device_from_torch, wp.Mesh
    meshes: dict[int, bool] = {}

    def view(tensor: Tensor, dtype: Any = None) -> Any:
        # Without the mode, for a detach of the real tensor is no business of the card.
        with _disable_current_modes():
            array = ours["view"](real_of(tensor), dtype)
        array.on_card = isinstance(tensor, PretendTensor)
        return array

    def launch(kernel: Any, dim: Any, inputs: list[Any]) -> None:
        places = [item.on_card for item in inputs if hasattr(item, "on_card")]
        places += [meshes[item] for item in inputs if type(item) is int and item in meshes]
        if len(set(places)) > 1:
            _mistakes.blame(f"Error launching kernel '{kernel.key}', trying to launch on arrays of both cuda:0 and cpu")
        ours["launch"](kernel, dim, inputs)

    def warp_device(tensor: Tensor) -> Any:
        return ours["warp_device"](real_of(tensor))

    def mesh(points: Any, indices: Any, **options: Any) -> Any:
        places = {array.on_card for array in (points, indices) if hasattr(array, "on_card")}
        if len(places) > 1:
            _mistakes.blame("Mesh points and indices must live on the same device")
        made = mesh_class(points, indices, **options)
        meshes[int(made.id)] = True in places
        return made

    fakes = {"view": view, "launch": launch, "warp_device": warp_device}
    if not accelerate:
        ours["may_accelerate"], fakes["may_accelerate"] = dispatch.may_accelerate, lambda device: False
    for module in [module for key, module in sys.modules.items() if key.startswith("dreamcraft3d")]:
        for name, function in ours.items():
            if vars(module).get(name) is function:
                stack.enter_context(patch.object(module, name, fakes[name]))
    stack.enter_context(patch.object(wp, "device_from_torch", lambda device: device_from_torch(CPU)))
    stack.enter_context(patch.object(wp, "Mesh", mesh))
    modules = [module for key, module in sys.modules.items() if key.startswith("dreamcraft3d.kernels.")]
    for known in {item for module in modules for item in vars(module).values() if hasattr(item, "cache_clear")}:
        if "device" in inspect.signature(known).parameters:  # what is kept for a card that there is not
            known.cache_clear()
            stack.callback(known.cache_clear)
