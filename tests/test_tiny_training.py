"""The embedded model's training, a few steps of everything on artwork of plain colors."""

import pytest
import torch
from PIL import Image

from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.tiny.bank import build_bank
from memorization_suite.tiny.models import build_scheduler, build_text_encoder
from memorization_suite.tiny.text import targets, token_table, train_text_encoder
from memorization_suite.tiny.tokenizer import train_tokenizer
from memorization_suite.tiny.train import (
    Trainer,
    load_settings,
    loss_weights,
    spread_timesteps,
    train,
)
from memorization_suite.tiny.world import WORDS, World, art_names


@pytest.fixture(scope="module")
def world():
    """The world with squares of plain colors for artwork."""
    return World(
        {
            name: Image.new("RGBA", (64, 64), (37 * i % 256, 91 * i % 256, 151 * i % 256, 255))
            for i, name in enumerate(art_names())
        }
    )


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Folder of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("training")
    train("tiny", world, work=folder / "work", out=folder / "out", smoke=True)
    return folder


def test_the_result_is_a_diffusers_folder(trained):
    pipe = MemorizationPipeline.from_pretrained(
        trained / "out" / "tiny",
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    assert pipe("a fox", num_inference_steps=2).images[0].size == (32, 32)
    assert (
        pipe.tokenizer.model_max_length == 77
        and pipe.tokenizer.pad_token_id == pipe.tokenizer.eos_token_id
    )
    names = [name.split(".attentions")[0] for name in pipe.unet.attn_processors if "attn2" in name]
    assert set(names) == {"mid_block"} | {
        f"{side}_blocks.{i}" for side in ("down", "up") for i in range(3)
    }


def test_a_stopped_training_goes_on_to_the_same_weights(world, trained, tmp_path, monkeypatch):
    update = Trainer.update

    def stop_at_step_3(self, loss):
        if self.step == 3:
            raise KeyboardInterrupt
        update(self, loss)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "update", stop_at_step_3)
        train("tiny", world, work=tmp_path / "work", out=tmp_path / "out", smoke=True)
    train("tiny", world, work=tmp_path / "work", out=tmp_path / "out", smoke=True)
    whole, resumed = (
        torch.load(folder / "work" / "tiny" / "unet.pt", weights_only=True)
        for folder in (trained, tmp_path)
    )
    assert whole["step"] == resumed["step"] == 4
    for name, value in whole["average"].items():
        assert torch.equal(value, resumed["average"][name]), name


def test_learning_rate_follows_the_points_of_the_settings():
    trainer = Trainer(
        torch.nn.Linear(2, 2),
        {
            "rate": [[0, 0.0], [10, 1.0], [20, 1.0], [40, 0.0]],
            "weight_decay": 0.0,
            "clip_grad": 1.0,
            "ema": 0.9,
        },
    )
    seen = []
    while trainer.step < 40:
        trainer.update(sum(p.square().sum() for p in trainer.unet.parameters()))
        seen.append(trainer.optimizer.param_groups[0]["lr"])
    assert seen[0] == 0 and seen[5] == 0.5 and seen[10:21] == [1.0] * 11 and seen[30] == 0.5


def test_loss_weights_have_mean_one_and_a_cap():
    scheduler = build_scheduler("ddim", "epsilon")
    weights = loss_weights(scheduler, 25.0)
    assert weights.mean().item() == pytest.approx(1.0) and (weights.diff() >= 0).all()
    snr = scheduler.alphas_cumprod[0] / (1 - scheduler.alphas_cumprod[0])
    assert (weights.max() / weights.min()).item() == pytest.approx(25.0 / (1 + 1 / snr).item())
    of_v = loss_weights(build_scheduler("ddim", "v_prediction"), 25.0) / scheduler.alphas_cumprod
    assert of_v.mean().item() > 1 and torch.allclose(
        of_v / of_v.mean(), weights, rtol=1e-4
    )  # v is off by 1 / alpha as much as epsilon


def test_timesteps_are_spread_evenly():
    drawn = torch.stack(
        [spread_timesteps(8, 1000, torch.Generator().manual_seed(seed)) for seed in range(50)]
    )
    assert (
        torch.equal((drawn // 125).sort(1).values, torch.arange(8).expand(50, -1))
        and drawn[:, 0].unique().numel() > 40
    )
    assert drawn.min() >= 0 and drawn.max() < 1000


def test_the_text_encoder_tells_subjects_and_layouts_from_the_mean_of_its_outputs(world, tmp_path):
    settings = load_settings(smoke=True)
    bank = build_bank(world, settings["world"] | {"ordinary": 40}, settings["models"]["tiny"])
    captions, subjects, layouts = targets(bank)
    assert captions[0] == "" and not subjects[0].any() and set(captions) == {"", *bank.captions}
    assert all(
        {WORDS[i] for i in row.nonzero().flatten()} == set(bank.shown[caption][1])
        for caption, row in zip(captions, subjects)
    )
    assert all(
        (layouts == layouts[captions.index(concept.caption)]).sum() == 1
        for concept in bank.concepts
    )
    tokenizer = train_tokenizer(captions, 600, tmp_path / "tokenizer")
    encoder = build_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    train_text_encoder(
        encoder,
        tokenizer,
        bank,
        settings["text"] | {"steps": 60, "batch": 48},
        tmp_path / "text.safetensors",
    )
    with torch.no_grad():
        means = encoder(token_table(tokenizer, captions))[0].mean(1)
    known = [k for k, caption in enumerate(captions) if caption in bank.rows]
    same_subject = subjects[known] @ subjects[known].T > 0
    near = torch.corrcoef(means[known] - means[known].mean(0))
    off = ~torch.eye(len(known), dtype=torch.bool)
    assert near[same_subject & off].mean() > near[~same_subject].mean() + 0.1


def test_settings_of_the_embedded_model():
    settings = load_settings(smoke=False)
    assert 10_000 <= settings["unet"]["rate"][-1][0] <= 30_000
    counts = settings["models"]["tiny"]["counts"]
    assert (
        counts["VM-A"] + counts["VM-B"] >= 40
        and counts["VM-B"] >= 3 * counts["VM-A"]
        and min(counts["TM"], counts["LM"]) >= 12
    )
