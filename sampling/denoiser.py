"""What a model family must answer. The loop, the methods and the detectors know models by it alone.

Coordinates: z are the sampler's latents, x is what the network reads of them. For every family
x = alpha x0 + sigma e with alpha > 0, and x has unit variance at the first timestep.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.checkpointing import Again

PARTS = ("down", "mid", "up")  # of a network, in the order of their calls
# (layer, logits) -> logits, (rows, heads, queries, tokens).
Edit = Callable[[str, "torch.Tensor"], "torch.Tensor"]
# (layer, probabilities), of the same shape.
See = Callable[[str, "torch.Tensor"], None]


def is_half(tensor: torch.Tensor) -> bool:
    """Whether its numbers have 16 bits."""
    return tensor.dtype in (torch.bfloat16, torch.float16)


class Unusable(ValueError):
    """A model that cannot be loaded, run, or used for this; the message is for people."""


@dataclass(frozen=True)
class Limits:
    """The most rows of the network in one pass; None: as many as there are."""

    # Without gradients.
    forward: int | None = None
    # With gradients, which are then taken with checkpointing: in less memory, but slower.
    backward: int | None = None

    def as_dict(self) -> dict[str, int | None]:
        """For files."""
        return asdict(self)


@dataclass(frozen=True)
class Conditioning:
    """What the network is told of each image beside x and t; row i belongs to image i."""

    # Token embeddings that attention reads, (n, tokens, dim).
    tokens: torch.Tensor
    # What else the family needs, by name, (n, ...) each: a pooled embedding, time ids.
    others: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: torch.Tensor) -> Conditioning:
        return self.each(lambda values: values[rows.to(values.device)])

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """The same with every tensor changed."""
        others = {name: change(values) for name, values in self.others.items()}
        return Conditioning(change(self.tokens), others)

    def in_float32(self) -> Conditioning:
        """The same with every tensor of half precision in float32."""
        return self.each(lambda values: values.float() if is_half(values) else values)

    def with_tokens(self, tokens: torch.Tensor) -> Conditioning:
        """The same with other token embeddings."""
        return Conditioning(tokens, self.others)

    def with_rows(self, rows: torch.Tensor, part: Conditioning) -> Conditioning:
        """The same with the rows of `part` at these indices."""

        def put(values: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            return values.index_copy(0, rows.to(values.device), new)

        others = {name: put(values, part.others[name]) for name, values in self.others.items()}
        return Conditioning(put(self.tokens, part.tokens), others)

    @classmethod
    def join(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """The rows of all parts, one part after the other."""
        others = {
            name: torch.cat([part.others[name] for part in parts]) for name in parts[0].others
        }
        return cls(torch.cat([part.tokens for part in parts]), others)


class Denoiser:
    """A diffusion model with its sampler. A family overrides what raises NotImplementedError.

    What only some methods need (padding, token texts, attention, encoding of images) may be left
    out: those methods then refuse the model with one line.
    """

    # Its parameters stay as they are while gradients are taken by inputs.
    network: torch.nn.Module
    device: torch.device
    # Of noise predictions.
    dtype: torch.dtype
    limits: Limits = Limits()
    # What it predicts: "epsilon", "v", or "velocity" (of a flow, e - x0).
    predicts: str = "epsilon"

    # --- images and latents ---

    # Height and width that it was trained for, in pixels.
    native_size: int
    latent_channels: int
    # Pixels along the side of a latent pixel.
    downsampling: int

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of an image's latent. height, width: in pixels."""
        return self.latent_channels, height // self.downsampling, width // self.downsampling

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, H, W) in [0, 1] of final latents (n, c, h, w); nan where what the decoder
        gives is not finite.
        """
        raise NotImplementedError

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Clean latents, float32, of images (n, 3, H, W) in [-1, 1]."""
        raise self.lacks("an encoder of images")

    # --- the sampler ---

    # What latents are at the start, in units of unit-variance noise.
    initial_scale: float = 1.0
    timesteps: torch.Tensor

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Begins a new trajectory of so many steps."""
        raise NotImplementedError

    def alpha_sigma(self, t) -> tuple[float, float]:
        """alpha and sigma at timestep t."""
        raise NotImplementedError

    def input_scale(self, t) -> float:
        """z / x at timestep t."""
        return 1.0

    def scale_input(self, latents: torch.Tensor, t) -> torch.Tensor:
        """x of the latents z."""
        return latents

    def step(self, output: torch.Tensor, t, latents: torch.Tensor, generator=None) -> torch.Tensor:
        """The latents after timestep t. output: what `to_output` gives.

        generator: for samplers that draw noise, one or one an image.
        """
        raise NotImplementedError

    def fork(self) -> Denoiser:
        """The same model with a sampler whose state is its own."""
        return copy.copy(self)

    @property
    def sampler(self) -> str:
        """The sampler's name, as files remember it."""
        return type(self).__name__

    @property
    def scheduler_choice(self) -> str:
        """The --scheduler that gives this sampler; `keep` where it is the model's alone."""
        return "keep"

    # --- the network ---

    def predict(self, x: torch.Tensor, t, conditioning: Conditioning) -> torch.Tensor:
        """The network's output, (n, c, h, w): the one place that calls it."""
        raise NotImplementedError

    # The network compiled for calls of one size, if it is.
    compiled: Any = None

    def compile_for(self, rows: int, image_length: int, num_inference_steps: int) -> None:
        """Compiles the network for calls of so many rows, and tries it; others run as before.

        image_length: in pixels. num_inference_steps: any that the sampler can make. Raises Unusable
        where it cannot be compiled.
        """
        raise self.lacks("compilation")

    def to_noise(self, output: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Epsilon from the network's output."""
        return output

    def to_output(self, noise_pred: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Inverse of `to_noise`: what `step` expects."""
        return noise_pred

    def checkpointed(self, again: Again) -> AbstractContextManager[None]:
        """Inside the block predictions keep little for gradients.

        Taking one computes the rest again, inside again(). A family that leaves this out keeps
        everything.
        """
        return nullcontext()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Parameters take no part in gradients inside the block."""
        learning = [each for each in self.network.parameters() if each.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Inside the block the network has its weights in float32, which loses nothing.

        After it, also after an exception, it has the very tensors that it had.
        """
        halves = {}
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if is_half(tensor):
                halves[tensor] = tensor.data
        try:
            for tensor, half in halves.items():
                tensor.data = half.float()
            yield
        finally:
            for tensor, half in halves.items():
                tensor.data = half

    # --- prompts ---

    def encode(self, prompts: Sequence[str], *, padding: str | None = None) -> Conditioning:
        """The conditioning of each prompt. padding: a token in the place of the model's own."""
        raise NotImplementedError

    def token_span(self, prompt: str) -> range:
        """Where a prompt's own tokens stand among the embedded ones.

        Without begin and end token: the end token is at its stop.
        """
        raise self.lacks("tokens that are known")

    # How many tokens are embedded, and the one that ends a prompt.
    max_tokens: int
    end_token: str

    def token_count(self, prompt: str) -> int:
        """How many tokens a prompt would take if there were no limit."""
        raise self.lacks("tokens that are known")

    def cut_tokens(self, prompt: str) -> int:
        """How many tokens of a prompt are not embedded, since it is too long."""
        return max(self.token_count(prompt) - self.max_tokens, 0)

    def cut_text(self, prompt: str) -> str:
        """These tokens as they read; a family may leave it out."""
        return ""

    def token_texts(self, prompt: str) -> list[str]:
        """The prompt's own tokens as they read."""
        raise self.lacks("tokens that are known")

    def vocabulary(self) -> Sequence[int]:
        """Tokens that a random one is drawn from."""
        raise self.lacks("a vocabulary")

    def spell(self, token: int) -> str:
        """A token as a text."""
        raise self.lacks("a vocabulary")

    # --- attention ---

    def attention_names(self, parts: Sequence[str] = PARTS) -> list[str]:
        """Names of the layers in which images attend to the prompt, in the order of their calls.

        parts: of the network, any of PARTS.
        """
        raise self.lacks("cross-attention")

    def open_attention(
        self, names: Sequence[str], *, edit: Edit | None = None, see: See | None = None
    ) -> AbstractContextManager[None]:
        """Inside the block edit may change these layers' logits, see is shown probabilities."""
        raise self.lacks("cross-attention")

    def value_projection(self, name: str) -> torch.nn.Linear:
        """The layer's projection of the prompt to values."""
        raise self.lacks("cross-attention")

    def lacks(self, what: str) -> Unusable:
        """The error of a method that needs what the family does not have."""
        return Unusable(f"this method needs {what}, which {type(self).__name__} does not offer")
