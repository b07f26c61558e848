"""How many rows the network may have in one pass, measured once on the model."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from memorization_suite.runs.lazy import dispatch, no_grad, torch
from memorization_suite.sampling.denoiser import Denoiser, Limits, Unusable
from memorization_suite.sampling.noise_predictor import HALVES, NoisePredictor

__all__ = ["Limits", "choose_limits", "held_bytes", "peak_bytes"]

GIB = 2**30
# Of the memory that is planned with. The rest is for what lies between allocations, and for what
# the libraries take for themselves.
SHARE = 0.9


# --- bytes ---


def peak_bytes(device: torch.device | str, function: Callable[[], object]) -> int:
    """The most bytes that are allocated at once while the function runs, beyond what was there.

    On CUDA torch's own figure, elsewhere the storages that torch's operators make; what they
    allocate and free inside is not seen there.
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with counted_storages() as count:
        function()
    return count.peak


def held_bytes(model: Denoiser) -> int:
    """Bytes that are allocated now: on CUDA all of this process, elsewhere the model's weights."""
    device = torch.device(model.device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    held = 0
    for part in vars(model).values():
        if isinstance(part, torch.nn.Module):
            for tensor in (*part.parameters(), *part.buffers()):
                held += tensor.nbytes
    return held


class Storages:
    """Bytes of the storages that live, and the most there were."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        # The storages by their place.
        self.known: set[int] = set()

    def note(self, tensor: torch.Tensor, *, new: bool) -> None:
        """Counts the tensor's storage, once. new: it was made just now, else it was there."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self.known:
            return
        size = storage.nbytes() if new else 0
        self.known.add(place)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.forget, place, size)

    def forget(self, place: int, size: int) -> None:
        """The storage is gone."""
        self.known.discard(place)
        self.live -= size


@contextmanager
def counted_storages() -> Iterator[Storages]:
    """Counts what torch's operators allocate inside the block, gradients too."""
    count = Storages()

    class Counting(dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            options = kwargs or {}
            for tensor in tensors_in((*args, *options.values())):
                count.note(tensor, new=False)
            made = operator(*args, **options)
            for tensor in tensors_in(made):
                count.note(tensor, new=True)
            return made

    with Counting():
        yield count


def tensors_in(values: object) -> Iterator[torch.Tensor]:
    """The tensors of what an operator takes or gives."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_in(value)


# --- limits ---


def choose_limits(
    model: Denoiser,
    image_length: int,
    budget_gib: float | None,
    *,
    gradients: bool = True,
    num_inference_steps: int = 1,
) -> Limits:
    """What fits into so many GiB, weights included; None: into what is free on the device.

    One image is evaluated, with gradients too if some will be taken, and counted; its decoding is
    not. On a CPU without a budget there are no limits. Raises Unusable when one image does not fit.
    image_length: in pixels. num_inference_steps: any that the sampler can make.
    """
    device = torch.device(model.device)
    if budget_gib is None and device.type != "cuda":
        return Limits()
    held = held_bytes(model)
    total = held + free_bytes(device) if budget_gib is None else budget_gib * GIB
    try:
        forward = pass_bytes(model, image_length, num_inference_steps, gradient=False)
        backward = 0
        if gradients:
            backward = pass_bytes(model, image_length, num_inference_steps, gradient=True)
    except torch.OutOfMemoryError as error:
        raise Unusable(
            f"one image of {image_length} pixels does not fit into the memory of {device}, of "
            f"which {total / GIB:.1f} GiB are free; --image_length makes it smaller"
        ) from error
    room = SHARE * total - held
    if room < max(forward, backward):
        least = (held + max(forward, backward)) / SHARE / GIB
        raise Unusable(too_small(budget_gib, total / GIB, least, image_length))
    rows = len(HALVES)
    return Limits(
        forward=int(room * rows // forward),
        backward=int(room * rows // backward) if gradients else None,
    )


def too_small(budget: float | None, total: float, least: float, image_length: int) -> str:
    """The message. total, least: GiB."""
    given = f"--memory_budget {budget:g}" if budget is not None else f"{total:.1f} GiB of memory"
    least = -(-least * 100 // 1) / 100  # rounded up
    return (
        f"{given} is too little for one image of {image_length} pixels, which takes {least:.2f} "
        "GiB with the model; --image_length makes it smaller"
    )


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still have on a CUDA device."""
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + reserved


@no_grad
def pass_bytes(
    model: Denoiser, image_length: int, num_inference_steps: int = 1, *, gradient: bool
) -> int:
    """Bytes that one image's evaluation takes, both halves, with or without a gradient by x.

    Attention is open, which takes more than the model's own. The model is left as it is.
    """
    model = model.fork()
    model.limits = Limits(backward=len(HALVES))
    model.set_timesteps(num_inference_steps)
    told = model.encode([""])
    shape = model.latent_shape(image_length, image_length)

    def evaluate() -> None:
        x = torch.zeros((1, *shape), device=model.device, requires_grad=gradient)
        with torch.set_grad_enabled(gradient):
            magnitude = NoisePredictor(model, told, told).at(x, model.timesteps[0]).magnitude()
        if gradient:
            torch.autograd.grad(magnitude, x, torch.ones_like(magnitude))

    with model.frozen(), edited_attention(model):
        evaluate()  # what libraries allocate once is not counted
        return peak_bytes(model.device, evaluate)


def edited_attention(model: Denoiser) -> AbstractContextManager[None]:
    """Inside the block logits are edited as by the methods that need most memory for it."""
    try:
        names = model.attention_names()
    except Unusable:
        return nullcontext()

    def edit(name: str, logits: torch.Tensor) -> torch.Tensor:
        return torch.where(logits > 0, logits * 0.5, logits)

    return model.open_attention(names, edit=edit)
