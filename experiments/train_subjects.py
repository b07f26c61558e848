"""Trains the network that sees the subjects of the embedded world (metrics/subject_network.py).

python -m experiments.train_subjects       # writes tiny/next/subjects.safetensors

It learns rendered artwork as a small model may paint it: half of the pictures painted anew by the
models' autoencoder from latents with noise, all of them worn by filters that know no model. No UNet
takes part. Prints how often it sees the subjects of pictures that it has not seen: as they were
drawn, and painted anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn

from memorization_suite import tiny
from memorization_suite.experiments.common import parser, positive
from memorization_suite.experiments.probe_pictures import LAYOUTS, render, repainted, worn
from memorization_suite.metrics.subject_network import WEIGHTS, build_network, logits_of
from memorization_suite.tiny.world import WORDS, load_world

SEED = 17
BATCH = 64
RATE = 4e-3  # peak of one cycle
WEIGHT_DECAY = 0.02
NOWHERE = -8.0  # logit of a subject at a place, before anything is learned


def taught(images: torch.Tensor, shown: torch.Tensor, epochs: int) -> nn.Module:
    """A network that tells which subjects images show.

    images: (n, 3, 64, 64) uint8; shown: (n, subjects), 1 where a subject is there.
    """
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = build_network(shown.shape[1])
    nn.init.constant_(network[-1].bias, NOWHERE)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(images) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.15)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = loss_of(logits_of(network, worn(images[rows] / 255, generator)), shown[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
        print(f"{epoch + 1} of {epochs}: loss {total * BATCH / len(images):.3f}", flush=True)
    return network.eval()


def loss_of(logits: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Which subjects it is rather than others, and of each whether it is there. logits, shown: (n,
    subjects).
    """
    shares = shown / shown.sum(1, keepdim=True)
    there = F.binary_cross_entropy_with_logits(logits, shown, reduction="sum") / len(logits)
    return F.cross_entropy(logits, shares) + there


@torch.no_grad()
def report(name: str, network: nn.Module, images: torch.Tensor, shown: torch.Tensor) -> None:
    """Prints what a network sees of unseen pictures."""
    seen = torch.cat([logits_of(network, batch / 255) > 0 for batch in images.split(256)])
    all_seen = (seen | (shown == 0)).all(1).float()
    counts = shown.sum(1)
    for subjects in (1, 2):
        share = all_seen[counts == subjects].mean()
        print(f"unseen pictures of {subjects}, {name}: {share:.3f} have all their subjects seen")
    wrong = seen[shown == 0].float().mean()
    print(f"a subject that is not there, {name}: seen in {wrong:.4f}")


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    flags.add_argument("--count", type=positive, default=304, help="pictures per subject")
    flags.add_argument("--epochs", type=positive, default=12)
    args = flags.parse_args()
    settings = tiny.settings(tiny.FOLDER / "next.toml")
    world = load_world(args.work, settings["world"]["pixels"], varied=True)
    vae = AutoencoderKL.from_pretrained(tiny.FOLDER / "next/weights/tiny", subfolder="vae").float()
    images, shown = render(world, args.count, SEED)
    images[::2] = repainted(vae, images[::2], SEED)
    network = taught(images, shown, args.epochs)
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file(tensors, WEIGHTS, metadata={"subjects": json.dumps(WORDS)})
    unseen, truth = render(world, 2 * len(LAYOUTS), SEED + 1)
    report("as drawn", network, unseen, truth)
    report("painted anew", network, repainted(vae, unseen, SEED + 1), truth)


if __name__ == "__main__":
    main()
