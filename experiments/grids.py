"""Settings that are tried for every method on an embedded model's tuning split."""

from __future__ import annotations

import itertools


def product(**values: list) -> list[dict]:
    """Every combination."""
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


def grids(level: float) -> dict[str, list[dict]]:
    """Method -> settings.

    level: mean first-step magnitude of ordinary captions, epsilon units; targets are multiples of
    it. Files are named relative to the model's folder.
    """
    targets = [round(factor * level, 2) for factor in (0.4, 0.6, 0.8, 1.0)]
    embedding = {"optim_lr": [0.05], "optim_iters": [20]}
    return {
        "batch_wise": product(
            rho=[5.0, 10.0], gamma=[3.0, 5.0, 8.0], adj_iters=[4], apply_cfg_step=[4]
        ),
        "per_sample": product(lr=[0.05], target_loss=targets, optim_iters=[100]),
        "static_transition": product(cfg_step=[4, 9, 14]),
        "dynamic_transition": product(drop=[0.0, 0.3], fallback_step=[15, 25]),
        "opposite_guidance": product(opposite_scale=[1.0, 2.0, 4.0], fallback_step=[15]),
        "prompt_embedding": product(optim_target_loss=targets[:3], **embedding),
        "bright_ending_embedding": product(optim_target_loss=targets[:3], **embedding),
        "anisotropy_embedding": product(
            optim_target_loss=targets[:3], cosine_weight=[1.0], **embedding
        ),
        "prss": product(l_target_ss=targets[1:3], l_target_pr=[2.0, 4.0], mag_thres_pr=[6.0]),
        "cross_attention": product(bos_scale=[1.25, 2.0, 3.0]),
        "ca_attenuation": product(attenuation=[0.3, 0.0], blocks=["early", "all"]),
        "guard": product(repulsion=[2.0, 5.0, 7.0], blocks=["early", "all"]),
        "clip_padding": [
            {"padding": "exclamation", "mask_end": 1},
            {"padding": "end", "mask_end": 0, "mask_padding": 0.7},
        ],
        "random_tokens": product(augment=["rand_word_add", "rand_numb_add"], repeat_num=[2, 4]),
        "embedding_noise": product(rand_noise_lam=[0.5, 1.0, 2.0]),
        "captain_noise": product(reference=["./../../reference.png"], cutoff=[0.1, 0.3]),
        "stability_regions": product(statistics=["./stability.json"], gamma_sd=[2.0, 3.0]),
        "sail": product(l_thres=targets[1:3], alpha=[0.0], max_steps=[20], restarts=[2]),
    }
