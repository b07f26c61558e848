"""Stand-ins for what download/ fetches: the published layout and architectures, random weights.

Stable Diffusion 1.4 is its folder with narrow layers and 64 pixels; ImageReward has two layers a
tower; LPIPS' AlexNet lacks the classifier that nothing reads. What the official scores do not need
is a few bytes.
"""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import save_file

from memorization_suite.runs.files import sha256_of
from tests.metrics.conftest import WORDS, picture
from tests.reference.image_reward import random_state
from tests.reference.sscd_model import random_sscd, save_scripted
from tests.stable_diffusion.model import write_model

# Of the prompt file; prompts 0 and 1 share a training image, the last one has none.
INDICES = [7, 8, 31, 44, 102, 103, 215, 216, 300, 301, 402, 499]
CAPTIONS = [f"a red square and {count} green ring, the great wave" for count in range(12)]
TYPES = ["VM", "TM", "RV", "N"]
Make = Callable[[Path], Any]


def write_prompts(path: Path) -> None:
    """The official layout: `;Caption;URL;type;mean_sscd;max_sscd;Index`."""
    lines = [";Caption;URL;type;mean_sscd;max_sscd;Index"]
    for row, (caption, index) in enumerate(zip(CAPTIONS, INDICES)):
        address = f"https://example.org/{index}.jpg"
        lines.append(f"{row};{caption};{address};{TYPES[row % 4]};0.71;0.93;{index}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_lines(path: Path) -> None:
    """A prompt a line."""
    path.write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")


def write_table(path: Path) -> None:
    """The layout of the prompt files of Hintersdorf et al."""
    lines = [f"{row};{caption}" for row, caption in enumerate(CAPTIONS)]
    path.write_text("\n".join([";Caption", *lines]) + "\n", encoding="utf-8")


def write_data_set(folder: Path) -> None:
    """Splits of a data set of prompts as the hub has them."""
    import pandas

    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table = pandas.DataFrame({"Prompt": [f"{caption}, {split}" for caption in CAPTIONS]})
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")


def write_training_images(path: Path) -> None:
    """The archive: `sdv1_500_mem_groundtruth/gt_images/<Index>/<number>.png`."""
    with zipfile.ZipFile(path, "w") as archive:
        for row, index in enumerate(INDICES[:-1]):
            name = f"sdv1_500_mem_groundtruth/gt_images/{index}/00.png"
            with archive.open(name, "w") as file:
                picture(max(row, 1), (60, 50)).save(file, format="png")


def write_sscd(path: Path) -> None:
    """ResNet-50 as TorchScript."""
    save_scripted(random_sscd(0), path)


def write_clip(folder: Path) -> None:
    """open_clip's ViT-B-32, stored as float16."""
    import open_clip

    state = open_clip.create_model("ViT-B-32").state_dict()
    halved = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_file(halved, folder / "open_clip_model.safetensors")


def write_alexnet(path: Path) -> None:
    """torchvision's AlexNet, its convolutions alone."""
    from torchvision.models import alexnet

    state = alexnet(weights=None).state_dict()
    torch.save({name: state[name] for name in state if name.startswith("features.")}, path)


def write_image_reward(folder: Path) -> None:
    """Two layers in each tower, float16."""
    state = random_state(0, vision_layers=2, text_layers=2)
    halved = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    torch.save(halved, folder / "ImageReward.pt")


def write_tokenizer(folder: Path) -> None:
    """BERT's four files, with a few words."""
    import transformers

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    settings = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


DATA_SET = "Gustavosta/Stable-Diffusion-Prompts"
# Asset -> what writes it: the file, the archive, or the files of a repository into a folder.
MADE: dict[str, Make] = {
    "sd14": lambda folder: write_model(folder, CAPTIONS),
    "memorized_laion_prompts": write_prompts,
    "unmemorized_laion_prompts": write_table,
    "coco2014_val_10000": write_table,
    "sd1_mem": write_lines,
    "sd1_nmem": write_lines,
    "sdv1_500_mem_groundtruth": write_training_images,
    "sscd_disc_mixup": write_sscd,
    "clip_vit_b_32_laion2b": write_clip,
    "lpips_alexnet": write_alexnet,
    "image_reward": write_image_reward,
    "bert_base_uncased": write_tokenizer,
}


def write_stand_ins(folder: Path, table: Path) -> None:
    """Everything that the table of assets names, and a data set, as hosts.py serves them."""
    write_data_set(folder / "hub" / DATA_SET)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, entry in tomllib.loads(table.read_text(encoding="utf-8")).items():
            place = place_of(name, entry, folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry["kind"] != "hub":
                write = MADE.get(name, lambda path: path.write_text("not read by the test"))
                write(place)
            elif name in MADE:
                place.mkdir()
                MADE[name](place)
            else:
                for file in entry["files"]:
                    (place / file).parent.mkdir(parents=True, exist_ok=True)
                    (place / file).write_text("not read by the test")


def place_of(name: str, entry: dict, folder: Path) -> Path:
    """Where hosts.py finds it."""
    if entry["kind"] == "hub":
        return folder / "hub" / entry["repo"]
    if "url" not in entry:
        return folder / "web" / "drive" / f"{name}.zip"
    address = urlsplit(entry["url"])
    return folder / "web" / f"{address.netloc}{address.path}"


def changed_table(table: Path, folder: Path, url: str) -> str:
    """The table of assets with the stand-ins' addresses, sizes and checksums.

    A checksum that nobody published stays unknown.
    """
    lines = []
    for name, entry in tomllib.loads(table.read_text(encoding="utf-8")).items():
        place = place_of(name, entry, folder)
        if entry["kind"] == "hub":
            files = {
                file: sha256_of(place / file) if known else ""
                for file, known in entry["files"].items()
            }
            entry |= {"files": files, "size": sum((place / file).stat().st_size for file in files)}
        else:
            entry.pop("drive", "")
            entry["url"] = f"{url}/{place.relative_to(folder / 'web').as_posix()}"
            entry["size"] = place.stat().st_size
            if "sha256" in entry:
                entry["sha256"] = sha256_of(place)
        lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in entry.items())]
    return "\n".join(lines) + "\n"


def toml(value) -> str:
    """A text, a number, or a table of them as TOML."""
    if isinstance(value, dict):
        inner = (f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return "{ " + ", ".join(inner) + " }"
    return json.dumps(value)
