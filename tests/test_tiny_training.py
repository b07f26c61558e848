"""The embedded model's training, a few steps of everything on artwork of plain colors."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from memorization_suite import tiny
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.tiny.autoencoder import (
    Pictures,
    crops,
    decoder_loss,
    encode_bank,
    errors_by_kind,
    picture_loss,
)
from memorization_suite.tiny.bank import build_bank
from memorization_suite.tiny.diffusion import (
    Batch,
    Trainer,
    diffusion_loss,
    loss_weights,
    spread_timesteps,
)
from memorization_suite.tiny.fit import fit
from memorization_suite.tiny.models import (
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
)
from memorization_suite.tiny.text import targets, train_text_encoder
from memorization_suite.tiny.tokenizer import train_tokenizer
from memorization_suite.tiny.train import load_settings, train, unet_settings
from memorization_suite.tiny.world import WORDS, World, art_names

CONFIG = tiny.FOLDER / "config.toml"
SMOKE = load_settings(CONFIG, smoke=True)
PIXELS = SMOKE["world"]["pixels"]


def trained_in(folder, world, settings=SMOKE):
    """Trains the smallest model in the folder."""
    train(
        "tiny",
        world,
        settings,
        work=folder / "work",
        out=folder / "out",
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def world():
    """The world with squares of plain colors for artwork."""
    return World(
        {
            name: Image.new("RGBA", (64, 64), (37 * i % 256, 91 * i % 256, 151 * i % 256, 255))
            for i, name in enumerate(art_names())
        },
        PIXELS,
    )


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Folder of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("training")
    trained_in(folder, world)
    return folder


def test_the_result_is_a_diffusers_folder(trained):
    pipe = MemorizationPipeline.from_pretrained(
        trained / "out" / "tiny",
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    assert pipe("a fox", num_inference_steps=2).images[0].size == (PIXELS, PIXELS)
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

    def stop_at_step_3(self, gradients):
        if self.step == 3:
            raise KeyboardInterrupt
        update(self, gradients)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "update", stop_at_step_3)
        trained_in(tmp_path, world)
    trained_in(tmp_path, world)
    whole, resumed = (
        torch.load(folder / "work" / "tiny" / "unet.pt", weights_only=True)
        for folder in (trained, tmp_path)
    )
    assert whole["step"] == resumed["step"] == 4
    for name, value in whole["average"].items():
        assert torch.equal(value, resumed["average"][name]), name


def test_a_sheet_of_pictures_is_written_with_its_captions(trained):
    sheet = Image.open(trained / "work" / "tiny" / "sheet_00004.png")
    captions = (trained / "work" / "tiny" / "sheet_00004.txt").read_text().splitlines()
    assert sheet.size == (5 * (PIXELS + 2), len(captions) * (PIXELS + 2))
    assert len(set(captions)) == len(captions) >= 15


def test_a_restart_goes_on_from_the_averaged_weights_in_half_precision(world, tmp_path):
    settings = SMOKE | {"unet": SMOKE["unet"] | {"restarts": [2]}}
    whole, kept = tmp_path / "whole", tmp_path / "kept"
    trained_in(whole, world, settings)
    work = whole / "work" / "tiny"
    halves = load_file(work / "unet_2.safetensors")
    assert {value.dtype for value in halves.values()} == {torch.float16}
    # What a repository keeps: no checkpoint.
    (kept / "work" / "tiny").mkdir(parents=True)
    for name in ("unet_2", "vae", "text_encoder"):
        shutil.copy(work / f"{name}.safetensors", kept / "work" / "tiny")
    trained_in(kept, world, settings)
    first, second = (
        torch.load(folder / "work" / "tiny" / "unet.pt", weights_only=True)
        for folder in (whole, kept)
    )
    assert first["step"] == second["step"] == 4
    for name, value in first["average"].items():
        assert torch.equal(value, second["average"][name]), name


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("memorization_suite.tiny.fit.CHECKPOINT_EVERY", 2)
    settings = {"lr": 0.1, "steps": 7}

    def fitted(checkpoint, stop_at=None):
        module = torch.nn.Linear(3, 1)
        torch.nn.init.ones_(module.weight)
        torch.nn.init.zeros_(module.bias)

        def loss_at(step):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            return module(x).square().mean()

        fit("line", module, loss_at, settings=settings, warm_up=0.3, checkpoint=checkpoint)
        return module.weight

    whole = fitted(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "stopped.pt", stop_at=5)
    assert torch.equal(fitted(tmp_path / "stopped.pt"), whole)


def test_errors_of_the_autoencoder_are_told_for_every_kind(world, trained):
    bank = build_bank(world, SMOKE["world"], SMOKE["models"]["tiny"])
    vae = build_vae(SMOKE["vae"]["channels"])
    vae.load_state_dict(load_file(trained / "work" / "tiny" / "vae.safetensors"))
    errors = errors_by_kind(vae, bank, torch.device("cpu"))
    assert list(errors) == ["ordinary", "VM", "TM", "LM"]
    assert all(0 < error < 0.6 for error in errors.values())


def test_latents_of_pictures_with_a_caption_have_unit_variance(world, tmp_path):
    bank = build_bank(world, SMOKE["world"], SMOKE["models"]["tiny"])
    vae = build_vae(SMOKE["vae"]["channels"])
    latents = encode_bank(vae, bank, tmp_path / "latents.safetensors", torch.device("cpu"))
    uncaptioned = bank.rows["uncaptioned"]
    assert len(latents) == len(bank.captions) and len(uncaptioned) == 8
    assert {bank.captions[row] for row in uncaptioned} == {""}
    assert latents[: uncaptioned[0]].std().item() == pytest.approx(1, abs=1e-4)


def test_noisy_latents_teach_the_decoder_alone():
    torch.manual_seed(0)
    vae = build_vae(SMOKE["vae"]["channels"])
    x = 2 * torch.rand(2, 3, PIXELS, PIXELS) - 1
    settings = SMOKE["vae"]
    plain = picture_loss(vae.decode(vae.encode(x).latent_dist.mean).sample, x, settings)
    losses = [
        decoder_loss(vae, x, settings | {"noise": noise}, torch.Generator().manual_seed(0))
        for noise in (0.0, 0.5)
    ]
    assert losses[0].item() == pytest.approx(plain.item()) != losses[1].item()
    losses[1].backward()
    assert all(parameter.grad is None for parameter in vae.encoder.parameters())
    assert all(parameter.grad is not None for parameter in vae.decoder.parameters())


def test_every_memorized_caption_is_shown_equally_often():
    # Pictures of one pixel whose value tells where they come from: 0, then a caption each.
    varied = np.zeros((50, 1, 1, 3), np.uint8)
    memorized = [
        np.full((variants, 1, 1, 3), 1 + i, np.uint8) for i, variants in enumerate((1, 99))
    ]
    shown = Pictures(varied, memorized)
    rng = np.random.default_rng(0)
    values = shown.draw(rng, {"memorized": 0.25, "batch": 4000})[:, 0, 0, 0]
    counts = np.bincount(values)
    assert counts[0] == 3000
    assert counts[1:] == pytest.approx(500, abs=80)
    assert not shown.draw(rng, {"memorized": 0.0, "batch": 16}).any()


def test_crops_are_squares_of_their_pictures():
    pictures = np.arange(2 * 8 * 8 * 3, dtype=np.int64).reshape(2, 8, 8, 3)
    squares = crops(pictures, 4, np.random.default_rng(0))
    assert squares.shape == (2, 4, 4, 3)
    for square, picture in zip(squares, pictures):
        top, left = np.argwhere(picture[..., 0] == square[0, 0, 0])[0]
        assert np.array_equal(square, picture[top : top + 4, left : left + 4])


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
        trainer.update([2 * p.detach() for p in trainer.unet.parameters()])
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


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gradients_of_parts_are_those_of_the_whole(prediction_type):
    torch.manual_seed(0)
    unet = build_unet()
    x0, noise = torch.randn(2, 4, 4, 16, 16)
    t = torch.tensor([10, 400, 700, 990])
    batch = Batch(x0, torch.randn(4, 77, 128), t, noise, torch.tensor([0.5, 1.0, 1.5, 1.0]))
    scheduler = build_scheduler("ddim", prediction_type)
    parameters = list(unet.parameters())
    loss = diffusion_loss(unet, scheduler, batch)
    whole = torch.autograd.grad(loss, parameters)
    losses = [diffusion_loss(unet, scheduler, part) for part in batch.parts(2)]
    parts = [torch.autograd.grad(each, parameters) for each in losses]
    assert loss.item() == pytest.approx(sum(losses).item() / 2, rel=1e-5)
    for expected, *of_parts in zip(whole, *parts):
        assert torch.allclose(sum(of_parts) / 2, expected, rtol=1e-3, atol=1e-6)


def test_timesteps_are_spread_evenly():
    drawn = torch.stack(
        [spread_timesteps(8, 1000, torch.Generator().manual_seed(seed)) for seed in range(50)]
    )
    assert (
        torch.equal((drawn // 125).sort(1).values, torch.arange(8).expand(50, -1))
        and drawn[:, 0].unique().numel() > 40
    )
    assert drawn.min() >= 0 and drawn.max() < 1000


def test_the_text_encoder_learns_subjects_their_order_and_layouts(world, tmp_path, monkeypatch):
    settings = SMOKE
    bank = build_bank(world, settings["world"] | {"ordinary": 40}, settings["models"]["tiny"])
    captions, subjects, order, layouts = targets(bank)
    assert captions[0] == "" and not subjects[0].any() and set(captions) == {"", *bank.captions}
    assert all(
        {WORDS[i] for i in row.nonzero().flatten()} == set(bank.shown[caption][1])
        for caption, row in zip(captions, subjects)
    )
    for caption, places in zip(captions, order.tolist()):
        shown = list(bank.shown[caption][1])
        assert [WORDS[place] for place in places if place < len(WORDS)] == shown
    assert all(
        (layouts == layouts[captions.index(concept.caption)]).sum() == 1
        for concept in bank.concepts
    )
    losses = []

    def watched(name, module, loss_at, **settings):
        losses.append(loss_at(0).item())
        fit(name, module, loss_at, **settings)
        losses.append(loss_at(0).item())

    monkeypatch.setattr("memorization_suite.tiny.text.fit", watched)
    tokenizer = train_tokenizer(captions, 600, tmp_path / "tokenizer")
    torch.manual_seed(0)
    encoder = build_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    path = tmp_path / "text.safetensors"
    train_text_encoder(
        encoder, tokenizer, bank, settings["text"] | {"steps": 30, "batch": 16}, path
    )
    before, after = losses
    assert after < 0.6 * before
    rounded = load_file(path)
    assert {value.dtype for value in rounded.values()} == {torch.float16}
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, rounded[name].float()), name


def test_a_model_may_have_values_of_its_own_except_in_a_smoke_run(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(
        "[unet]\nbatch = 32\nseed = 13\n[models.tiny]\nunet = { batch = 8 }\n[models.tiny-v]\n"
        "[smoke]\nunet = { batch = 2 }\n"
    )
    whole = load_settings(file, smoke=False)
    assert unet_settings(whole, "tiny") == {"batch": 8, "seed": 13}
    assert unet_settings(whole, "tiny-v") == {"batch": 32, "seed": 13}
    assert unet_settings(load_settings(file, smoke=True), "tiny") == {"batch": 2, "seed": 13}


def test_settings_of_the_embedded_model():
    settings = load_settings(CONFIG, smoke=False)
    assert 10_000 <= settings["unet"]["rate"][-1][0] <= 30_000
    counts = settings["models"]["tiny"]["counts"]
    assert (
        counts["VM-A"] + counts["VM-B"] >= 40
        and counts["VM-B"] >= 3 * counts["VM-A"]
        and min(counts["TM"], counts["LM"]) >= 12
    )
