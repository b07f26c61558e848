"""Checkpoints with random weights of the real architectures, in the published files' formats;
pictures; run folders.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import memorization_suite.download.assets
from memorization_suite.runs import Key, RunFolder
from tests.reference.image_reward import random_state
from tests.reference.sscd_model import random_sscd, save_scripted

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "square",
    "blue",
    "circle",
    "two",
    "green",
    "ring",
    "the",
    "great",
    "wave",
]


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Colored patches with sharp edges. size: width, height."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def nothing_downloaded(tmp_path, monkeypatch):
    """What a user has fetched may not change a test."""
    monkeypatch.setattr(memorization_suite.download.assets, "ROOT", tmp_path / "nothing_here")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def sscd_model():
    return random_sscd(0)


@pytest.fixture(scope="session")
def sscd_file(checkpoints, sscd_model):
    path = checkpoints / "sscd_disc_mixup.torchscript.pt"
    save_scripted(sscd_model, path)
    return path


class Patches(torch.nn.Module):
    """A cheap TorchScript model in SSCD's place: coarse pixels minus their mean. Other pictures are
    near 0, copies near 1.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, 192), of unit length."""
        coarse = torch.nn.functional.adaptive_avg_pool2d(x, (8, 8)).flatten(1)
        return torch.nn.functional.normalize(coarse - coarse.mean(1, keepdim=True))


@pytest.fixture(scope="session")
def patches_file(checkpoints):
    path = checkpoints / "patches.pt"
    torch.jit.script(Patches()).save(str(path))
    return path


@pytest.fixture(scope="session")
def clip_file(checkpoints):
    """open_clip's ViT-B-32, stored as float16."""
    import open_clip

    torch.manual_seed(0)
    path = checkpoints / "open_clip_model.safetensors"
    from safetensors.torch import save_file

    model = open_clip.create_model("ViT-B-32")
    save_file(
        {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path
    )
    return path


@pytest.fixture(scope="session")
def alexnet_file(checkpoints):
    """torchvision's AlexNet: its convolutions have the real shapes, the classifier, which LPIPS
    does not use, is left small.
    """
    from torchvision.models import alexnet

    torch.manual_seed(0)
    state = {
        name: tensor
        for name, tensor in alexnet(weights=None).state_dict().items()
        if name.startswith("features.")
    }
    path = checkpoints / "alexnet-owt-7be5be79.pth"
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture(scope="session")
def reward_state():
    """ImageReward's keys and widths, with two layers in each tower."""
    return random_state(0, vision_layers=2, text_layers=2)


@pytest.fixture(scope="session")
def reward_file(checkpoints, reward_state):
    path = checkpoints / "ImageReward.pt"
    torch.save(reward_state, path)
    return path


@pytest.fixture(scope="session")
def tokenizer_folder(checkpoints):
    """A BERT tokenizer of a few words in the hub's files."""
    folder = checkpoints / "bert-base-uncased"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    )
    return folder


CAPTIONS = ["a red square", "two green ring", "the great wave", "a blue circle"]


@pytest.fixture
def run(tmp_path):
    """A finished run of four prompts with three images each; prompts 0 and 1 share a training
    image, prompt 3 has none.
    """
    prompts = tmp_path / "four.csv"
    rows = "\n".join(
        f"{i};{caption};{'VM' if i < 2 else 'TM'};{100 + i}" for i, caption in enumerate(CAPTIONS)
    )
    prompts.write_text(f";Caption;type;Index\n{rows}\n")
    for index, seeds in {100: [900], 101: [900, 901], 102: [902, 903]}.items():
        (tmp_path / "gt" / str(index)).mkdir(parents=True)
        for k, seed in enumerate(seeds):
            picture(seed, (60, 50)).save(tmp_path / "gt" / str(index) / f"{k}.png")
    return make_run(tmp_path / "runs" / "no_mitigation" / "g7_seed2", prompts, seed=0)


def make_run(path, prompts, *, seed: int, samples: int = 3) -> RunFolder:
    """Writes a run's files through the run folder itself."""
    folder = RunFolder(path)
    from memorization_suite.runs.files import sha256_of

    identity = {"prompts_sha256": sha256_of(prompts), "n_samples_per_prompt": samples, "seed": 2}
    folder.prepare(identity)
    folder.start(identity, config={"prompts": str(prompts), "model_id": "somewhere/else"})
    rows = []
    for prompt, caption in enumerate(CAPTIONS):
        for sample in range(samples):
            key = Key(prompt, sample)
            folder.save_image(key, picture(1000 * seed + 10 * prompt + sample))
            rows.append({**key.columns, "prompt": caption, "finite": 1})
    folder.add("all", images=rows)
    folder.finish(images=4 * samples, of=4 * samples)
    return folder
