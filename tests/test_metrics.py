"""Scores of the embedded model's images, on its committed references: no network, no generated
image.
"""

import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from memorization_suite import tiny
from memorization_suite.commands.score import score
from memorization_suite.metrics import subject
from memorization_suite.metrics.copy_score import THRESHOLD, CopyScore, copy_scores
from memorization_suite.metrics.embedded import read_captions, subjects_of
from memorization_suite.metrics.image_features import image_features
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.intervals import is_copy
from memorization_suite.metrics.subject import (
    VARIANT,
    all_shown,
    likeliest_of_parts,
    probe,
    subject_logits,
    subject_shown,
)
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.table import Result, add_results, read_results

PIXELS = tiny.pixels()
PROMPTS = tiny.prompts("tiny")
CAPTIONS = read_captions(PROMPTS)
VM, TM, LM = (
    [caption for caption in CAPTIONS if caption.kind == kind] for kind in ("VM", "TM", "LM")
)


@pytest.fixture(scope="module")
def references() -> torch.Tensor:
    """The training image of every VM prompt, (n, 3, pixels, pixels)."""
    return torch.cat([caption.references() for caption in VM])


def pillow(change):
    """A change of tensors from a change of PIL images."""

    def changed(images):
        return to_tensor(
            change(Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()))
            for image in images
        )

    return changed


def jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=30)
    return Image.open(io.BytesIO(data.getvalue()))


def tint(*factors):
    return lambda images: images * torch.tensor(factors).reshape(1, 3, 1, 1)


# --- copy score


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x, id="itself"),
        pytest.param(lambda x: 0.6 * x, id="darker"),
        pytest.param(
            pillow(lambda image: ImageEnhance.Brightness(image).enhance(1.4)), id="brighter"
        ),
        pytest.param(lambda x: 0.5 * x + 0.25, id="contrast"),
        pytest.param(tint(1.0, 0.85, 0.7), id="tint"),
        pytest.param(
            lambda x: (x + torch.tensor([0.1, 0.0, -0.1]).reshape(1, 3, 1, 1)).clamp(0, 1),
            id="cast",
        ),
        pytest.param(lambda x: torch.roll(x, (1, 0), (2, 3)), id="shift1"),
        pytest.param(lambda x: torch.roll(x, (-1, 1), (2, 3)), id="shift11"),
        pytest.param(pillow(jpeg), id="jpeg30"),
        pytest.param(pillow(lambda image: image.filter(ImageFilter.GaussianBlur(1))), id="blur1"),
        pytest.param(
            lambda x: (
                x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            ).clamp(0, 1),
            id="noise",
        ),
    ],
)
def test_a_changed_copy_is_a_copy_and_another_picture_is_none(references, change):
    scores = copy_scores(change(references), references)
    own = scores.diag()
    assert scores.shape == (len(VM), len(VM)) and own.min() > THRESHOLD
    assert (scores - 2 * torch.diag(own)).max() < THRESHOLD


def test_the_score_of_a_picture_with_itself_is_one(references):
    assert torch.allclose(copy_scores(references, references).diag(), torch.ones(len(VM)))


def test_the_score_has_no_side_and_bounds(references):
    shape = references[:3].shape
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    scores = copy_scores(
        torch.cat([images, 1 - references[:3], torch.zeros_like(references[:1])]), references[:3]
    )
    assert (
        torch.isfinite(scores).all()
        and scores.abs().max() <= 1 + 1e-5
        and not is_copy(float(scores.max()), THRESHOLD)
    )


def test_the_size_of_a_picture_does_not_matter(references):
    large = torch.nn.functional.interpolate(references[:4], (256, 256), mode="nearest")
    assert torch.allclose(
        copy_scores(large, references), copy_scores(references[:4], references), atol=1e-5
    )


def test_rows_are_independent(references):
    together = copy_scores(references[:5], references)
    assert torch.allclose(
        together,
        torch.cat([copy_scores(references[i : i + 1], references) for i in range(5)]),
        atol=1e-6,
    )


@pytest.mark.parametrize("caption", LM[:4], ids=lambda caption: caption.group)
def test_a_mask_restricts_the_comparison(caption):
    images, mask = caption.references(), caption.mask()
    pairs = ~torch.eye(len(images), dtype=torch.bool)
    assert copy_scores(images, images, mask).min() > 0.99
    assert copy_scores(images, images)[pairs].min() < THRESHOLD
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert copy_scores(torch.where(mask, images, noise), images, mask).diag().min() > THRESHOLD
    assert copy_scores(torch.where(mask, noise, images), images, mask).diag().max() < THRESHOLD


def test_masked_regions_of_other_prompts_are_no_copies():
    for caption in LM:
        others = torch.cat([other.references()[:1] for other in LM if other.index != caption.index])
        assert copy_scores(others, caption.references(), caption.mask()).max() < THRESHOLD


@pytest.mark.parametrize(
    ("score", "verdict"), [(THRESHOLD, True), (THRESHOLD - 1e-6, False), (1.0, True), (-1.0, False)]
)
def test_a_copy_scores_at_least_the_threshold(score, verdict):
    assert is_copy(score, THRESHOLD) is verdict


# --- features, subjects


def test_features_have_unit_length_and_repeat(references):
    features = image_features(references[:4])
    assert features.shape == (4, 1280) and features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(4))
    assert torch.equal(image_features(references[:4]), features)
    assert torch.allclose(image_features(references[:4], batch_size=3), features, atol=1e-4)
    assert image_features(references[:0]).shape == (0, 1280)


def test_the_probe_knows_every_subject_of_the_prompts():
    known = set(probe()[2])
    for path in sorted((tiny.FOLDER / "prompts").glob("*.csv")):
        assert {subject for caption in read_captions(path) for subject in caption.subjects} <= known


def test_the_probe_recognizes_subjects_in_the_references(references):
    """A companion and a bold pattern make it hard, so the bounds are low: of all 40, 57 % at first
    place, 82 % among five; chance: 1 in 60.
    """
    chosen = slice(0, None, 3)
    subjects, order = (
        [caption.subjects[0] for caption in VM][chosen],
        subject_logits(references[chosen]).argsort(1, descending=True),
    )
    ranks = [
        order[i].tolist().index(probe()[2].index(subject)) for i, subject in enumerate(subjects)
    ]
    assert sum(rank == 0 for rank in ranks) / len(ranks) >= 0.4
    assert sum(rank < 5 for rank in ranks) / len(ranks) >= 0.6
    assert subject_shown(subject_logits(references[chosen]), subjects).tolist() == [
        rank == 0 for rank in ranks
    ]


def test_an_image_shows_all_subjects_that_are_the_likeliest_somewhere():
    names = probe()[2]
    likeliest = torch.tensor([[0, 0, 0, 1, 1], [1, 2, 0, 2, 2], [0, 0, 0, 0, 0]])
    assert all_shown(likeliest, names[1:2]).tolist() == [True, True, False]
    for pair in (names[:2], names[1::-1]):
        assert all_shown(likeliest, pair).tolist() == [True, True, False]


def test_parts_are_looked_at_alone(monkeypatch):
    """Of a picture of 3 x 3: corners of 2 x 2, halves of 2 x 3 and 3 x 2."""
    looked = []

    def logits(part):
        looked.append(part[0, 0].int().tolist())
        return torch.nn.functional.one_hot(torch.tensor([len(looked)]), 10)

    monkeypatch.setattr(subject, "subject_logits", logits)
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert likeliest_of_parts(image).tolist() == [[*range(1, 10)]]
    assert looked[1:5] == [[[0, 1], [3, 4]], [[1, 2], [4, 5]], [[3, 4], [6, 7]], [[4, 5], [7, 8]]]
    assert looked[5:7] == [[[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [6, 7, 8]]]
    assert looked[7:] == [[[0, 1], [3, 4], [6, 7]], [[1, 2], [4, 5], [7, 8]]]


def test_an_unknown_subject_is_told(references):
    with pytest.raises(ValueError, match="dragon"):
        subject_shown(subject_logits(references[:1]), ["dragon"])


# --- prompt files and scores of a run


def test_captions_of_a_prompt_file():
    assert [caption.row for caption in CAPTIONS] == list(range(len(CAPTIONS)))
    assert all(
        caption.references().shape == ({"VM": 1}.get(caption.kind, 6), 3, PIXELS, PIXELS)
        for caption in CAPTIONS
    )
    assert all((caption.mask() is not None) == (caption.kind == "LM") for caption in CAPTIONS)
    assert LM[0].mask().shape == (PIXELS, PIXELS) and LM[0].mask().dtype == torch.bool
    pairs = [
        caption
        for caption in read_captions(tiny.prompts("tiny", "ordinary_test"))
        if caption.group == "pair"
    ]
    assert pairs and all(len(caption.subjects) == 2 and not caption.kind for caption in pairs)


def test_another_prompt_file_is_refused(tmp_path):
    for text in ("", ";Caption\n0;a\n"):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match="no column 'subject'"):
            read_captions(tmp_path / "a.csv")


def fake_run(path: Path, chosen, pictures) -> RunFolder:
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    for caption in chosen:
        for k, image in enumerate(pictures(caption)):
            folder.save_image(
                Key(caption.row, k),
                Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()),
            )
    return folder


def scored(folder: Path, prompts: Path, samples: int) -> list[Result]:
    """The embedded model's own scores of a folder that does not say which model it is of."""
    known = {"gt_folder": tiny.GT_IMAGES, "masks": tiny.MASKS}
    metrics = ("copy", "alignment")
    table = score(folder, metrics, prompts=prompts, num_samples=samples, quiet=True, **known)
    return table.results


def test_a_run_of_references_is_copied_and_a_run_of_others_is_not(tmp_path):
    chosen, samples = [VM[0], VM[-1], TM[0], LM[0]], 2
    others = {VM[0].row: VM[1], VM[-1].row: VM[2], TM[0].row: TM[1], LM[0].row: LM[1]}
    runs = {
        "copies": lambda caption: caption.references().repeat(2, 1, 1, 1)[:samples],
        "others": lambda caption: others[caption.row].references().repeat(2, 1, 1, 1)[:samples],
    }
    for name, pictures in runs.items():
        folder = fake_run(tmp_path / "some_method" / name, chosen, pictures)
        results = scored(folder.path, PROMPTS, samples)
        scores = [result for result in results if result.quantity == "copy_score"]
        assert [(result.prompt_index, result.sample_index) for result in scores] == [
            (caption.row, k) for caption in chosen for k in range(samples)
        ]
        assert all(is_copy(result.value, THRESHOLD) == (name == "copies") for result in scores)
        assert {(result.run, result.method, result.variant) for result in scores} == {
            (name, name, CopyScore(masked=True).variant)
        }
        shown = {result.value for result in results if result.quantity == "subject_shown"}
        assert shown and shown <= {0.0, 1.0}
        assert [row.value for row in read_results(folder.path)] == pytest.approx(
            [result.value for result in results], rel=1e-5
        )


def test_an_ordinary_caption_has_no_copy_score(tmp_path):
    ordinary = tiny.prompts("tiny", "ordinary_test")
    pair = next(caption for caption in read_captions(ordinary) if caption.group == "pair")
    folder = fake_run(
        tmp_path / "m" / "r", [pair], lambda caption: torch.rand(1, 3, PIXELS, PIXELS)
    )
    results = scored(folder.path, ordinary, 1)
    names = [(result.quantity, result.variant) for result in results]
    assert names == [("subject_probability", VARIANT), ("subject_shown", VARIANT)]


def test_only_the_embedded_models_prompt_files_name_subjects(tmp_path):
    (tmp_path / "a.csv").write_text(";Caption\n0;a fox\n")
    assert subjects_of(tmp_path / "a.csv") == {} and subjects_of(PROMPTS)[0] == CAPTIONS[0].subjects


# --- the table


def result(value=0.5, **changes) -> Result:
    usual = {
        "run": "g7_seed2",
        "method": "m",
        "prompt_index": 1,
        "sample_index": 0,
        "quantity": "copy_score",
        "variant": "v",
        "value": value,
    }
    return Result(**usual | changes)


def test_results_of_the_same_identity_are_replaced(tmp_path):
    add_results(tmp_path, [result(0.25), result(0.5, sample_index=1)])
    add_results(
        tmp_path,
        [
            result(0.75),
            result(1.0, variant="w"),
            result(2.0, quantity="q"),
            result(3.0, prompt_index=0),
        ],
    )
    assert read_results(tmp_path) == [
        result(0.75),
        result(0.5, sample_index=1),
        result(1.0, variant="w"),
        result(2.0, quantity="q"),
        result(3.0, prompt_index=0),
    ]
    assert (tmp_path / "results.csv").read_text().splitlines()[
        0
    ] == "run,method,prompt_index,sample_index,quantity,variant,value"


def test_results_keep_odd_texts_and_numbers(tmp_path):
    odd = [
        result(math.inf, variant='a,"b";\nc'),
        result(-1e-9, variant="ü"),
        result(123456.0, quantity="q", method=""),
    ]
    add_results(tmp_path, odd)
    assert read_results(tmp_path) == odd and read_results(tmp_path / "nowhere") == []


def test_no_results_make_no_row(tmp_path):
    add_results(tmp_path, [])
    assert read_results(tmp_path) == []
