"""PRSS, prompt re-anchoring and semantic prompt search: Chen et al., CVPR 2025."""

from __future__ import annotations

from memorization_suite.detection.bright_ending import look_ahead, masked_norm
from memorization_suite.mitigation.base import Ahead, Mitigation, flag, quirks, register
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.noise_predictor import HALVES, per_image


def measure(prediction: Prediction, masks: torch.Tensor | None) -> torch.Tensor:
    """||e(x, c) - e(x, "")|| of each image, with a mask ||(e(x, c) - e(x, "")) o m|| / mean(m).

    (n,).
    """
    return prediction.magnitude() if masks is None else masked_norm(prediction.conditional, masks)


class PromptSearch:
    """Semantic prompt search: each image takes its first caption whose magnitude is at most the
    target, else the one with the lowest.

    chosen: the prediction at step 0, whose text half becomes that of the captions that are taken.
    masks: what magnitudes are weighted with.
    """

    def __init__(self, batch: Batch, chosen: Prediction, masks: torch.Tensor | None, target: float):
        n = len(batch)
        self.batch = batch
        self.masks = masks
        self.target = target
        self.first_magnitude = measure(chosen, masks)
        # Was the original's magnitude too large?
        too_large = self.first_magnitude > target
        self.triggered = (torch.isfinite(self.first_magnitude) & too_large).cpu()
        # How many alternatives were looked at.
        self.tried = torch.zeros(n, dtype=torch.long)

        # The caption that each image took (0: the original), with its magnitude, its conditioning
        # and its prediction.
        self.alternative = torch.zeros(n, dtype=torch.long)
        self.magnitude = self.first_magnitude.clone()
        self.conditioning = chosen.predictor.conditioning["text"]
        self.chosen = chosen

    def run(self) -> None:
        """Tries one alternative after the other."""
        alternatives = self.batch.alternatives
        for j in range(max(len(captions) for captions in alternatives)):
            has_one = torch.tensor([len(captions) > j for captions in alternatives])
            searching = self.triggered & (self.magnitude.cpu() > self.target) & has_one
            rows = searching.nonzero().flatten()
            if len(rows):
                self.attempt(j, rows)

    def attempt(self, j: int, rows: torch.Tensor) -> None:
        """Tries the alternative with index j for some of the images."""
        predictor = self.chosen.predictor.select(rows)
        captions = [self.batch.alternatives[i][j] for i in rows.tolist()]
        conditioning = predictor.model.encode(captions)
        predictor.conditioning["text"] = conditioning
        prediction = predictor.at(self.chosen.x[rows], self.chosen.t)
        prediction.halves["uncond"] = self.chosen.uncond[rows]
        magnitude = measure(prediction, None if self.masks is None else self.masks[rows])
        self.tried[rows] += 1

        better = (magnitude < self.magnitude[rows]).cpu()
        where = rows[better]
        self.alternative[where] = j + 1
        self.magnitude[where] = magnitude[better]
        taken = better.nonzero().flatten()
        self.conditioning = self.conditioning.with_rows(where, conditioning[taken])
        self.chosen.halves["text"][where] = prediction.text[better]

    def numbers(self) -> dict[str, torch.Tensor]:
        """Figures of each image."""
        return {
            "alternative": self.alternative,
            "alternatives_tried": self.tried,
            "triggered": self.triggered,
            "first_magnitude": self.first_magnitude,
            "chosen_magnitude": self.magnitude,
            "reached": self.magnitude <= self.target,
            "failed": ~torch.isfinite(self.first_magnitude),
        }


class ReAnchored(GuidanceSchedule):
    """Guidance that points away from the original prompt e_0, toward the found e*, the more the
    larger the magnitude.

    For triggered images with magnitude above `low`: e_0 + s_pr (e* - e_0) + (s - s_pr) (e* -
    e_uncond), s_pr from 1 at `low` (where it is plain guidance with e*) to s at `high`. Others, and
    every image at guidance scales s up to 1: plain guidance with e*.

    Source: official code, which writes s_pr = min(s (mag - k) / (high - k), s) with k = (s low -
    high) / (s - 1).
    """

    def __init__(self, search: PromptSearch, low: float, high: float, masks: torch.Tensor | None):
        self.triggered = search.triggered
        self.alternative = search.alternative
        self.low = low
        self.high = high
        self.masks = masks
        # Re-anchored steps of each image.
        self.steps = torch.zeros(len(search.triggered), dtype=torch.long)

    def combine(self, step: Step, pred: Prediction) -> torch.Tensor:
        s = step.guidance_scale
        step.applied = s
        noise = pred.guided(s)
        if s <= 1 or not self.triggered.any():
            return noise
        magnitude = measure(pred, self.masks)
        rows = (self.triggered & (magnitude.cpu() > self.low)).nonzero().flatten()
        if not len(rows):
            return noise
        self.steps[rows] += 1

        share = ((magnitude[rows] - self.low) / (self.high - self.low)).clamp(max=1)
        s_pr = per_image(1 + (s - 1) * share)
        e_0 = self.original(pred, rows).float()
        e = pred.text[rows].float()
        e_uncond = pred.uncond[rows].float()
        re_anchored = e_0 + s_pr * (e - e_0) + (s - s_pr) * (e - e_uncond)
        noise = noise.clone()
        noise[rows] = re_anchored.to(noise.dtype)
        return noise

    def original(self, pred: Prediction, rows: torch.Tensor) -> torch.Tensor:
        """e(x, t, e_0) of these images; computed only for those that have another prompt now."""
        if "original" in pred.halves:
            return pred.halves["original"][rows]
        noise = pred.text[rows]
        other = self.alternative[rows] > 0
        if other.any():
            predictor = pred.predictor.select(rows[other])
            (noise[other],) = predictor.run(pred.x[rows[other]], pred.t, ("original",))
        return noise

    def numbers(self) -> dict[str, torch.Tensor]:
        return {"reanchored_steps": self.steps}


@register(
    "prss",
    paper="Chen et al., CVPR 2025",
    cost="2N + A + R, A alternatives tried, R re-anchored steps after step 0 with an alternative; "
    "4N - 2 + A + R with --masked 1",
    code="chenchen-usyd/BE-PRSS",
    compared="equal at one image a prompt; official code: 4 NFE in a re-anchored step",
)
class Prss(Mitigation):
    """Takes the first caption of the same meaning whose magnitude is low enough, else the one with
    the lowest, and guides away from the original one.

    Captions: the prompt file's caption1, caption2, ... An image without any keeps its own and is
    re-anchored on it.

    Source: official code. Differs from it: magnitudes are of each image (official: joint over a
    prompt's images). e_uncond is computed once in the search and once a step, e_0 where it is used.
    --masked 1 is the paper's PRSS + BE, with the mask of a first run.
    """

    reads_alternatives = True

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
    official: str = quirks(
        plain_anchor="with --masked 1: the mask serves the search only, not the re-anchoring"
    )

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        first = predictor.at(x, t)
        masks = None
        if self.masked:
            masks, first = look_ahead(predictor, batch)
        first.need(*HALVES)
        chosen = predictor.at(x, t)
        chosen.halves = first.halves | {"text": first.text.clone(), "original": first.text}
        search = PromptSearch(batch, chosen, masks, target=self.l_target_ss)
        search.run()
        original = predictor.conditioning["text"]
        predictor.conditioning |= {"text": search.conditioning, "original": original}
        batch.state["prss"] = search
        batch.first = chosen
        return search.numbers()

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        search = batch.state["prss"]
        masks = None if self.official else search.masks
        return ReAnchored(search, self.l_target_pr, self.mag_thres_pr, masks)

    def most(self, ahead: Ahead) -> dict[str, float]:
        with_one = min(1.0, ahead.alternatives)
        return {"A": ahead.alternatives, "R": with_one * (len(ahead.timesteps) - 1)}

    def check(self, num_steps: int) -> None:
        if self.mag_thres_pr <= self.l_target_pr:
            raise ValueError(
                f"--mag_thres_pr {self.mag_thres_pr:g} must be above --l_target_pr "
                f"{self.l_target_pr:g}"
            )
