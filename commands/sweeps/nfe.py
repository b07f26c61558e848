"""NFE of an image before it is made, from the texts in which methods and detectors say their cost.

    "4M + 2N - (k + 1), M adjustments, k = --apply_cfg_step"
    "2N + 2J and J backward passes, J updates; 2N without any"

A text begins with a sum of letters. N are the sampler's steps; the other letters are named in the
text, are flags, or are told by `Mitigation.letters` and `Mitigation.most`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.hints import speeds
from memorization_suite.detection.base import Detector
from memorization_suite.mitigation.base import Ahead, Mitigation
from memorization_suite.pipelines.kinds import Unknown, reader
from memorization_suite.pipelines.models import kind_of, resolve_model

# Guidance of a step runs the image with and without its prompt.
GUIDED = "2N"
# Letters of steps without guidance. --trace runs both halves of these, too.
UNGUIDED = {"U": 0, "k": -1}
# Of a model that does not tell how many timesteps it was trained with.
TRAIN_STEPS = 1000


@dataclass(frozen=True)
class Evaluations:
    """What an image takes, at most where a note says so."""

    # NFE.
    network: float
    # Backward passes through the network.
    backward: float = 0.0
    # What was assumed, in words.
    notes: tuple[str, ...] = ()

    def __add__(self, other: Evaluations) -> Evaluations:
        notes = self.notes + other.notes
        return Evaluations(self.network + other.network, self.backward + other.backward, notes)


def evaluations(plan: Plan) -> Evaluations:
    """Of an image of a planned run; of several methods the sum of what each adds to guidance.

    With --screen every image is taken to be flagged.
    """
    ahead = ahead_of(plan)
    methods = getattr(plan.mitigation, "methods", (plan.mitigation,))
    guided = value_of(GUIDED, {"N": len(ahead.timesteps)})
    total = Evaluations(guided * (1 - len(methods)))
    for method in methods:
        total += of_method(method, ahead, trace=plan.settings.trace)
    if plan.screen is not None:
        total += of_detector(plan.screen.detector, ahead)
    if plan.settings.guidance_scale in (0, 1):
        total += Evaluations(0, 0, ("at most: this guidance scale saves a half of many steps",))
    return total


def ahead_of(plan: Plan) -> Ahead:
    """What is known of the run."""
    captions = sum(len(prompt.alternatives) for prompt in plan.prompts)
    return Ahead(timesteps_of(plan), captions / len(plan.prompts))


def timesteps_of(plan: Plan) -> tuple[float, ...]:
    """The sampler's timesteps as diffusers spaces them: Euler's from end to end, else DDIM's."""
    settings = plan.settings
    count = settings.num_inference_steps
    try:
        trained = kind_of(settings.model_id, settings.unet_id).train_steps or TRAIN_STEPS
    except Unknown:
        trained = TRAIN_STEPS
    if sampler_of(settings.scheduler, settings.model_id).startswith("euler"):
        pause = (trained - 1) / max(1, count - 1)
        return tuple(trained - 1 - i * pause for i in range(count))
    return tuple(i * (trained // count) + 1.0 for i in reversed(range(count)))


def sampler_of(scheduler: str, model_id: str) -> str:
    """Its name in small letters: that of --scheduler, for `keep` what the model's files say."""
    if scheduler != "keep":
        return scheduler
    try:
        told = reader(resolve_model(model_id))("scheduler/scheduler_config.json")
    except Unknown:
        return scheduler
    return str(told.get("_class_name", scheduler)).lower()


def of_method(method: Mitigation, ahead: Ahead, *, trace: bool) -> Evaluations:
    """Of an image with one method. Where images decide, it is what `hints.speeds` was measured
    with, else the most.
    """
    fixed = {"N": len(ahead.timesteps), **letters_in(method), **method.letters(ahead)}
    if trace:
        fixed |= UNGUIDED
    most = method.most(ahead)
    typical = speeds()["typical"].get(method.name, {})
    assumed = {letter: min(number, typical.get(letter, number)) for letter, number in most.items()}
    notes = []
    for letter, number in assumed.items():
        named = re.search(rf", {letter} ([a-z][^,;]*)", method.cost)
        if named and number and letter in typical:
            notes.append(f"{named[1]}: {number:.4g} an image assumed")
        elif named and number:
            notes.append(f"{named[1]}: at most {number:.4g} an image")
    return evaluations_of(method, fixed | assumed, tuple(notes))


def of_detector(detector: Detector, ahead: Ahead) -> Evaluations:
    """Of the detector that screens an image."""
    known = {"N": len(ahead.timesteps), **letters_in(detector)}
    note = f"every image is taken to be flagged by {detector.name}"
    return evaluations_of(detector, known, (note,))


def evaluations_of(
    part: Mitigation | Detector, known: Mapping[str, float], notes: tuple[str, ...]
) -> Evaluations:
    """By the text of its cost; plain guidance's, with a note, where that is no sum of these."""
    try:
        network = value_of(formula_of(clause_of(part)), known)
        return Evaluations(network, value_of(backward_of(part.cost), known), notes)
    except ValueError as error:
        plain = value_of(GUIDED, known)
        return Evaluations(plain, 0, (f"its cost {part.cost!r}: {error}; {GUIDED} assumed",))


def letters_in(part: Mitigation | Detector) -> dict[str, float]:
    """`K = --num_steps` in the text of its cost: the letter, and the flag's number."""
    told = re.findall(r"\b([A-Za-z]) = --(\w+)", part.cost)
    found = {letter: getattr(part, name, None) for letter, name in told}
    return {letter: number for letter, number in found.items() if number is not None}


def clause_of(part: Mitigation | Detector) -> str:
    """The part of the text that is true: `4N - 2 with --masked 1` where masked is 1, else the
    first one.
    """
    first, *others = part.cost.split("; ")
    for clause in others:
        condition = re.search(r" with --(\w+) (\d+)$", clause)
        if condition and getattr(part, condition[1], None) == int(condition[2]):
            return clause
    return first


def formula_of(cost: str) -> str:
    """The sum at the begin of a cost."""
    return re.split(r",|;| and | with | \([a-z]{2}", cost)[0]


def backward_of(cost: str) -> str:
    """The sum of its backward passes."""
    told = re.search(r" and (\w+) backward pass", cost)
    return told[1] if told else "0"


def value_of(formula: str, letters: Mapping[str, float]) -> float:
    """A sum of numbers and letters, `2N - (k + 1)`. Raises ValueError for another text."""
    text = re.sub(r"(\d)(?=[A-Za-z])", r"\1 * ", formula)
    try:
        return walked(ast.parse(text, mode="eval").body, letters)
    except SyntaxError as error:
        raise ValueError(f"{formula!r} is no sum") from error


def walked(node: ast.expr, letters: Mapping[str, float]) -> float:
    """The value of a part of it. Raises ValueError."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=letter) if letter in letters:
            return letters[letter]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return walked(left, letters) + walked(right, letters)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return walked(left, letters) - walked(right, letters)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return walked(left, letters) * walked(right, letters)
    raise ValueError(f"{ast.unparse(node)!r} is no sum of {', '.join(letters)}")
