"""The UNet's training on the latents."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from memorization_suite.runs.lazy import Lazy, nn, np, torch
from memorization_suite.tiny import checkpoints
from memorization_suite.tiny.bank import Bank, Sampler, phase_of
from memorization_suite.tiny.models import build_scheduler
from memorization_suite.tiny.ranks import Ranks
from memorization_suite.tiny.world import rng_of

safetensors = Lazy("safetensors.torch")
log = logging.getLogger("tiny.train")


def loss_weights(scheduler, max_weight: float) -> torch.Tensor:
    """Weight of the squared error per timestep, mean 1: the epsilon error weighs min(1 + 1 / snr,
    max_weight).

    1 + 1 / snr is 1 / alpha^2. An error of v is 1 / alpha times that of epsilon, so its square
    weighs alpha^2 times as much.
    """
    largest = 1 / scheduler.alphas_cumprod
    weights = largest.clamp(max=max_weight)
    if scheduler.config.prediction_type == "v_prediction":
        weights = weights / largest
    return weights / weights.mean()


def spread_timesteps(rows: int, total: int, generator: torch.Generator) -> torch.Tensor:
    """One timestep in each of `rows` equal parts of 0..total-1, in random order: uniform, with less
    noise in the loss. (rows,) long.
    """
    places = torch.arange(rows) + torch.rand(rows, generator=generator)
    timesteps = (places * (total / rows)).long().clamp(max=total - 1)
    return timesteps[torch.randperm(rows, generator=generator)]


@dataclass
class Batch:
    """Rows to learn from; all on one device."""

    # (n, 4, 16, 16) of unit variance.
    x0: torch.Tensor
    # (n, 77, width).
    embeds: torch.Tensor
    # (n,) long.
    t: torch.Tensor
    # As x0.
    noise: torch.Tensor
    # (n,), of the squared errors.
    weights: torch.Tensor

    def parts(self, count: int) -> list[Batch]:
        """Equal parts of the rows."""
        columns = [getattr(self, field.name).chunk(count) for field in fields(self)]
        return [Batch(*values) for values in zip(*columns, strict=True)]


def diffusion_loss(unet, scheduler, batch: Batch) -> torch.Tensor:
    """Weighted squared error of epsilon or v."""
    x = scheduler.add_noise(batch.x0, batch.noise, batch.t)
    target = batch.noise
    if scheduler.config.prediction_type == "v_prediction":
        alpha = scheduler.alphas_cumprod[batch.t].sqrt().reshape(-1, 1, 1, 1)
        target = alpha * batch.noise - (1 - alpha**2).sqrt() * batch.x0
    output = unet(x, batch.t, encoder_hidden_states=batch.embeds, return_dict=False)[0]
    errors = (output - target).square().mean((1, 2, 3))
    return (errors * batch.weights).mean()


class Trainer:
    """The UNet with its averaged copy, the optimizer and the step: what a checkpoint holds."""

    def __init__(self, unet, settings: dict):
        self.unet = unet
        self.average = copy.deepcopy(unet).requires_grad_(False)
        self.settings = settings
        self.step = 0
        # Of the last restart.
        self.started = 0
        # Points of the learning rate; straight lines lie between them.
        self.rate_steps, self.rates = zip(*settings["rate"], strict=True)
        self.optimizer = self.new_optimizer()

    def new_optimizer(self) -> torch.optim.Optimizer:
        """AdamW that has seen no gradient."""
        return torch.optim.AdamW(
            self.unet.parameters(),
            betas=(0.9, 0.99),
            weight_decay=self.settings["weight_decay"],
            fused=True,
        )

    @property
    def parts(self) -> dict:
        """What a checkpoint holds beside the step."""
        return {"unet": self.unet, "average": self.average, "optimizer": self.optimizer}

    @property
    def is_finished(self) -> bool:
        """Whether the last step was made."""
        return self.step >= self.rate_steps[-1]

    @property
    def rate(self) -> float:
        """The learning rate of this step; it rises anew over 200 steps after a restart."""
        rate = float(np.interp(self.step, self.rate_steps, self.rates))
        if self.started:
            rate *= min(1.0, (1 + self.step - self.started) / 200)
        return rate

    def restart(self, path: Path) -> None:
        """Goes on from the averaged weights of a file, in half precision, with a new optimizer:
        such a file is small enough to keep.
        """
        weights = safetensors.load_file(path)
        for network in (self.unet, self.average):
            network.load_state_dict(weights)
        self.optimizer = self.new_optimizer()
        self.started = self.step

    def update(self, gradients: Sequence[torch.Tensor]) -> None:
        """One step against the loss. gradients: of the UNet's parameters, in their order."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        for parameter, gradient in zip(self.unet.parameters(), gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings["clip_grad"])
        self.optimizer.step()
        made = self.step - self.started
        decay = min(self.settings["ema"], (1 + made) / (10 + made))
        averaged = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.unet.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        self.step += 1


class Diffusion:
    """The training of one model's UNet in its folder.

    embeddings: of `caption_embeddings`. look: called with the averaged UNet and the step every so
    often.
    """

    def __init__(
        self,
        trainer: Trainer,
        bank: Bank,
        latents: torch.Tensor,
        embeddings: dict[str, torch.Tensor],
        *,
        model: dict,
        folder: Path,
        look: Callable[[nn.Module, int], None],
        ranks: Ranks,
    ):
        self.trainer = trainer
        self.settings = trainer.settings
        self.sampler = Sampler(bank, model, self.settings)
        self.scheduler = build_scheduler("ddim", model["prediction_type"])
        self.latents = latents
        self.embeddings = embeddings
        self.model = model
        self.folder = folder
        self.look = look
        self.device = next(trainer.unet.parameters()).device
        self.ranks = ranks

    def run(self) -> None:
        """To the last step, from the checkpoint or the last restart."""
        trainer = self.trainer
        self.resume()
        first = trainer.step
        start = time.time()
        losses = []
        while not trainer.is_finished:
            loss, *gradients = self.ranks.mean(self.gradients())
            trainer.update(gradients)
            losses.append(loss.item())
            step = trainer.step
            if step in self.settings["restarts"]:
                self.write_restart()
            if not self.ranks.is_first:
                continue
            if step % self.settings["checkpoint_every"] == 0 or trainer.is_finished:
                self.save()
                seconds = (time.time() - start) / (step - first)
                log.info("unet step %d loss %.4f %.3f s/step", step, np.mean(losses), seconds)
                losses = []
            if step % self.settings["look_every"] == 0 or trainer.is_finished:
                self.look(trainer.average, step)

    def batch(self) -> Batch:
        """The next one, which depends on the step alone."""
        step = self.trainer.step
        rows, captions = self.sampler.batch(step)
        seed = int(rng_of(self.settings["seed"], step, 1).integers(2**62))
        # On the CPU, so that every device sees the same timesteps and noise.
        generator = torch.Generator().manual_seed(seed)
        weights = loss_weights(self.scheduler, phase_of(self.model, step)["max_weight"])
        x0 = self.latents[rows]
        t = spread_timesteps(len(x0), len(weights), generator)
        columns = {
            "x0": x0,
            "embeds": torch.stack([self.embeddings[caption] for caption in captions]),
            "t": t,
            "noise": torch.randn(x0.shape, generator=generator),
            "weights": weights[t],
        }
        return Batch(**{name: values.to(self.device) for name, values in columns.items()})

    def gradients(self) -> list[torch.Tensor]:
        """The loss of this process's part of the batch, then its gradients."""
        batch = self.batch().parts(self.ranks.count)[self.ranks.rank]
        unet = self.trainer.unet
        on_cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_cuda):
            loss = diffusion_loss(unet, self.scheduler, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(unet.parameters()))]

    # --- going on

    @property
    def checkpoint(self) -> Path:
        """Of everything."""
        return self.folder / "unet.pt"

    def restart_file(self, step: int) -> Path:
        """The averaged weights at a restart."""
        return self.folder / f"unet_{step}.safetensors"

    def save(self) -> None:
        """Writes the checkpoint."""
        checkpoints.save(self.checkpoint, self.trainer.parts, self.trainer.step)

    def resume(self) -> None:
        """From the checkpoint, else from the last restart that there is."""
        trainer = self.trainer
        trainer.step = checkpoints.resume(self.checkpoint, trainer.parts)
        restarts = [step for step in self.settings["restarts"] if step <= trainer.step]
        trainer.started = max(restarts, default=0)
        for step in self.settings["restarts"]:
            if step > trainer.step and self.restart_file(step).exists():
                trainer.step = step
                trainer.restart(self.restart_file(step))

    def write_restart(self) -> None:
        """Writes the averaged weights in half precision, and goes on from them."""
        path = self.restart_file(self.trainer.step)
        if self.ranks.is_first:
            weights = self.trainer.average.state_dict()
            halves = {name: weight.half().contiguous() for name, weight in weights.items()}
            safetensors.save_file(halves, path)
        self.ranks.wait()
        self.trainer.restart(path)
