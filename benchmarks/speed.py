"""Our sampling against a plain transcription of the official procedure, in one run on the embedded
model.

python -m benchmarks.speed            # ratios; the seconds are this machine's
"""

from __future__ import annotations

import argparse
import time

import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from tests.reference.han2025 import official_generate

CASES = {  # name -> (flags of the reference, our method)
    "no mitigation": ({}, ("no_mitigation", {})),
    "batch-wise": (
        {"batch_wise": {"rho": 5.0, "gamma": 3.0, "adj_iters": 2}},
        ("batch_wise", {"rho": 5.0, "gamma": 3.0}),
    ),
    "per-sample": (
        {"per_sample": {"lr": 0.05, "target_loss": 0.6, "optim_iters": 30}},
        ("per_sample", {"lr": 0.05, "target_loss": 0.6, "optim_iters": 30}),
    ),
}


def seconds(function) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", default="Okoro Review: One Ancient Tent Too Many")
    args = parser.parse_args()
    pipe = load_pipeline("tiny")
    plain = load_pipeline("tiny")
    plain.unet.requires_grad_(True)  # as the official script leaves it
    shape = (4, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    print(
        f"{args.images} images of one prompt, 50 steps, {torch.get_num_threads()} threads, best of "
        f"{args.repeats}"
    )
    for name, (reference, (method, settings)) in CASES.items():

        def official(reference=reference):
            official_generate(
                plain.unet,
                plain.text_encoder,
                plain.tokenizer,
                [args.prompt],
                n=args.images,
                shape=shape,
                seed=2,
                num_steps=50,
                guidance_scale=7.0,
                **reference,
            )

        def ours(method=method, settings=settings):
            noise = torch.randn((args.images, *shape), generator=torch.Generator().manual_seed(2))
            pipe.sample(
                [args.prompt] * args.images,
                noise,
                build_mitigation(method, **settings),
                num_inference_steps=50,
                guidance_scale=7.0,
            )

        slow, fast = (
            min(seconds(function) for _ in range(args.repeats)) for function in (official, ours)
        )
        print(
            f"{name:14s} official procedure {slow:6.2f} s, suite {fast:6.2f} s: {slow / fast:.2f} "
            "times"
        )


if __name__ == "__main__":
    main()
