"""Jeon et al., ICML 2025: SAIL, Algorithm 2 and as its official code runs it, told in loops.
Imports nothing of the suite.

Euler's scaling does not occur here: DDIM reads latents as they are.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves


def length(x: torch.Tensor) -> torch.Tensor:
    """L2 norm over everything."""
    return (x**2).sum().sqrt()


def conditional(unet, x: torch.Tensor, t: int, pair: torch.Tensor, v_model: bool) -> torch.Tensor:
    """Difference of the halves for one latent, (1, 4, h, w), in units of noise. pair: (2, 77, dim),
    unconditional first.
    """
    uncond, text = both_halves(unet, x, t, pair)
    return (text - uncond) * (math.sqrt(alpha_bars()[t]) if v_model else 1.0)


def one_noise(
    unet,
    start: torch.Tensor,
    t: int,
    pair: torch.Tensor,
    *,
    lr: float,
    max_steps: int,
    threshold: float,
    alpha: float,
    delta: float,
    paper: bool,
    stop_gradient: bool,
    v_model: bool,
) -> list[tuple[torch.Tensor, float]]:
    """(iterate, loss) of one noise (1, 4, h, w), up to the first with loss <= threshold, at most
    max_steps of them.
    """
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=lr)
    sigma = math.sqrt(1 - alpha_bars()[t])
    history = []
    for _ in range(max_steps):
        e = conditional(unet, x, t, pair, v_model)
        score = -e / sigma
        direction = score / length(score) if paper else e / length(e)
        if stop_gradient:
            direction = direction.detach()
        e_probe = conditional(unet, x + delta * direction, t, pair, v_model)
        loss = (
            length(-e_probe / sigma - score) ** 2 + alpha * length(x) ** 2
            if paper
            else length(e_probe) + alpha * length(x)
        )
        history.append((x.detach().clone(), float(loss.detach())))
        if float(loss.detach()) <= threshold:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.zero_grad(set_to_none=True)
    return history


def own_noise(
    unet, noises: list[torch.Tensor], t: int, pair: torch.Tensor, *, threshold: float, **settings
) -> dict:
    """One image: its own noise, then fresh ones, in the order of `noises`; the first accepted
    iterate, else the one with the least loss.
    """
    best = {"loss": math.inf}
    updates = 0
    for attempt, start in enumerate(noises):
        limit = threshold + 0.1 * (attempt // 3)
        history = one_noise(unet, start, t, pair, threshold=limit, **settings)
        updates += len(history) - 1
        for x, loss in history:
            if loss <= limit or loss < best["loss"]:
                best = {"x": x, "loss": loss, "attempt": attempt}
        if history[-1][1] <= limit:
            return best | {"updates": updates, "restarts": attempt, "reached": True}
    return best | {"updates": updates, "restarts": len(noises) - 1, "reached": False}


def official_pool(
    unet,
    t: int,
    stacked: torch.Tensor,
    *,
    wanted: int,
    shape: tuple[int, int, int],
    seed: int,
    budget: int,
    lr: float,
    max_steps: int,
    threshold: float,
    alpha: float,
    v_model: bool,
    most_rounds: int,
    aliased: bool,
) -> list[torch.Tensor]:
    """Noises (4, h, w) for the images of one prompt. stacked: (2 budget, 77, dim), unconditional
    half first.

    As the code does it: the first call of every step reads the candidates as they were drawn, and
    hands the gradient on to them as they are; a network that predicts v is read as if it predicted
    the image; a candidate is stored when its loss first is low enough, and goes on; a new round
    begins with the same seed, every third with a higher threshold and a seed drawn from the
    generator as it stands.

    aliased: what is stored is a view of the candidates, so that the optimizer moves it too, to the
    end of its round; else it is a copy.
    """
    kept: list[torch.Tensor] = []
    a = math.sqrt(alpha_bars()[t])
    s = math.sqrt(1 - alpha_bars()[t])
    for rounds in range(most_rounds):
        torch.manual_seed(seed)
        x = torch.randn((budget, *shape), requires_grad=True)
        drawn = torch.cat([x, x])  # a copy of the values, with a way back for gradients
        optimizer = torch.optim.Adam([x], lr=lr)
        stored = [False] * budget
        for _ in range(max_steps):
            out = unet(drawn, t, encoder_hidden_states=stacked).sample
            noise = (drawn - a * out) / s if v_model else out
            difference = noise[budget:] - noise[:budget]
            norms = (difference**2).flatten(1).sum(1).sqrt()
            probe = x + difference / norms[:, None, None, None]
            twice = torch.cat([probe, probe])
            out = unet(twice, t, encoder_hidden_states=stacked).sample
            noise = (twice - a * out) / s if v_model else out
            losses = []
            for b in range(budget):
                losses.append(length(noise[budget + b] - noise[b]) + alpha * length(x[b]))
            for b in range(budget):
                if float(losses[b].detach()) <= threshold and not stored[b]:
                    stored[b] = True
                    view = x[b].detach()
                    kept.append(view if aliased else view.clone())
            if len(kept) >= wanted:
                unet.zero_grad(set_to_none=True)
                return [one.clone() for one in kept[:wanted]]
            sum(losses).backward()
            optimizer.step()
            optimizer.zero_grad()
        if (rounds + 1) % 3 == 0:
            threshold += 0.1
            seed = int(torch.randint(0, 50000, (1,)))
    unet.zero_grad(set_to_none=True)
    return kept
