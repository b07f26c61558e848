"""Our sampling against a plain transcription of the official procedure, in one run on the embedded
model.

python -m experiments.speed            # ratios; the seconds are this machine's
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from memorization_suite.experiments.common import best_of, parser
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import sample as sample_batch
from tests.reference.han2025 import official_generate


@dataclass(frozen=True)
class Case:
    """One method, as the reference and as the suite has it."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    # What the reference takes.
    official: dict[str, dict[str, Any]] = field(default_factory=dict)


BATCH_WISE = {"rho": 5.0, "gamma": 3.0}
PER_SAMPLE = {"lr": 0.05, "target_loss": 0.6, "optim_iters": 30}
CASES = {
    "no mitigation": Case("no_mitigation"),
    "batch-wise": Case("batch_wise", BATCH_WISE, {"batch_wise": BATCH_WISE | {"adj_iters": 2}}),
    "per-sample": Case("per_sample", PER_SAMPLE, {"per_sample": PER_SAMPLE}),
}


def official(pipe, case: Case, prompt: str, images: int) -> None:
    """The reference."""
    side = pipe.unet.config.sample_size
    official_generate(
        pipe.unet,
        pipe.text_encoder,
        pipe.tokenizer,
        [prompt],
        n=images,
        shape=(4, side, side),
        seed=2,
        num_steps=50,
        guidance_scale=7.0,
        **case.official,
    )


def ours(pipe, case: Case, prompt: str, images: int) -> None:
    """The suite."""
    side = pipe.unet.config.sample_size
    generator = torch.Generator().manual_seed(2)
    sample_batch(
        pipe,
        Batch.of_captions([prompt] * images),
        torch.randn((images, 4, side, side), generator=generator),
        build_mitigation(case.method, **case.settings),
        num_inference_steps=50,
        guidance_scale=7.0,
    )


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, default=10)
    flags.add_argument("--repeats", type=int, default=3)
    flags.add_argument("--prompt", default="Okoro Review: One Ancient Tent Too Many")
    args = flags.parse_args()
    pipe = load_pipeline("tiny")
    plain = load_pipeline("tiny")
    plain.unet.requires_grad_(True)  # as the official script leaves it
    print(
        f"{args.images} images of one prompt, 50 steps, {torch.get_num_threads()} threads, best of "
        f"{args.repeats}"
    )
    for name, case in CASES.items():
        slow = best_of(
            args.repeats, lambda case=case: official(plain, case, args.prompt, args.images)
        )
        fast = best_of(args.repeats, lambda case=case: ours(pipe, case, args.prompt, args.images))
        print(
            f"{name:14s} official procedure {slow:6.2f} s, suite {fast:6.2f} s: {slow / fast:.2f} "
            "times"
        )


if __name__ == "__main__":
    main()
