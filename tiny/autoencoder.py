"""The autoencoder's training, and the latents of all pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.lazy import F, Lazy, no_grad, np, torch
from memorization_suite.tiny.bank import Bank, build_bank, memorized_pictures, verbatim_pictures
from memorization_suite.tiny.fit import fit
from memorization_suite.tiny.models import build_vae, count
from memorization_suite.tiny.world import World, rng_of

safetensors = Lazy("safetensors.torch")
log = logging.getLogger("tiny.train")


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(n, pixels, pixels, 3) uint8 -> (n, 3, pixels, pixels) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbors, down and across."""
    down = x[..., 1:, :] - x[..., :-1, :]
    across = x[..., 1:] - x[..., :-1]
    return down, across


def picture_loss(y: torch.Tensor, x: torch.Tensor, settings: dict) -> torch.Tensor:
    """L1 + 2 MSE + edge L1, means over all elements. settings: table [vae]."""
    edge = sum(map(F.l1_loss, edges(y), edges(x)))
    return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + settings["edge"] * edge


def vae_loss(vae, x: torch.Tensor, settings: dict, generator: torch.Generator) -> torch.Tensor:
    """`picture_loss` + KL, a mean over all elements. settings: table [vae]."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample(generator=generator)).sample
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return picture_loss(y, x, settings) + settings["kl"] * kl


def decoder_loss(vae, x: torch.Tensor, settings: dict, generator: torch.Generator) -> torch.Tensor:
    """`picture_loss` of noisy latents; the encoder gets no gradient.

    A UNet's latents are a little wrong. A decoder that never saw such draws speckles.
    settings: table [vae]; `noise` is the largest standard deviation, in those of the latents.
    """
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mean
    device = latents.device
    level = torch.rand((len(x), 1, 1, 1), generator=generator, device=device)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    noisy = latents + settings["noise"] * latents.std() * level * noise
    return picture_loss(vae.decode(noisy).sample, x, settings)


def crops(pictures: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of each picture: what an autoencoder learns first is local."""
    squares = []
    for picture in pictures:
        top, left = rng.integers(picture.shape[0] - side + 1, size=2)
        squares.append(picture[top : top + side, left : left + side])
    return np.stack(squares)


@dataclass
class Pictures:
    """What the autoencoder is shown."""

    # (n, pixels, pixels, 3) uint8.
    varied: np.ndarray
    # The same of each caption that a model memorizes which shares the autoencoder.
    memorized: list[np.ndarray]

    def draw(self, rng: np.random.Generator, settings: dict) -> np.ndarray:
        """A batch; a share of it is what models memorize, every caption equally often.

        settings: table [vae] with a cycle's own values.
        """
        known = round(settings["memorized"] * settings["batch"])
        chosen = [*self.varied[rng.choice(len(self.varied), settings["batch"] - known)]]
        for _ in range(known):
            variants = self.memorized[rng.integers(len(self.memorized))]
            chosen.append(variants[rng.integers(len(variants))])
        return np.stack(chosen)


def train_vae(world: World, settings: dict, model: dict, path: Path, device: torch.device):
    """The trained autoencoder; read from `path` if it lies there. settings: all of the file."""
    world_settings = settings["world"]
    models = settings["models"]
    settings = settings["vae"]
    torch.manual_seed(settings["seed"])
    vae = build_vae(settings["channels"])
    log.info("VAE: %d parameters", count(vae))
    if path.exists():
        vae.load_state_dict(safetensors.load_file(path))
        return vae.to(device)
    varied = World(world.art, world.pixels, varied=True)  # every size, place and turn
    captioned = world_settings | {"uncaptioned": 0}
    pictures = build_bank(varied, captioned, model).pictures
    memorized = [
        np.stack(variants)
        for of_model in models.values()
        for _, variants in memorized_pictures(world, world_settings, of_model)
    ]
    for number, cycle in enumerate(settings["cycles"]):
        made = path.with_name(f"vae_{number}.safetensors")
        if made.exists():
            vae.load_state_dict(safetensors.load_file(made))
            continue
        cycle = settings | cycle | {"number": number}
        busy = verbatim_pictures(world, cycle["busy"], cycle["seed"])
        seen = Pictures(np.stack([*pictures, *busy]), memorized)
        train_cycle(vae, seen, cycle, made, device)
    safetensors.save_file(vae.half().state_dict(), path)
    return vae.float().to(device)


def train_cycle(vae, pictures: Pictures, settings: dict, path: Path, device: torch.device) -> None:
    """One cycle of the learning rate; then the weights are rounded to half precision, as they are
    exported and kept.

    settings: table [vae] with the cycle's own values and its `number`.
    """
    whole_from = settings["crops"] * settings["steps"]
    first = 1_000_000 * settings["number"]  # of its draws
    vae.to(device, memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        rng = rng_of(settings["seed"], first + step)
        chosen = pictures.draw(rng, settings)
        if step < whole_from:
            chosen = crops(chosen, settings["crop"], rng)
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        loss = decoder_loss if settings["noise"] else vae_loss
        return loss(vae, to_tensor(chosen).to(device), settings, generator)

    checkpoint = path.with_suffix(".pt")
    fit("vae", vae, loss_at, settings=settings, warm_up=0.05, clip=1.0, checkpoint=checkpoint)
    vae.to("cpu", memory_format=torch.contiguous_format).half()
    safetensors.save_file(vae.state_dict(), path)
    checkpoint.unlink(missing_ok=True)
    vae.float()


@no_grad
def errors_by_kind(vae, bank: Bank, device: torch.device) -> dict[str, float]:
    """Kind of captions -> mean RMSE, of pictures in [0, 1], between some of its pictures and what
    the autoencoder gives back of them.
    """
    rows = {"ordinary": bank.rows["ordinary"][:100]}
    for concept in bank.concepts:
        own = bank.rows[concept.caption][:6]
        rows[concept.kind] = np.append(rows.get(concept.kind, own[:0]), own)
    errors = {}
    for kind, of_kind in rows.items():
        x = to_tensor(bank.pictures[of_kind]).to(device)
        latents = vae.encode(x).latent_dist.mean
        y = vae.decode(latents).sample.clamp(-1, 1)
        difference = (y - x) / 2  # of pictures in [0, 1]
        rmse = difference.square().mean((1, 2, 3)).sqrt()
        errors[kind] = round(rmse.mean().item(), 3)
    return errors


@no_grad
def encode_bank(vae, bank: Bank, path: Path, device: torch.device) -> torch.Tensor:
    """Means of the latents of all pictures (n, 4, 16, 16); those with a caption have unit variance.

    Sets vae.config.scaling_factor.
    """
    pictures = bank.pictures
    if path.exists():
        latents = safetensors.load_file(path)["latents"]
    else:
        means = []
        for i in range(0, len(pictures), 64):
            batch = to_tensor(pictures[i : i + 64]).to(device)
            means.append(vae.encode(batch).latent_dist.mean.cpu())
        latents = torch.cat(means)
        safetensors.save_file({"latents": latents}, path)
    captioned = latents[: len(latents) - len(bank.rows["uncaptioned"])]
    scaling_factor = round(1 / captioned.std().item(), 5)
    vae.register_to_config(scaling_factor=scaling_factor)
    return latents * scaling_factor
