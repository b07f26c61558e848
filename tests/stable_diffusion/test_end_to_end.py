"""README's commands for Stable Diffusion, typed into a shell, on stand-ins of what is fetched."""

import csv
import os
import re
import shutil
from dataclasses import replace

import pytest

from tests.documents import (
    ROOT,
    VARIABLES,
    Block,
    Copy,
    blocks_of,
    documents,
    read_document,
)
from tests.preloaded import preloaded
from tests.stable_diffusion.hosts import serving
from tests.stable_diffusion.stand_ins import CAPTIONS, INDICES, changed_table, write_stand_ins

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
# How a command begins -> what is added to it, so that it takes seconds.
SMALL = "--end 2 -n 2 --num_inference_steps 6 --image_length 64"
ADDED = {
    r"generate_images\.py": SMALL,
    r"generate_images\.py .*--per_sample": "--optim_iters 5",
    r"sweep\.py": SMALL,
    r"detect_memorization\.py --": f"{SMALL} --nonmem_count 4",
}
# What a library warns of (`runs/library_warnings.py`).
WARNED = re.compile(
    r"^(diffusers|transformers|torch\w*|PIL|open_clip|huggingface_hub|lpips): ", re.M
)
TABLE = ROOT / "download" / "assets.toml"
METHODS = ("no_mitigation", "batch_wise", "per_sample")
OFFICIAL = ("sscd", "clip_gen", "clip_gt", "lpips", "image_reward")
HEADLINES = (
    "Mean SSCD score: ",
    "Mean CLIP score (gt): ",
    "Mean CLIP score (gen): ",
    "LPIPS mean :  ",
    "Mean Image-reward (gen, Overall): ",
)


def smaller(block: Block) -> Block:
    """The block with ADDED behind its commands, before their comments."""
    text = block.text
    for begin, flags in ADDED.items():
        pattern = rf"^(python {begin}[^#\n]*[^#\s])"
        text = re.sub(pattern, rf"\1 {flags}", text, flags=re.M)
    return replace(block, text=text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the checkout whose assets are the stand-ins'."""
    folder = tmp_path_factory.mktemp("stable_diffusion")
    write_stand_ins(folder / "hosts", TABLE)
    with serving(folder / "hosts") as (url, _):
        hub = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "cache")}
        more = hub | dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1")
        with preloaded(os.environ | VARIABLES | more) as python:
            made = Copy(folder, more=more, python=python)
            table = changed_table(TABLE, folder / "hosts", url)
            (made.folder / "download" / "assets.toml").write_text(table, encoding="utf-8")
            yield made
    shutil.rmtree(folder)


def run_downloads(copy: Copy, name: str) -> dict[str, str]:
    """Command -> what it said, of a document's blocks that need what is fetched.

    Of blocks before them the commands are run that only make files.
    """
    outputs = {}
    for block in read_document(ROOT / name):
        if not block.is_shell or block.mark == "slow":
            continue
        is_asked = block.mark == "download"
        for outcome in copy.run(smaller(block) if is_asked else without_programs(block)):
            print(outcome)
            assert outcome.code == 0, f"{outcome}\n{outcome.tail(30)}"
            if is_asked:
                outputs[outcome.command] = outcome.output
    return outputs


def without_programs(block: Block) -> Block:
    """The block's commands that need neither Python nor make: printf, mkdir, cp."""
    texts = [command.text for command in block.commands]
    plain = [text for text in texts if not re.search(r"\b(python|make|accelerate)\b", text)]
    return replace(block, text="\n".join(plain))


@pytest.fixture(scope="module")
def said(copy):
    """Of README.md."""
    return run_downloads(copy, "README.md")


def typed(copy: Copy, command: str, code: int = 0) -> str:
    """What one more command says."""
    (outcome,) = copy.run(blocks_of(f"```sh\n{command}\n```\n", "typed")[0])
    assert outcome.code == code, outcome.tail(30)
    return outcome.output


def test_before_anything_is_fetched_it_is_said_what_is_missing(copy):
    told = typed(copy, "python generate_images.py --model_id models/sd14 --end 10", code=2)
    assert "python download/fetch.py" in told and told.count("\n") == 1
    told = typed(copy, "python download/fetch.py --check sd14 metrics", code=1)
    assert "missing" in told and "whole" not in told


def test_readme_commands_need_nothing_else(said):
    assert any("fetch.py" in command for command in said)
    for command, output in said.items():
        for word in ("is not here", "is not computed", "Traceback", "Warning"):
            assert word not in output, f"{command}\n{output}"
        assert not WARNED.search(output), f"{command}\n{output}"


def test_what_was_fetched_is_whole(copy, said):
    (fetch,) = [command for command in said if "fetch.py" in command]
    names = fetch.split("fetch.py")[1].split("#")[0]
    told = typed(copy, f"python download/fetch.py --check {names}")
    assert "missing" not in told and "broken" not in told


def runs(copy: Copy) -> dict:
    """Method -> its run folder."""
    found = [path.parent for path in copy.folder.glob("*/**/images.csv")]
    return {path.parent.name: path for path in found if "twins" not in path.parts}


def test_the_official_commands_make_three_runs(copy, said):
    assert set(runs(copy)) == set(METHODS)
    for folder in runs(copy).values():
        names = {path.name for path in folder.glob("img_*.png")}
        assert names == {f"img_000{row}_0{sample}.png" for row in range(2) for sample in range(2)}
        config = (folder / "config.json").read_text()
        assert '"model_id": "models/sd14"' in config and "memorized_laion_prompts.csv" in config


def test_every_image_has_the_official_scores(copy, said):
    for folder in runs(copy).values():
        with open(folder / "results.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for quantity in OFFICIAL:
            values = [row for row in rows if row["quantity"] == quantity]
            assert len(values) == (2 if quantity == "clip_gt" else 4), quantity
            # The checkpoints are known to be the published ones.
            assert all("@" not in row["variant"] for row in values), values[0]


def test_the_official_lines_are_printed(copy, said):
    told = "".join(said.values())
    if "compute_" not in "".join(said):  # a sweep scores without them
        names = "sscd clip lpips image_reward"
        script = "metrics/compute_sscd_orig_clip_score.py"
        told = typed(
            copy, f"python {script} --gen_folder {runs(copy)['batch_wise']} --metrics {names}"
        )
    for line in HEADLINES:
        assert re.search(rf"^{re.escape(line)}-?\d", told, re.M), line


def test_the_page_shows_runs_scores_and_training_images(copy, said):
    (page,) = [path for path in copy.folder.rglob("*.html") if "report" in path.name]
    text = page.read_text(encoding="utf-8")
    for word in (*METHODS, *OFFICIAL, CAPTIONS[0], CAPTIONS[1]):
        assert word in text
    assert text.count("data:image/") >= 2 + 3 * 4  # training images, then the runs' images
    assert not re.search(r"""(src|href)=["']?https?:""", text)


def test_training_images_are_found_by_the_index_of_the_prompt_file(copy, said):
    folder = copy.folder / "sdv1_500_mem_groundtruth" / "gt_images"
    assert {path.name for path in folder.iterdir()} == set(map(str, INDICES[:-1]))
    for run in runs(copy).values():
        with open(run / "references.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["index"] for row in rows] == ["7", "8"]
        assert [row["references"] for row in rows] == ["1", "1"]


def test_one_file_does_the_same(copy, said):
    """experiments/sweeps/sd14.toml makes the same images."""
    flags = f"--output_path twins --no_scores --quiet {SMALL}"
    typed(copy, f"python sweep.py experiments/sweeps/sd14.toml {flags}")
    for method, folder in runs(copy).items():
        (twin,) = (copy.folder / "twins" / method).iterdir()
        for path in folder.glob("img_*.png"):
            assert path.read_bytes() == (twin / path.name).read_bytes()


OTHERS = []
for path in documents():
    if path != ROOT / "README.md" and "```sh download" in path.read_text(encoding="utf-8"):
        OTHERS.append(path.relative_to(ROOT).as_posix())


# What cannot be run as printed, until it is changed.
@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_documents_run_on_what_was_fetched(copy, said, name):
    """In a place where no run lies yet."""
    for folder in ("generated_images", "detections"):
        shutil.rmtree(copy.folder / folder, ignore_errors=True)
    assert run_downloads(copy, name)
