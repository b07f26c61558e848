"""Detectors of Wen, Ren, Chen (Bright Ending), Asthana and Carlini, one image at a time, in loops.
Imports nothing of the suite.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


@torch.no_grad()
def trajectory(unet, x, text, empty, num_steps, scale, before_step=None):
    """[(x, uncond, text)] of plain guidance; before_step(i) is called before each UNet call."""
    found = []
    bars = alpha_bars()
    for i, t in enumerate(ddim_timesteps(num_steps)):
        if before_step:
            before_step(i)
        e_empty, e_text = both_halves(unet, x, t, torch.cat([empty, text]))
        found.append((x, e_empty, e_text))
        x = ddim_step(x, e_empty + scale * (e_text - e_empty), t, num_steps, bars)
    return found


def norm(values: torch.Tensor) -> float:
    return math.sqrt(float((values.double() ** 2).sum()))


def noise_norm(steps, count: int) -> float:
    """Wen: mean of the first `count` magnitudes."""
    return sum(norm(text - empty) for _, empty, text in steps[:count]) / count


class Recorder:
    """Stands in for every cross-attention: keeps softmax(q k / sqrt(d)) of each call, as [(name,
    (rows, heads, queries, 77))].
    """

    def __init__(self, unet):
        self.calls = []
        self.unet = unet
        self.before = dict(unet.attn_processors)

    def __enter__(self):
        def processor(name):
            def run(
                attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
            ):
                rows, queries, _ = hidden_states.shape
                q = attn.to_q(hidden_states)
                k = attn.to_k(encoder_hidden_states)
                v = attn.to_v(encoder_hidden_states)
                size = q.shape[-1] // attn.heads
                outputs = []
                kept = []
                for h in range(attn.heads):
                    part = slice(h * size, (h + 1) * size)
                    a = torch.softmax(
                        torch.einsum("rqd,rtd->rqt", q[..., part], k[..., part]) / math.sqrt(size),
                        -1,
                    )
                    kept.append(a)
                    outputs.append(torch.einsum("rqt,rtd->rqd", a, v[..., part]))
                self.calls.append((name, torch.stack(kept, 1)))
                return attn.to_out[0](torch.cat(outputs, -1))

            return run

        self.unet.set_attn_processor(
            {name: processor(name) if "attn2" in name else own for name, own in self.before.items()}
        )
        return self

    def __exit__(self, *args):
        self.unet.set_attn_processor(dict(self.before))


def recorded(pipe, prompt, x, num_steps, scale):
    """(steps of the trajectory, attention of each step: [(name, (heads, queries, 77)) of the
    prompt's row]).
    """
    steps = []
    per_step = []
    with Recorder(pipe.unet) as recorder:

        def note(i):
            per_step.append(recorder.calls)
            recorder.calls = []

        steps = trajectory(
            pipe.unet,
            x,
            pipe.encode([prompt]).tokens,
            pipe.encode([""]).tokens,
            num_steps,
            scale,
            note,
        )
        per_step.append(recorder.calls)
    return steps, [[(name, a[1]) for name, a in calls] for calls in per_step[1:]]


def entropy(values) -> float:
    return -sum(float(a) * math.log(float(a)) for a in values if float(a) > 0)


def end_of(pipe, prompt: str) -> int:
    """Position of the end token among 77."""
    return min(len(pipe.tokenizer(prompt).input_ids), 77) - 1


def mean_attention(calls) -> list[float]:
    """Mean over layers of the mean over heads and queries: 77 numbers."""
    layers = [a.mean((0, 1)).tolist() for _, a in calls]
    return [sum(layer[k] for layer in layers) / len(layers) for k in range(77)]


def attention_entropy(pipe, prompt, x, num_steps, scale, absolute: bool) -> float:
    """Ren's D with the last fifth of the steps."""
    _, attention = recorded(pipe, prompt, x, num_steps, scale)
    end = end_of(pipe, prompt)
    tail = max(num_steps // 5, 1)
    first = entropy(mean_attention(attention[0])[end:])
    total = 0.0
    for calls in attention[num_steps - tail :]:
        a = mean_attention(calls)
        change = entropy(a[end:]) - first
        total += entropy(a) + (abs(change) if absolute else change)
    return total / tail


def layer_entropy(pipe, prompt, x, num_steps, layer: int) -> float:
    """Ren's E: the layer's attention at the first step."""
    _, attention = recorded(pipe, prompt, x, num_steps, 1.0)
    return entropy(attention[0][layer][1].mean((0, 1)).tolist())


def bright_ending(pipe, prompt, x, num_steps, scale) -> float:
    """First pass: the end token's attention in the finest down layers at the last step. Second
    pass: masked magnitudes over mean(m).
    """
    _, attention = recorded(pipe, prompt, x, num_steps, scale)
    down = [a for name, a in attention[-1] if name.startswith("down")]
    most = max(a.shape[1] for a in down)
    chosen = [a[:, :, end_of(pipe, prompt)].mean(0) for a in down if a.shape[1] == most]
    mask = sum(chosen) / len(chosen)
    mask = mask.reshape(1, 1, x.shape[-2], x.shape[-1])
    steps = trajectory(
        pipe.unet, x, pipe.encode([prompt]).tokens, pipe.encode([""]).tokens, num_steps, scale
    )
    return (
        sum(norm((text - empty) * mask) for _, empty, text in steps)
        / len(steps)
        / float(mask.mean())
    )


def anisotropy(pipe, prompt, x, num_steps, norm_weight, cosine_weight) -> float:
    """Magnitude at the first timestep, and mean cosine over pixels at the third last, on the same
    noise.
    """
    timesteps = ddim_timesteps(num_steps)
    stacked = torch.cat([pipe.encode([""]).tokens, pipe.encode([prompt]).tokens])
    with torch.no_grad():
        empty, text = both_halves(pipe.unet, x, timesteps[0], stacked)
        late_empty, late_text = both_halves(pipe.unet, x, timesteps[-3], stacked)
    total = 0.0
    _, channels, height, width = x.shape
    for r in range(height):
        for c in range(width):
            a = [float(late_empty[0, k, r, c]) for k in range(channels)]
            b = [
                float(late_text[0, k, r, c]) - float(late_empty[0, k, r, c])
                for k in range(channels)
            ]
            total += sum(p * q for p, q in zip(a, b)) / math.sqrt(
                sum(p * p for p in a) * sum(q * q for q in b)
            )
    return norm_weight * norm(text - empty) + cosine_weight * total / (height * width)


def tile_distance(a, b, parts: int) -> float:
    """Largest root mean square difference of corresponding tiles of two images, nested lists
    (3, H, W).
    """
    height = len(a[0]) // parts
    width = len(a[0][0]) // parts
    largest = 0.0
    for i in range(parts):
        for j in range(parts):
            total = sum(
                (a[k][r][c] - b[k][r][c]) ** 2
                for k in range(3)
                for r in range(i * height, (i + 1) * height)
                for c in range(j * width, (j + 1) * width)
            )
            largest = max(largest, math.sqrt(total / (3 * height * width)))
    return largest
