"""A pretend device: numbers as on the CPU, errors as on CUDA, for machines without a GPU.

    with other_device():
        pipe = on_other_device(pipe)

Its tensors say device="meta", and hold real numbers of the CPU. What mixes them with a plain CPU
tensor raises, but for 0-dim numbers, indices in brackets and copies. So do `.numpy()` and a
generator of the CPU.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OTHER = torch.device("meta")
GENERATOR = torch.Generator
aten = torch.ops.aten
# Between devices.
COPIES = (aten._to_copy, aten.copy_)
# The indexed tensor decides; indices may be on the CPU.
BRACKETS = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


class Other(torch.Tensor):
    """A tensor on the pretend device. held: its numbers, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=OTHER,
        )

    def __init__(self, held: torch.Tensor):
        self.held = held

    def __repr__(self, **_):
        return f"Other({self.held})"

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor of the other device to numpy: use Tensor.cpu()")

    def __array__(self, *_, **__):
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args: tuple, kwargs: dict):
    """The operation with the held numbers. Raises RuntimeError where CUDA would."""
    packet = func.overloadpacket
    if packet is aten._fused_sdp_choice:
        return 0  # plain products
    if packet is aten._efficientzerotensor:
        func = aten.zeros.default  # forward mode's zeros hold no numbers
    given = [*tensors(args), *tensors(kwargs.values())]
    others = {id(one.held): one for one in given if isinstance(one, Other)}
    if others and packet not in COPIES:
        check_devices(func, args, given)
    wanted = kwargs.get("device")
    there = bool(others) if wanted is None else torch.device(wanted) == OTHER
    if packet is aten.copy_:
        there = isinstance(args[0], Other)
    held_kwargs = {name: held(value) for name, value in kwargs.items()}
    if wanted is not None:
        held_kwargs["device"] = "cpu"
    made = func(*held(args), **held_kwargs)

    # What was changed in place stays the same tensor.
    def moved(tensor: torch.Tensor) -> Other:
        return others[id(tensor)] if id(tensor) in others else Other(tensor)

    return each(torch.Tensor, moved, made) if there else made


def each(kind: type, change: Callable, value):
    """The value, or the list of values, with those of a kind changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(each(kind, change, one) for one in value)
    return value


def held(value):
    """The numbers of what an operation was given."""
    return each(Other, lambda one: one.held, value)


def tensors(values: Iterable) -> Iterator[torch.Tensor]:
    """Those among the arguments of an operation."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def check_devices(func, args: tuple, given: list[torch.Tensor]) -> None:
    """Raises RuntimeError when a tensor of the CPU takes part."""
    if func.overloadpacket in BRACKETS and isinstance(args[0], Other):
        given = [one for one in args[2:] if isinstance(one, torch.Tensor)]
    for one in given:
        if not isinstance(one, Other) and one.ndim > 0:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {func} was given one of the CPU, "
                f"{tuple(one.shape)} {one.dtype}"
            )


class Operations(TorchDispatchMode):
    """Also what is made on the other device from nothing, and moved to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class OtherGenerator(torch.Generator):
    """A stream on the other device; it draws what the CPU's draws."""

    device = OTHER

    def __new__(cls, device: torch.device | str = "cpu"):
        return super().__new__(cls if torch.device(device) == OTHER else GENERATOR)


class Functions(TorchFunctionMode):
    """Where torch itself treats "meta" as empty, and what operations are not told."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        wanted = kwargs.get("device")
        there = torch.device(wanted) == OTHER if wanted is not None else is_other(*args[:1])
        generator = kwargs.get("generator")
        if generator is not None and there != (generator.device == OTHER):
            raise RuntimeError(
                f"{func.__name__}: a generator of {generator.device} draws elsewhere"
            )
        if func in (torch.tensor, torch.as_tensor) and there and wanted is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(OTHER)
        if func is torch.Tensor.new_tensor and there:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs).to(OTHER)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], each(list, torch.tensor, args[1]), *args[2:])
        return func(*args, **kwargs)


def is_other(*values) -> bool:
    """Whether the value, if there is one, is on the other device."""
    return any(isinstance(value, Other) for value in values)


@contextmanager
def other_device() -> Iterator[None]:
    """Inside the block there is the other device."""
    with Operations(), Functions(), mock.patch.object(torch, "Generator", OtherGenerator):
        yield


def on_other_device(pipe):
    """The pipeline with copies of its modules there, and a scheduler of its own."""
    moved = copy.copy(pipe)
    moved.scheduler = copy.deepcopy(pipe.scheduler)
    for name in ("unet", "vae", "text_encoder"):
        module = copy.deepcopy(getattr(pipe, name))
        move(module)
        setattr(moved, name, module)
    return moved


def move(whole: nn.Module) -> None:
    """Puts parameters and buffers there."""
    for module in whole.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                needed = parameter.requires_grad
                moved = nn.Parameter(Other(parameter.detach()), requires_grad=needed)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Other(buffer)
