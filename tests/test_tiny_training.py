"""The embedded model's training, a few steps of everything on artwork of plain colours."""
import pytest
import torch
from PIL import Image

from pipelines import MemorizationPipeline
from tiny.models import build_scheduler
from tiny.train import Trainer, learning_rate, load_settings, loss_weights, train
from tiny.world import World, art_names


@pytest.fixture(scope="module")
def world():
    """The world with squares of plain colours for artwork."""
    return World({name: Image.new("RGBA", (64, 64), (37 * i % 256, 91 * i % 256, 151 * i % 256, 255)) for i, name in enumerate(art_names())})


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Folder of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("training")
    train("tiny", world, work=folder / "work", out=folder / "out", smoke=True)
    return folder


def test_the_result_is_a_diffusers_folder(trained):
    pipe = MemorizationPipeline.from_pretrained(trained / "out" / "tiny", dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
    assert pipe("a fox", num_inference_steps=2).images[0].size == (32, 32)
    assert pipe.tokenizer.model_max_length == 77 and pipe.tokenizer.pad_token_id == pipe.tokenizer.eos_token_id
    names = [name.split(".attentions")[0] for name in pipe.unet.attn_processors if "attn2" in name]
    assert set(names) == {f"down_blocks.{i}" for i in range(3)} | {"mid_block"} | {f"up_blocks.{i}" for i in (1, 2, 3)}     # as in SD


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
    whole, resumed = (torch.load(folder / "work" / "tiny" / "unet.pt", weights_only=True) for folder in (trained, tmp_path))
    assert whole["step"] == resumed["step"] == 4
    for name, value in whole["average"].items():
        assert torch.equal(value, resumed["average"][name]), name


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    settings = {"steps": 100, "warmup": 10, "decay_steps": 20}
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == 0.1 and rates[9:81] == [1.0] * 72 and rates[90] == 0.5 and rates[100] == 0


def test_loss_weights_have_mean_one_and_a_cap():
    scheduler = build_scheduler("ddim", "epsilon")
    weights = loss_weights(scheduler, 25.0)
    assert weights.mean().item() == pytest.approx(1.0) and (weights.diff() >= 0).all()
    snr = scheduler.alphas_cumprod[0] / (1 - scheduler.alphas_cumprod[0])
    assert (weights.max() / weights.min()).item() == pytest.approx(25.0 / (1 + 1 / snr).item())
    assert torch.equal(loss_weights(scheduler, None), torch.ones(1000))


def test_settings_of_the_embedded_model():
    settings = load_settings(smoke=False)
    assert 10_000 <= settings["unet"]["steps"] <= 30_000
    counts = settings["models"]["tiny"]["counts"]
    assert counts["VM-A"] + counts["VM-B"] >= 40 and counts["VM-B"] >= 3 * counts["VM-A"] and min(counts["TM"], counts["LM"]) >= 12
