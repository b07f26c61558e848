"""--caption_column, and data sets of the hub, in the commands that take --prompts."""

import pytest

import memorization_suite.prompts.sets
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.neuron_settings import OrdinarySettings, SearchSettings
from memorization_suite.commands.neurons import prompts_of
from memorization_suite.commands.sweeps.record import typed_anywhere
from memorization_suite.commands.sweeps.sweep import count_runs, plan_sweep
from memorization_suite.commands.tokens import Tokens
from memorization_suite.metrics.runs import open_run
from memorization_suite.runs.files import write_json
from memorization_suite.runs.run_folder import Key, RunFolder

LEFT = ["left a", "left b"]
RIGHT = ["right a", "right b"]
HUB = "hub:owner/name:Prompt"


@pytest.fixture
def table(tmp_path):
    """A file with two columns of texts."""
    path = tmp_path / "a.csv"
    rows = [f"{left};{right}\n" for left, right in zip(LEFT, RIGHT)]
    path.write_text("words;Caption\n" + "".join(rows))
    return str(path)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(memorization_suite.prompts.sets, "read_hub", lambda source: LEFT)


def captions(prompts):
    return [prompt.caption for prompt in prompts]


def asked(tmp_path, **typed):
    return {"model_id": "tiny", "output_path": str(tmp_path / "out"), **typed}


def test_of_images(tmp_path, table):
    usual, same, other = (
        plan(**asked(tmp_path, prompts=table, caption_column=name))
        for name in ("", "caption", "words")
    )
    assert captions(usual.prompts) == captions(same.prompts) == RIGHT
    assert captions(other.prompts) == LEFT
    assert usual.identity == same.identity and "caption_column" not in usual.identity
    assert other.identity["caption_column"] == "words" == other.config["caption_column"]
    with pytest.raises(ValueError, match="has no column 'nowhere'; its columns are words, Caption"):
        plan(**asked(tmp_path, prompts=table, caption_column="nowhere"))


def test_of_scores(tmp_path, table):
    ordinary = tmp_path / "ordinary.txt"
    ordinary.write_text("one\ntwo\n")
    typed = asked(tmp_path, prompts=table, nonmem_prompts=str(ordinary), caption_column="words")
    sets = plan_detection(**typed).sets
    assert captions(sets["mem"]) == LEFT and captions(sets["nonmem"]) == ["one", "two"]


def test_of_studies_and_neurons(tmp_path, table):
    study = Tokens(**asked(tmp_path, prompts=table, caption_column="words"))
    assert captions(study.prompts) == LEFT
    given = {"model_id": "tiny", "out": tmp_path / "out", "caption_column": "words"}
    for settings in (
        OrdinarySettings(**given, prompts=table),
        SearchSettings(**given, prompts=table, statistics=table),
    ):
        assert captions(prompts_of(settings)[1]) == LEFT


def test_of_a_sweep(tmp_path, table):
    file = tmp_path / "sweep.toml"
    columns = '["words", "Caption"]'
    file.write_text(
        f'[common]\nmodel_id = "tiny"\nprompts = "{table}"\n[[run]]\ncaption_column = {columns}\n'
    )
    entries = plan_sweep(file, tmp_path / "out")
    assert [captions(entry.plan.prompts) for entry in entries] == [LEFT, RIGHT]
    assert count_runs(file) == 2 and count_runs(file, ["caption_column"]) == 1


def test_a_run_that_is_scored_knows_its_column(tmp_path, table):
    made = plan(**asked(tmp_path, prompts=table, caption_column="words"))
    folder = RunFolder(made.folder)
    folder.prepare(made.identity)
    folder.start(made.identity, config=made.config)
    for row, caption in enumerate(LEFT):
        key = Key(row, 0)
        folder.image_path(key).write_bytes(b"")
        folder.add(str(row), images=[key.columns | {"prompt": caption}])
    folder.finish()
    assert captions(open_run(made.folder, incomplete=True).prompts) == LEFT
    with pytest.raises(ValueError, match="made from another prompt file"):
        open_run(made.folder, column="Caption", incomplete=True)
    write_json(made.folder / "config.json", made.config | {"caption_column": ""})  # an older run
    assert captions(open_run(made.folder, incomplete=True).prompts) == RIGHT
    assert captions(open_run(made.folder, column="words", incomplete=True).prompts) == LEFT


def test_a_data_set_of_the_hub_in_every_command(tmp_path, hub):
    typed = asked(tmp_path, prompts=HUB)
    made = plan(**typed)
    assert captions(made.prompts) == LEFT
    assert "/out/prompt_sets/hub-owner-name-Prompt_" in made.config["prompts"]
    assert HUB in made.config["command"]
    assert captions(Tokens(**typed).prompts) == LEFT
    given = {"model_id": "tiny", "out": tmp_path / "out.json", "prompts": HUB}
    file, prompts = prompts_of(OrdinarySettings(**given))
    assert captions(prompts) == LEFT and file.parent == tmp_path / "prompt_sets"
    assert typed_anywhere({"prompts": HUB}) == {"prompts": HUB}
