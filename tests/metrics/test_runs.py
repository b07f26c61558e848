"""What is scored: images matched by key, references counted, broken input named."""

import json
import shutil

import pytest
from PIL import Image

from memorization_suite.metrics import runs
from memorization_suite.metrics.pictures import Picture, read_mask
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import check_equal, open_run, unlike
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs import Key
from tests.metrics.conftest import CAPTIONS, make_run, picture


@pytest.fixture
def gt(run):
    return run.path.parents[2] / "gt"


def prompts_of(run):
    return run.path.parents[2] / "four.csv"


def groups_of(run, gt, **options):
    chunks = open_run(run.path, **options).groups(References(gt))
    return [group for _, chunk in chunks for group in chunk]


def test_images_are_matched_by_key(run, gt):
    groups = groups_of(run, gt)
    assert [group.prompt.caption for group in groups] == CAPTIONS and all(
        group.samples == [0, 1, 2] for group in groups
    )
    assert [picture.path.name for picture in groups[2].pictures] == [
        f"img_0002_0{k}.png" for k in range(3)
    ]


def test_a_table_of_another_program_is_its_own(run, gt):
    """Without a manifest, images.csv need not be one of ours."""
    (run.path / "manifest.json").unlink()
    (run.path / "images.csv").write_text("name,score\nimg_0000_00.png,1\n")
    assert len(groups_of(run, gt)) == 4


def test_keys_beyond_four_digits_are_in_order(run, gt):
    names = [f"img_{Key(0, sample)}.png" for sample in range(3, 101)]
    for name in names:
        shutil.copy(run.image_path(Key(0, 0)), run.path / name)
    assert groups_of(run, gt, incomplete=True)[0].samples == list(range(101))


def test_a_chunk_has_about_so_many_images_and_forgets_its_pixels(run, gt, monkeypatch):
    monkeypatch.setattr(runs, "CHUNK", 6)
    chunks = list(open_run(run.path).groups(References(gt)))
    assert [(number, len(chunk)) for number, chunk in chunks] == [(0, 2), (1, 2)]
    assert all(
        picture.decoded is None and not picture.features
        for _, chunk in chunks
        for group in chunk
        for picture in group.pictures + group.references
    )


def test_files_of_the_same_content_are_one_picture(run, gt):
    first, second = groups_of(run, gt)[:2]
    assert first.references[0] is second.references[0] and len(second.references) == 2


def test_only_the_first_samples(run, gt):
    assert all(group.samples == [0] for group in groups_of(run, gt, num_samples=1))


# --- references


def test_missing_and_broken_references_are_counted_and_named(run, gt):
    whole = (gt / "102" / "0.png").read_bytes()
    (gt / "102" / "0.png").write_bytes(whole[: len(whole) // 2])
    (gt / "102" / "1.png").write_text("no picture")
    references = References(gt)
    list(open_run(run.path).groups(references))
    report = "\n".join(references.report())
    assert "2 of 4 prompts" in report
    assert (
        "prompt 2 (102)" in report
        and "0.png is no whole picture" in report
        and "1.png is no whole picture" in report
    )
    assert "prompt 3 (103): no image in" in report and "prompt 0" not in report
    assert references.coverage[1].row() | {"sha256": ""} == {
        "prompt_index": 1,
        "caption": CAPTIONS[1],
        "index": "101",
        "type": "VM",
        "references": 2,
        "sha256": "",
        "mask_sha256": "",
        "problem": "",
    }


def test_one_broken_reference_leaves_the_others(run, gt):
    (gt / "101" / "0.png").write_bytes(b"")
    references = References(gt)
    assert (
        len(references.of(Prompt(1, "a", "101"))) == 1 and "0.png" in references.coverage[1].problem
    )


def test_many_problems_are_summed_up(gt):
    references = References(gt)
    for row in range(30):
        references.of(Prompt(row, "a", "not_there"))
    assert len(references.report()) == 22 and "10 more" in references.report()[-1]


INDICES_OF_NOTHING = ["../gt/100", "100/../100", "/etc", "..", ".", "a b", "100\n"]


@pytest.mark.parametrize("index", [*INDICES_OF_NOTHING, "..\\100", "C:x", ".git", "a\0"])
def test_an_index_is_never_a_path(gt, index):
    references = References(gt)
    assert references.of(Prompt(0, "a", index)) == [] and references.coverage[0].problem


def test_a_prompt_without_an_index_has_no_reference_and_no_problem(gt):
    references = References(gt)
    assert references.of(Prompt(0, "a", "", "VM")) == [] and references.report() == []
    assert references.coverage[0].row()["type"] == "VM" and not references.coverage[0].problem


def test_what_is_no_picture_is_told_apart_from_none(run, gt):
    """*No image* is said only where there is none."""
    references = References(gt)
    for path in (gt / "102").iterdir():
        path.unlink()
    told = []
    for names in ([], [".DS_Store", "._0.png", "Thumbs.db"], ["0.heic", "notes.txt"], ["0.png"]):
        for name in names:
            (gt / "102" / name).write_bytes(b"")
        references = References(gt)
        references.of(Prompt(2, "a", "102"))
        told.append(references.coverage[2].problem)
    assert told[0] == told[1] == f"no image in {gt / '102'}: it is empty"
    assert "that Pillow reads: it holds 0.heic, notes.txt;" in told[2]
    assert "0.png is no whole picture (it is empty)" in told[3] and "no image in" not in told[3]
    references.of(Prompt(3, "a", "103"))
    assert references.coverage[3].problem.endswith("there is no such folder")


def test_two_broken_files_of_equal_content_are_told_apart(gt):
    for index in ("100", "102"):
        (gt / index / "0.png").write_bytes(b"same")
    references = References(gt)
    for row, index in enumerate(("100", "102")):
        references.of(Prompt(row, "a", index))
        assert f"{index}/0.png" in references.coverage[row].problem


def test_a_mask_must_mark_something(tmp_path):
    Image.new("L", (8, 8), 100).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="marks nothing"):
        read_mask(tmp_path / "mask.png")
    Image.new("L", (8, 8), 200).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") > 0.5).all()


# --- runs that cannot be scored


def refused(match, *args, **options):
    with pytest.raises(ValueError, match=match):
        open_run(*args, **options)


def test_no_folder_no_images_a_foreign_image(run, tmp_path):
    refused("is no folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for prompts in (None, prompts_of(run)):
        refused("no images", tmp_path / "empty", prompts)
    (run.path / "montage.png").write_bytes(b"")
    refused("montage.png is no image of a run", run.path)


def test_another_prompt_file(run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(CAPTIONS[::-1]))
    refused("another prompt file", run.path, other)


def test_a_prompt_file_that_is_too_short_for_a_run_without_a_manifest(run, tmp_path):
    (run.path / "manifest.json").unlink()
    (tmp_path / "two.txt").write_text("a\nb\n")
    refused("only 2 prompts", run.path, tmp_path / "two.txt")


def test_images_of_another_program_need_only_the_prompt_file(run, gt):
    (run.path / "manifest.json").unlink()
    (run.path / "config.json").unlink()
    refused("give --prompts", run.path)
    assert len(open_run(run.path, prompts_of(run)).files) == 12


def test_a_broken_config_or_manifest(run):
    (run.path / "config.json").write_text("{")
    refused("config.json is no configuration", run.path)
    (run.path / "manifest.json").write_text("[]")
    refused("no manifest of a run", run.path)


def test_an_unfinished_run(run):
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"finished": None}))
    refused("not finished", run.path)
    assert len(open_run(run.path, incomplete=True).files) == 12


def test_missing_images(run):
    run.image_path(Key(1, 2)).unlink()
    refused("lacks 1 images of 3 a prompt, first img_0001_02.png", run.path)
    refused("lacks", run.path, num_samples=4)
    assert (
        len(open_run(run.path, num_samples=2).files) == 8
        and len(open_run(run.path, incomplete=True).files) == 11
    )


def test_a_run_of_a_range_is_complete(run):
    for sample in range(3):
        run.image_path(Key(3, sample)).unlink()
    refused("lacks 3 of the 12 images that the run made", run.path)
    run.finish(images=9, of=12)
    assert len(open_run(run.path).files) == 9


def test_two_files_of_one_image(run):
    shutil.copy(run.image_path(Key(0, 0)), run.path / "img_0_0.png")
    refused("are both image 0000_00", run.path)


def test_runs_of_other_seeds_or_prompts_are_not_compared(run, tmp_path):
    other = make_run(tmp_path / "runs" / "no_mitigation" / "g7_seed3", prompts_of(run), seed=0)
    assert unlike(run.path, other.path) == ""
    manifest = json.loads((other.path / "manifest.json").read_text())
    for value, told in ((3, "seed 2 and 3"), (2, "")):
        (other.path / "manifest.json").write_text(
            json.dumps(manifest | {"identity": manifest["identity"] | {"seed": value}})
        )
        assert told in unlike(run.path, other.path) and bool(unlike(run.path, other.path)) == bool(
            told
        )


def test_a_broken_image_is_named(run, gt):
    run.image_path(Key(2, 1)).write_bytes(b"no picture")
    with pytest.raises(ValueError, match="img_0002_01.png is no PNG"):
        groups_of(run, gt)


def test_the_unmitigated_run_must_have_every_image(run, tmp_path):
    other = make_run(
        tmp_path / "runs" / "no_mitigation" / "g7_seed3", prompts_of(run), seed=0, samples=2
    )
    with pytest.raises(ValueError, match="has no img_0000_02.png"):
        check_equal(open_run(run.path), open_run(other.path))


def test_a_picture_is_decoded_once(tmp_path):
    picture(0).save(tmp_path / "a.png")
    one = Picture(tmp_path / "a.png")
    assert one.image is one.image
    one.release()
    assert one.decoded is None and one.image.size == (48, 40)
