"""PRSS, prompt re-anchoring and semantic prompt search: Chen et al., CVPR 2025."""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.lazy import torch
from memorization_suite.mitigation.base import Mitigation, flag, quirks, register
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.bright_ending import look_ahead, masked_norm
from memorization_suite.sampling.noise_predictor import HALVES


@dataclass
class Found:
    """What the search knows of each image.

    alternative: which caption it took (0: the original), with its magnitude, its embedding and its
    step 0 (`known`); triggered: was the original's magnitude too large; tried: alternatives that
    were looked at; masks: what magnitudes are weighted with.
    """

    alternative: torch.Tensor
    magnitude: torch.Tensor
    embeds: torch.Tensor
    known: Prediction
    triggered: torch.Tensor
    tried: torch.Tensor
    masks: torch.Tensor | None


def measure(prediction: Prediction, masks: torch.Tensor | None) -> torch.Tensor:
    """||e(x, c) - e(x, "")|| of each image, with a mask ||(e(x, c) - e(x, "")) o m|| / mean(m),
    (n,).
    """
    return prediction.magnitude() if masks is None else masked_norm(prediction.conditional, masks)


class ReAnchored(GuidanceSchedule):
    """Guidance that points away from the original prompt e_0, towards the found e*, the more the
    larger the magnitude.

    For triggered images with magnitude above `low`: e_0 + s_pr (e* - e_0) + (s - s_pr) (e* -
    e_uncond), s_pr from 1 at `low` (where it is plain guidance with e*) to s at `high`. Others, and
    every image at guidance scales s up to 1: plain guidance with e*.
    Source: official code, which writes s_pr = min(s (mag - k) / (high - k), s) with k = (s low -
    high) / (s - 1).
    """

    def __init__(self, found: Found, low: float, high: float, masks: torch.Tensor | None):
        self.found, self.low, self.high, self.masks = found, low, high, masks
        self.steps = torch.zeros(len(found.triggered), dtype=torch.long)

    def combine(self, step: Step, pred: Prediction) -> torch.Tensor:
        scale = step.applied = step.guidance_scale
        noise = pred.guided(scale)
        if scale <= 1 or not self.found.triggered.any():
            return noise
        magnitude = measure(pred, self.masks)
        rows = (self.found.triggered & (magnitude.cpu() > self.low)).nonzero().flatten()
        if not len(rows):
            return noise
        self.steps[rows] += 1
        towards = (
            1 + (scale - 1) * ((magnitude[rows] - self.low) / (self.high - self.low)).clamp(max=1)
        ).reshape(-1, 1, 1, 1)
        original, found, uncond = (
            self.original(pred, rows).float(),
            pred.text[rows].float(),
            pred.uncond[rows].float(),
        )
        noise = noise.clone()
        noise[rows] = (
            original + towards * (found - original) + (scale - towards) * (found - uncond)
        ).to(noise.dtype)
        return noise

    def original(self, pred: Prediction, rows: torch.Tensor) -> torch.Tensor:
        """e(x, t, e_0) of these images; computed only for those that have another prompt now."""
        if "original" in pred.halves:
            return pred.halves["original"][rows]
        noise = pred.text[rows]
        other = self.found.alternative[rows] > 0
        if other.any():
            noise[other] = pred.predictor.select(rows[other]).run(
                pred.x[rows[other]], pred.t, ("original",)
            )[0]
        return noise

    def numbers(self) -> dict[str, torch.Tensor]:
        return {"reanchored_steps": self.steps}


@register(
    "prss",
    paper="Chen et al., CVPR 2025",
    cost="2N + A + R, A alternatives tried, R re-anchored steps after step 0 with an alternative; "
    "4N - 2 + A + R with --masked 1",
)
class Prss(Mitigation):
    """Takes the first caption of the same meaning whose magnitude is low enough, else the lowest,
    and guides away from the original one.

    Captions: the prompt file's caption1, caption2, ...; an image without any keeps its own and is
    re-anchored on it. Source: official code. Differs
    from it: magnitudes are of each image (official: joint over a prompt's images); e_uncond is
    computed once in the search and once a step, e_0 where it is used. --masked 1 is the paper's
    PRSS + BE, with the mask of a first run; --official plain_anchor: only in the search.
    """

    l_target_ss: float = flag(
        1.0, "search until the magnitude is at most this, epsilon units", short="ss", above=0.0
    )
    l_target_pr: float = flag(
        3.0, "L: re-anchor in steps with a larger magnitude than this", short="L", above=0.0
    )
    mag_thres_pr: float = flag(
        5.0,
        "H: from this magnitude on guidance points away from the original prompt only",
        short="H",
        above=0.0,
    )
    masked: bool = flag(
        False,
        "1: magnitudes where the image is memorized, by its Bright Ending mask",
        always_named=False,
    )
    official: str = quirks("plain_anchor")

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        masks, first = look_ahead(predictor, batch) if self.masked else (None, predictor.at(x, t))
        first.need(*HALVES)
        before, known = measure(first, masks), predictor.at(x, t)
        known.halves = first.halves | {"text": first.text.clone(), "original": first.text}
        triggered, none = (
            (torch.isfinite(before) & (before > self.l_target_ss)).cpu(),
            torch.zeros(len(x), dtype=torch.long),
        )
        found = Found(
            alternative=none,
            magnitude=before.clone(),
            embeds=predictor.embeds["text"].clone(),
            known=known,
            triggered=triggered,
            tried=none.clone(),
            masks=masks,
        )
        for j in range(max(len(captions) for captions in batch.alternatives)):
            self.attempt(j, predictor, found, batch)
        predictor.embeds |= {"text": found.embeds, "original": predictor.embeds["text"]}
        batch.state["prss"] = found
        batch.first = known
        return {
            "alternative": found.alternative,
            "alternatives_tried": found.tried,
            "triggered": found.triggered,
            "first_magnitude": before,
            "chosen_magnitude": found.magnitude,
            "reached": found.magnitude <= self.l_target_ss,
            "failed": ~torch.isfinite(before),
        }

    def attempt(self, j: int, predictor: NoisePredictor, found: Found, batch: Batch) -> None:
        """Tries the alternative with index j for the images that are still searching; `found` gets
        what is better.
        """
        searching = (
            found.triggered
            & (found.magnitude.cpu() > self.l_target_ss)
            & torch.tensor([len(one) > j for one in batch.alternatives])
        )
        rows = searching.nonzero().flatten()
        if not len(rows):
            return
        known, part = found.known, predictor.select(rows)
        part.embeds["text"] = batch.pipe.encode([batch.alternatives[i][j] for i in rows.tolist()])
        prediction = part.at(known.x[rows], known.t)
        prediction.halves["uncond"] = known.uncond[rows]
        magnitude = measure(prediction, None if found.masks is None else found.masks[rows])
        found.tried[rows] += 1
        better = (magnitude < found.magnitude[rows]).cpu()
        where = rows[better]
        found.alternative[where], found.magnitude[where] = j + 1, magnitude[better]
        found.embeds[where], known.halves["text"][where] = (
            part.embeds["text"][better],
            prediction.text[better],
        )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        found = batch.state["prss"]
        return ReAnchored(
            found, self.l_target_pr, self.mag_thres_pr, None if self.official else found.masks
        )

    def check(self, num_steps: int) -> None:
        if self.mag_thres_pr <= self.l_target_pr:
            raise ValueError(
                f"--mag_thres_pr {self.mag_thres_pr:g} must be above --l_target_pr "
                f"{self.l_target_pr:g}"
            )
