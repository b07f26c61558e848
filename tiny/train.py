"""Trains an embedded model from nothing and saves it as a diffusers folder.

python tiny/train.py tiny            # the model of Stable Diffusion 1.4's part (epsilon, DDIM)
python tiny/train.py tiny-v          # of Stable Diffusion 2's part (v-prediction, Euler)
python tiny/train.py tiny --smoke    # a few steps of everything, for tests

On CUDA when there is one, else on the CPU, there quicker by
`torchrun --nproc-per-node 2 tiny/train.py tiny`. Settings: tiny/config.toml. Checkpoints lie in
--work; a stopped training goes on from the last one with the same batches.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

if __name__ == "__main__":
    # This checkout's suite, whichever is installed.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from memorization_suite import tiny
from memorization_suite.runs.lazy import Lazy, nn, torch
from memorization_suite.tiny.autoencoder import encode_bank, errors_by_kind, train_vae
from memorization_suite.tiny.bank import Bank, build_bank
from memorization_suite.tiny.diffusion import Diffusion, Trainer
from memorization_suite.tiny.models import build_scheduler, build_text_encoder, build_unet, count
from memorization_suite.tiny.ranks import ALONE, Ranks, started
from memorization_suite.tiny.sheet import write_sheet
from memorization_suite.tiny.text import caption_embeddings, train_text_encoder
from memorization_suite.tiny.tokenizer import train_tokenizer
from memorization_suite.tiny.world import World, load_world

diffusers = Lazy("diffusers")
log = logging.getLogger("tiny.train")


def load_settings(path: Path, smoke: bool) -> dict:
    """A file of settings, with the short values for a smoke run, in which no model has its own."""
    settings = tiny.settings(path)
    short = settings.pop("smoke")
    if smoke:
        for table, values in short.items():
            settings[table] |= values
        for model in settings["models"].values():
            model.pop("unet", None)
    return settings


def unet_settings(settings: dict, name: str) -> dict:
    """Table [unet], with the values that a model has of its own."""
    return settings["unet"] | settings["models"][name].get("unet", {})


def train(
    name: str,
    world: World,
    settings: dict,
    *,
    work: Path,
    out: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> None:
    """Builds, trains and exports one model; goes on from what lies in `work`."""
    model = settings["models"][name]
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    bank = build_bank(world, settings["world"], model)
    log.info("%d pictures, %d memorized captions", len(bank.pictures), len(bank.concepts))
    with ranks.first_alone():
        vae = shared_vae(name, world, settings, work, device)
        log.info("RMSE of the autoencoder: %s", errors_by_kind(vae, bank, device))
        latents = encode_bank(vae, bank, folder / "latents.safetensors", device)
        tokenizer, text_encoder = read_captions(bank, settings, folder)
        embeddings = caption_embeddings(text_encoder, tokenizer, bank)

    ranks.share_cores()
    of_unet = unet_settings(settings, name)
    torch.manual_seed(of_unet["seed"])
    unet = build_unet().to(device, memory_format=torch.channels_last)
    trainer = Trainer(unet, of_unet)
    log.info("UNet %d, text encoder %d parameters", count(unet), count(text_encoder))
    networks = {"vae": vae, "text_encoder": text_encoder.to(device), "unet": trainer.average}

    def look(_: nn.Module, step: int) -> None:
        pipe = build_pipe(networks, tokenizer, model)
        path = folder / f"sheet_{step:05d}.png"
        write_sheet(pipe, bank, path, steps=of_unet["look_steps"])

    places = {"folder": folder, "look": look, "ranks": ranks}
    Diffusion(trainer, bank, latents, embeddings, model=model, **places).run()
    if ranks.is_first:
        export(networks, tokenizer, model, out / name)
        log.info("saved %s", out / name)


def shared_vae(name: str, world: World, settings: dict, work: Path, device: torch.device):
    """The autoencoder of a model, or of the one that it shares it with."""
    model = settings["models"][name]
    folder = work / model.get("vae_from", name)
    folder.mkdir(exist_ok=True)
    return train_vae(world, settings, model, folder / "vae.safetensors", device)


def read_captions(bank: Bank, settings: dict, folder: Path):
    """(tokenizer, text encoder) that know the captions of a bank."""
    captions = sorted({*bank.captions} - {""})
    tokenizer = train_tokenizer(captions, settings["tokenizer"]["entries"], folder / "tokenizer")
    torch.manual_seed(settings["text"]["seed"])
    text_encoder = build_text_encoder(
        len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
    )
    weights = folder / "text_encoder.safetensors"
    train_text_encoder(text_encoder, tokenizer, bank, settings["text"], path=weights)
    return tokenizer, text_encoder


def build_pipe(
    networks: dict[str, nn.Module], tokenizer, model: dict
) -> diffusers.StableDiffusionPipeline:
    """Diffusers' pipeline. networks: vae, text_encoder and unet."""
    return diffusers.StableDiffusionPipeline(
        **networks,
        tokenizer=tokenizer,
        scheduler=build_scheduler(model["scheduler"], model["prediction_type"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(networks: dict[str, nn.Module], tokenizer, model: dict, folder: Path) -> None:
    """An ordinary diffusers folder. networks: as of `build_pipe`; they become half precision."""
    for network in networks.values():
        network.half()
    build_pipe(networks, tokenizer, model).save_pretrained(folder)


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(tiny.MODELS))
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build"),
        help="folder of checkpoints, sheets and the downloaded artwork",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=tiny.FOLDER / "weights",
        help="where the model's folder is written",
    )
    parser.add_argument(
        "--config", type=Path, default=tiny.FOLDER / "config.toml", help="the settings"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = load_settings(args.config, args.smoke)
    batch = unet_settings(settings, args.name)["batch"]
    if batch % started():
        parser.error(f"{started()} processes cannot share a batch of {batch}: start 1, 2 or 4")
    world = load_world(args.work, settings["world"]["pixels"])
    ranks = Ranks.join()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", ranks.rank % torch.cuda.device_count())
    if not ranks.is_first:
        log.setLevel(logging.WARNING)
    train(args.name, world, settings, work=args.work, out=args.out, device=device, ranks=ranks)
    ranks.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
