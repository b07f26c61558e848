"""The scores that need no download, on pictures with a known answer: the embedded models' training
images.
"""

import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter

from memorization_suite import tiny
from memorization_suite.experiments.make_realism import broken
from memorization_suite.metrics.base import METRICS, Job, Scoring
from memorization_suite.metrics.copy_score import CopyScore
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.metrics.feature_diversity import diversity
from memorization_suite.metrics.image_features import EfficientNet, image_features
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.realism import realism
from memorization_suite.metrics.runs import Group, Run
from memorization_suite.metrics.scores import FeatureScore, NearestReference
from memorization_suite.metrics.subject import (
    logits_of,
    probe,
    subject_logits,
    subject_probability,
)
from memorization_suite.prompts.files import Prompt

CAPTIONS = read_captions(tiny.prompts("tiny"))
VM, TM = ([caption for caption in CAPTIONS if caption.kind == kind] for kind in ("VM", "TM"))


def picture_of(image: Image.Image) -> Picture:
    made = Picture(tiny.FOLDER)
    made.decoded = image
    return made


def reference_of(caption, k: int = 0) -> Image.Image:
    return Image.open(sorted((tiny.GT_IMAGES / caption.index).glob("*.png"))[k]).convert("RGB")


def jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=75)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def shifted(image: Image.Image) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 1), Image.Resampling.BICUBIC
    )


EDITS = {
    "itself": lambda image: image,
    "jpeg": jpeg,
    "shift": shifted,
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(0.6)),
}


def scores_of(metric: str):
    """What a metric computes for a run of tiny."""
    prompts = tiny.prompts("tiny")
    run = Run(Path(), prompts, prompts=[], files={}, model_id="tiny")
    job = Job(Scoring(gen_folder=Path(), device="cpu"), {}, run, tiny.GT_IMAGES)
    return job.metric(METRICS[metric]).scores(job)


def values(score, group):
    score.prepare([group])
    return list(score.values(group).values())


@pytest.mark.parametrize(
    "score",
    [CopyScore(), NearestReference("feature_similarity", EfficientNet())],
    ids=lambda score: score.quantity,
)
def test_edited_copies_are_nearer_than_any_other_picture(score):
    chosen = VM[::5]
    own, others = {edit: [] for edit in EDITS}, []
    for caption, stranger in zip(chosen, chosen[1:] + chosen[:1]):
        images = [change(reference_of(caption)) for change in EDITS.values()] + [
            reference_of(stranger)
        ]
        group = Group(
            Prompt(0, "a"),
            list(range(len(images))),
            [picture_of(image) for image in images],
            [picture_of(reference_of(caption))],
        )
        *edited, other = values(score, group)
        others.append(other)
        for edit, value in zip(EDITS, edited):
            own[edit].append(value)
    assert min(own["itself"]) > 0.9999
    edited = torch.tensor(own["jpeg"] + own["blur"] + own["shift"])
    assert (
        edited[:, None] > torch.tensor(others)[None]
    ).float().mean() > 0.98 and edited.median() > torch.tensor(others).median() + 0.3


def test_a_picture_that_is_like_one_of_several_references_scores_by_that_one():
    references = [reference_of(TM[0], k) for k in range(4)]
    group = Group(
        Prompt(0, "a"),
        [0],
        [picture_of(references[2])],
        [picture_of(image) for image in references],
    )
    assert values(CopyScore(), group)[0] > 0.999


def test_no_reference_no_copy_score():
    group = Group(Prompt(0, "a"), [0], [picture_of(reference_of(VM[0]))], [])
    assert (
        values(CopyScore(), group) == []
        and values(NearestReference("feature_similarity", EfficientNet()), group) == []
    )


# --- subjects


def test_the_true_caption_of_product_pictures_ranks_first():
    logits = subject_logits(torch.cat([caption.references()[:1] for caption in TM]))
    every = torch.stack([subject_probability(logits, [name]) for name in probe()[2]], 1)
    truth = torch.tensor([probe()[2].index(caption.subjects[0]) for caption in TM])
    assert (every.argmax(1) == truth).float().mean() > 0.9


def test_a_caption_of_two_needs_both():
    names = probe()[2]
    logits = torch.full((3, len(names)), -20.0)
    logits[0, [0, 1]] = torch.tensor([3.0, 3.0])
    logits[1, 0] = 3.0
    logits[2, 2] = 3.0
    pair, one = (subject_probability(logits, names[:n]) for n in (2, 1))
    assert pair[0] == pytest.approx(1, abs=1e-4) and pair[1] < 0.01 and pair[2] < 0.01
    assert one.tolist() == pytest.approx([0.5, 1, 0], abs=1e-4)


def test_subject_scores_of_a_group():
    features, caption = EfficientNet(), TM[0]
    group = Group(
        Prompt(caption.row, caption.text),
        [0, 1],
        [picture_of(reference_of(caption, k)) for k in range(2)],
        [],
    )
    probability, shown = scores_of("alignment")
    expected = subject_probability(
        logits_of(features.features([reference_of(caption, k) for k in range(2)])), caption.subjects
    )
    assert values(probability, group) == pytest.approx(expected.tolist(), abs=1e-5)
    assert values(shown, group) == (expected > 0.5).float().tolist()


# --- diversity, realism


def test_diversity_of_equal_like_and_different_pictures():
    sets = {
        "equal": [reference_of(VM[0])] * 3,
        "like": [reference_of(TM[0], k) for k in range(3)],
        "different": [reference_of(VM[k]) for k in range(3)],
    }
    found = {
        name: values(
            FeatureScore("feature_diversity", EfficientNet(), diversity),
            Group(Prompt(0, "a"), [0, 1, 2], [picture_of(image) for image in images], []),
        )
        for name, images in sets.items()
    }
    assert max(found["equal"]) < 1e-5 < min(found["like"]) and sum(found["like"]) < sum(
        found["different"]
    )
    assert values(
        FeatureScore("feature_diversity", EfficientNet(), diversity),
        Group(Prompt(0, "a"), [0], [picture_of(reference_of(VM[0]))], []),
    ) == [pytest.approx(math.nan, nan_ok=True)]


def test_training_pictures_are_more_real_than_broken_ones():
    real = torch.cat([caption.references()[:1] for caption in CAPTIONS[::3]])
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    scores, spoilt = realism(image_features(real)), broken(real)
    for worse in (
        (real + 0.25 * noise).clamp(0, 1),
        spoilt["pure noise"],
        spoilt["one color"],
        spoilt["8 pixels"],
        spoilt["scrambled"],
    ):
        assert (scores[:, None] > realism(image_features(worse))[None]).float().mean() > 0.85
    for worse in ((real + 0.25 * noise).clamp(0, 1), spoilt["pure noise"], spoilt["one color"]):
        assert (scores[:, None] > realism(image_features(worse))[None]).float().mean() > 0.95


def test_realism_of_a_group_is_that_of_its_pictures():
    images = [reference_of(VM[0]), reference_of(TM[0])]
    group = Group(Prompt(0, "a"), [0, 1], [picture_of(image) for image in images], [])
    (score,) = scores_of("quality")
    assert values(score, group) == pytest.approx(
        realism(image_features(to_tensor(images))).tolist(), abs=1e-4
    )
