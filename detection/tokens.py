"""Which tokens of a prompt pull at the noise: token-wise significance.

Wen et al., ICLR 2024, section 3.3.
"""

from __future__ import annotations

from functools import partial

from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.gradients import Parts
from memorization_suite.sampling.loop import steps
from memorization_suite.sampling.noise_predictor import row_norm

OFFICIAL = ("swapped",)


class Significance(GuidanceSchedule):
    """Guidance that differentiates the magnitude of each step by the prompt's embedding on the way.

    swapped: the images of each prompt, (k,) indices, for the official code's peculiarities; None
    without them.
    """

    def __init__(self, num_steps: int, swapped: list[torch.Tensor] | None):
        self.num_steps = num_steps
        self.swapped = swapped
        # Of each step, (n, tokens).
        self.norms: list[torch.Tensor] = []

    def combine(self, step: Step, prediction: Prediction) -> torch.Tensor:
        self.look(prediction)
        step.applied = step.guidance_scale
        if self.swapped is None:
            return prediction.guided(step.applied)
        return prediction.text + step.applied * (prediction.uncond - prediction.text)

    def on_step(self, step: Step, prediction: Prediction) -> None:
        """The loop ends with the last step before it is combined."""
        if step.index + 1 == self.num_steps:
            self.look(prediction)

    def look(self, prediction: Prediction) -> None:
        """One step's gradient norms.

        Two NFE an image, which the step uses too, and a backward pass through the text half, in
        parts of the size that memory allows; the images of a prompt with one norm are in one part.
        """
        prediction.need("uncond")
        items = torch.arange(len(prediction.x))
        kept = 1
        if self.swapped is not None:
            items = torch.arange(len(self.swapped))
            kept = max(len(group) for group in self.swapped)
        parts = Parts(prediction.predictor, 0, kept=kept, images_of=self.images_of)
        with prediction.predictor.model.frozen():
            made = parts.evaluate(partial(self.differentiate, prediction), items)
        place = torch.cat([images for images, _, _ in made]).argsort()
        prediction.halves["text"] = torch.cat([text for _, text, _ in made])[place]
        self.norms.append(torch.cat([norms for _, _, norms in made])[place])

    def images_of(self, items: torch.Tensor) -> torch.Tensor:
        """Indices of the images of these prompts, or of these images, ascending."""
        if self.swapped is None:
            return items
        return torch.cat([self.swapped[i] for i in items.tolist()]).sort().values

    def differentiate(
        self, prediction: Prediction, items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of a part: its images (k,), their text half (k, 4, h, w), gradient norms (k, tokens)."""
        images = self.images_of(items)
        # In the part.
        groups = []
        if self.swapped is not None:
            groups = [torch.searchsorted(images, self.swapped[i]) for i in items.tolist()]
        predictor = prediction.predictor.select(images)
        here = images.to(prediction.x.device)
        tokens = predictor.tokens("text")
        c = tokens.detach().float().requires_grad_()
        with torch.enable_grad():
            predictor.set_tokens("text", c.to(tokens.dtype))
            text = predictor.at(prediction.x[here], prediction.t).text
            magnitude = row_norm(text.float() - prediction.uncond[here].float())
            if groups:
                joint = [torch.linalg.vector_norm(magnitude[group]) for group in groups]
                magnitude = torch.stack(joint)
            (gradient,) = torch.autograd.grad(magnitude.sum(), c)
        for group in groups:
            # One embedding for all, averaged over 2n stacked rows.
            gradient[group] = gradient[group].sum(0) / (2 * len(group))
        return images, text.detach(), torch.linalg.vector_norm(gradient, dim=2)


@no_grad
def token_significance(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    guidance_scale: float,
    *,
    num_steps: int | None = None,
    groups: list[torch.Tensor] | None = None,
    official: str = "",
) -> torch.Tensor:
    """Mean over the first num_steps (None: all) of || d ||e(x, c) - e(x, "")|| / d c_i ||.

    (n, tokens) float32, begin token included. Each image for itself, along its guided trajectory; a
    prompt's score is the mean over its images. noise: (n, 4, h, w) of unit variance; the
    model's timesteps are set.

    official="swapped" repeats the official code: the two embeddings change places, so that guidance
    is reversed; the norm is joint over a prompt's images (groups: their indices, by default one
    prompt), the constant 1/(2n).

    Raises ValueError for another quirk or a number of steps that the sampler does not have.
    """
    total = len(predictor.model.timesteps)
    watched = total if num_steps is None else num_steps
    if not 1 <= watched <= total:
        raise ValueError(f"num_steps {watched} is not possible: the sampler has {total} steps")
    if official and official not in OFFICIAL:
        raise ValueError(f"official {official!r} is not possible; there are {', '.join(OFFICIAL)}")
    swapped = None
    if official:
        swapped = groups or [torch.arange(len(noise))]
    guidance = Significance(watched, swapped)
    steps(
        predictor,
        noise * predictor.model.initial_scale,
        Batch.of_captions([""] * len(noise)),
        guidance,
        guidance_scale,
        on_step=guidance.on_step,
        watched=watched,
    )
    return torch.stack(guidance.norms).mean(0)
