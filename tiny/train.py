"""Trains an embedded model from nothing on a CPU and saves it as a diffusers folder.

python tiny/train.py tiny            # the model of Stable Diffusion 1.4's part (epsilon, DDIM)
python tiny/train.py tiny-v          # of Stable Diffusion 2's part (v-prediction, Euler)
python tiny/train.py tiny --smoke    # a few steps of everything, for tests

Settings: tiny/config.toml. Checkpoints lie in --work; a stopped training goes on from the last one
with the same batches.
"""

from __future__ import annotations

import argparse
import copy
import io
import logging
import sys
import time
import tomllib
from pathlib import Path

if __name__ == "__main__":
    # This checkout's suite, whichever is installed.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from memorization_suite import tiny
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import F, Lazy, nn, no_grad, np, torch
from memorization_suite.tiny.bank import Bank, Sampler, build_bank, phase_of
from memorization_suite.tiny.fit import fit
from memorization_suite.tiny.models import (
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
    count,
)
from memorization_suite.tiny.text import caption_embeddings, train_text_encoder
from memorization_suite.tiny.tokenizer import train_tokenizer
from memorization_suite.tiny.world import World, load_world, rng_of

diffusers = Lazy("diffusers")
safetensors = Lazy("safetensors.torch")
log = logging.getLogger("tiny.train")


def load_settings(smoke: bool) -> dict:
    """config.toml, with the short values for a smoke run."""
    settings = tomllib.loads((tiny.FOLDER / "config.toml").read_text())
    short = settings.pop("smoke")
    if smoke:
        for table, values in short.items():
            settings[table] |= values
    return settings


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(n, 32, 32, 3) uint8 -> (n, 3, 32, 32) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


# --- the VAE


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbors, down and across."""
    down = x[..., 1:, :] - x[..., :-1, :]
    across = x[..., 1:] - x[..., :-1]
    return down, across


def vae_loss(vae, x: torch.Tensor, settings: dict, generator: torch.Generator) -> torch.Tensor:
    """L1 + 2 MSE + edge L1 + KL, means over all elements. settings: table [vae]."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample(generator=generator)).sample
    edge = sum(map(F.l1_loss, edges(y), edges(x)))
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    pixels = F.l1_loss(y, x) + 2 * F.mse_loss(y, x)
    return pixels + settings["edge"] * edge + settings["kl"] * kl


def train_vae(world: World, settings: dict, model: dict, path: Path):
    """The trained autoencoder; read from `path` if it lies there. settings: all of config.toml."""
    world_settings = settings["world"]
    settings = settings["vae"]
    torch.manual_seed(settings["seed"])
    vae = build_vae()
    log.info("VAE: %d parameters", count(vae))
    if path.exists():
        vae.load_state_dict(safetensors.load_file(path))
        return vae
    varied = World(world.art, varied=True)  # every size, place and turn
    pictures = build_bank(varied, world_settings, model).pictures
    generator = torch.Generator().manual_seed(settings["seed"])

    def loss_at(step: int) -> torch.Tensor:
        rows = rng_of(settings["seed"], step).choice(len(pictures), settings["batch"])
        return vae_loss(vae, to_tensor(pictures[rows]), settings, generator)

    fit("vae", vae.parameters(), loss_at, settings=settings, warm_up=0.05, clip=1.0)
    safetensors.save_file(vae.state_dict(), path)
    return vae


@no_grad
def encode_bank(vae, pictures: np.ndarray, path: Path) -> torch.Tensor:
    """Means of the latents of all pictures (n, 4, 16, 16), scaled to unit variance; sets
    vae.config.scaling_factor.
    """
    if path.exists():
        latents = safetensors.load_file(path)["latents"]
    else:
        means = []
        for i in range(0, len(pictures), 64):
            batch = to_tensor(pictures[i : i + 64])
            means.append(vae.encode(batch).latent_dist.mean)
        latents = torch.cat(means)
        safetensors.save_file({"latents": latents}, path)
    scaling_factor = round(1 / latents.std().item(), 5)
    vae.register_to_config(scaling_factor=scaling_factor)
    return latents * scaling_factor


# --- the UNet


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


def diffusion_loss(unet, scheduler, x0, embeds, weights, generator) -> torch.Tensor:
    """Weighted squared error of epsilon or v.

    x0: (n, 4, 16, 16) of unit variance. embeds: (n, 77, width). weights: of `loss_weights`.
    """
    t = spread_timesteps(len(x0), len(weights), generator)
    noise = torch.randn(x0.shape, generator=generator)
    x = scheduler.add_noise(x0, noise, t)
    target = noise
    if scheduler.config.prediction_type == "v_prediction":
        alpha = scheduler.alphas_cumprod[t].sqrt().reshape(-1, 1, 1, 1)
        target = alpha * noise - (1 - alpha**2).sqrt() * x0
    output = unet(x, t, encoder_hidden_states=embeds, return_dict=False)[0]
    errors = (output - target).square().mean((1, 2, 3))
    return (errors * weights[t]).mean()


class Trainer:
    """The UNet with its averaged copy, the optimizer and the step: what a checkpoint holds."""

    def __init__(self, unet, settings: dict):
        self.unet = unet
        self.average = copy.deepcopy(unet).requires_grad_(False)
        self.settings = settings
        self.step = 0
        # Points of the learning rate; straight lines lie between them.
        self.rate_steps, self.rates = zip(*settings["rate"], strict=True)
        self.optimizer = torch.optim.AdamW(
            unet.parameters(), betas=(0.9, 0.99), weight_decay=settings["weight_decay"], fused=True
        )
        self.parts = {"unet": unet, "average": self.average, "optimizer": self.optimizer}

    @property
    def is_finished(self) -> bool:
        """Whether the last step was made."""
        return self.step >= self.rate_steps[-1]

    def save(self, path: Path) -> None:
        """Writes a checkpoint; a kill leaves the old one whole."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        content = io.BytesIO()
        torch.save(state | {"step": self.step}, content)
        write_bytes(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]

    def update(self, loss: torch.Tensor) -> None:
        """One step against the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(np.interp(self.step, self.rate_steps, self.rates))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings["clip_grad"])
        self.optimizer.step()
        early = (1 + self.step) / (10 + self.step)
        decay = min(self.settings["ema"], early)
        averaged = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.unet.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        self.step += 1


def train_unet(
    trainer: Trainer,
    bank: Bank,
    latents: torch.Tensor,
    embeddings: dict[str, torch.Tensor],
    model: dict,
    checkpoint: Path,
) -> None:
    """Runs to the last step, from the checkpoint if there is one.

    embeddings: of `caption_embeddings`.
    """
    settings = trainer.settings
    sampler = Sampler(bank, model, settings)
    scheduler = build_scheduler("ddim", model["prediction_type"])
    if checkpoint.exists():
        trainer.resume(checkpoint)
    first = trainer.step
    start = time.time()
    losses = []
    while not trainer.is_finished:
        rows, captions = sampler.batch(trainer.step)
        seed = int(rng_of(settings["seed"], trainer.step, 1).integers(2**62))
        generator = torch.Generator().manual_seed(seed)
        embeds = torch.stack([embeddings[caption] for caption in captions])
        weights = loss_weights(scheduler, phase_of(model, trainer.step)["max_weight"])
        loss = diffusion_loss(trainer.unet, scheduler, latents[rows], embeds, weights, generator)
        trainer.update(loss)
        losses.append(loss.item())
        if trainer.step % settings["checkpoint_every"] == 0 or trainer.is_finished:
            trainer.save(checkpoint)
            seconds = (time.time() - start) / (trainer.step - first)
            log.info("unet step %d loss %.4f %.3f s/step", trainer.step, np.mean(losses), seconds)
            losses = []


# --- all of it


def train(name: str, world: World, *, work: Path, out: Path, smoke: bool) -> None:
    """Builds, trains and exports one model; goes on from what lies in `work`."""
    settings = load_settings(smoke)
    model = settings["models"][name]
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    bank = build_bank(world, settings["world"], model)
    log.info("%d pictures, %d memorized captions", len(bank.pictures), len(bank.concepts))
    captions = sorted(set(bank.captions))
    tokenizer = train_tokenizer(captions, settings["tokenizer"]["entries"], folder / "tokenizer")

    shared = work / model.get("vae_from", name)
    shared.mkdir(exist_ok=True)
    vae = train_vae(world, settings, model, shared / "vae.safetensors")
    latents = encode_bank(vae, bank.pictures, folder / "latents.safetensors")

    torch.manual_seed(settings["text"]["seed"])
    text_encoder = build_text_encoder(
        len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
    )
    weights = folder / "text_encoder.safetensors"
    train_text_encoder(text_encoder, tokenizer, bank, settings["text"], path=weights)
    embeddings = caption_embeddings(text_encoder, tokenizer, bank)

    torch.manual_seed(settings["unet"]["seed"])
    unet = build_unet().to(memory_format=torch.channels_last)
    trainer = Trainer(unet, settings["unet"])
    log.info("UNet %d, text encoder %d parameters", count(unet), count(text_encoder))
    train_unet(trainer, bank, latents, embeddings, model, checkpoint=folder / "unet.pt")

    networks = {"vae": vae, "text_encoder": text_encoder, "unet": trainer.average}
    export(networks, tokenizer, model, out / name)
    log.info("saved %s", out / name)


def export(networks: dict[str, nn.Module], tokenizer, model: dict, folder: Path) -> None:
    """An ordinary diffusers folder. networks: vae, text_encoder and unet; they become half
    precision.
    """
    for network in networks.values():
        network.half()
    pipe = diffusers.StableDiffusionPipeline(
        **networks,
        tokenizer=tokenizer,
        scheduler=build_scheduler(model["scheduler"], model["prediction_type"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(tiny.MODELS))
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build"),
        help="folder of checkpoints and the downloaded artwork",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=tiny.FOLDER / "weights",
        help="where the model's folder is written",
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(args.name, load_world(args.work), work=args.work, out=args.out, smoke=args.smoke)
    return 0


if __name__ == "__main__":
    sys.exit(main())
