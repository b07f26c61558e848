"""localize_neurons.py: files, going on after a stop, wrong arguments. On the embedded model with
two seeds.
"""

import json

import pytest
from safetensors.torch import save_file

import memorization_suite.localization.run
import memorization_suite.pipelines.loading
from memorization_suite.generation import plan_of
from memorization_suite.localization import main
from memorization_suite.mitigation.neurons import read_neurons
from tests.localization.conftest import MEMORIZED, ORDINARY, load

SECOND = "Crown Comics Volume 114"
FEW = ("--model_id", "tiny", "--scheduler", "keep", "--seeds", "2", "--device", "cpu")


@pytest.fixture(scope="session")
def folder(tiny, tmp_path_factory):
    """ordinary.txt, memorized.txt (two memorized prompts, one of them twice, and an ordinary one),
    and the statistics.
    """
    folder = tmp_path_factory.mktemp("localization")
    (folder / "ordinary.txt").write_text("\n".join(ORDINARY) + "\n")
    (folder / "memorized.txt").write_text(
        "\n".join([MEMORIZED, ORDINARY[0], MEMORIZED, SECOND]) + "\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)
        assert (
            main(
                [
                    "statistics",
                    *FEW,
                    "--prompts",
                    str(folder / "ordinary.txt"),
                    "--out",
                    str(folder / "statistics.safetensors"),
                ]
            )
            == 0
        )
    return folder


@pytest.fixture
def localize(folder, monkeypatch):
    """localize(out, *flags): exit code of a search over the prompts of memorized.txt."""
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)

    def run(out, *flags, prompts=folder / "memorized.txt"):
        return main(
            [
                "localize",
                *FEW,
                "--prompts",
                str(prompts),
                "--statistics",
                str(folder / "statistics.safetensors"),
                "--out",
                str(out),
                "--blocks",
                "all",
                "--quiet",
                *flags,
            ]
        )

    return run


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test when a model is loaded."""
    monkeypatch.setattr(
        memorization_suite.pipelines.loading,
        "load_pipeline",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )


@pytest.fixture(scope="session")
def whole(folder, tmp_path_factory):
    """The file of an uninterrupted search, as text."""
    out = tmp_path_factory.mktemp("whole") / "neurons.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)
        assert (
            main(
                [
                    "localize",
                    *FEW,
                    "--prompts",
                    str(folder / "memorized.txt"),
                    "--statistics",
                    str(folder / "statistics.safetensors"),
                    "--out",
                    str(out),
                    "--blocks",
                    "all",
                    "--quiet",
                ]
            )
            == 0
        )
    return out.read_text()


def test_the_file_of_neurons(whole, folder, tmp_path):
    """What it says, and that the method takes it; the running file is gone."""
    found = json.loads(whole)
    assert list(found) == ["model", "settings", "prompts", "figures"]
    assert list(found["prompts"]) == [MEMORIZED, ORDINARY[0], SECOND]
    assert found["settings"]["t_index"] == 0 and found["settings"]["blocks"] == "all"
    for caption in (MEMORIZED, SECOND):
        figures = found["figures"][caption]
        assert (
            figures["seeds"] == 2
            and figures["similarity"] < figures["threshold"] == found["settings"]["threshold"]
        )
        assert 0 < sum(map(len, found["prompts"][caption].values())) <= figures["initial"]
    (tmp_path / "neurons.json").write_text(whole)
    assert read_neurons(tmp_path / "neurons.json") == found["prompts"]
    plan = plan_of(
        ["--model_id", "tiny", "--method", "nemo", "--neurons", str(tmp_path / "neurons.json")]
    )
    assert plan.mitigation.settings()["neurons"] in str(plan.folder)


@pytest.mark.parametrize("damage", ["", '{"caption": "cut of'])
def test_a_stopped_search_goes_on(whole, localize, monkeypatch, tmp_path, capsys, damage):
    """The same file in the end; what was found is not searched again, and a line that was cut off
    is passed over.
    """
    searched, search = [], memorization_suite.localization.run.localize

    def stopping(maps, *args, **kwargs):
        if len(searched) == 2:
            searched.append("stop")
            raise KeyboardInterrupt
        searched.append("prompt")
        return search(maps, *args, **kwargs)

    monkeypatch.setattr(memorization_suite.localization.run, "localize", stopping)
    assert localize(tmp_path / "neurons.json") == 1
    assert (
        "goes on where it stopped" in capsys.readouterr().err
        and not (tmp_path / "neurons.json").exists()
    )
    with open(tmp_path / "neurons.json.part.jsonl", "a") as file:
        file.write(damage)
    assert localize(tmp_path / "neurons.json") == 0
    assert searched == ["prompt", "prompt", "stop", "prompt"]
    assert (tmp_path / "neurons.json").read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["neurons.json"]


def test_a_finished_search_is_widened(whole, localize, monkeypatch, tmp_path):
    """--end: the first prompt, then the others; then nothing is left to do."""
    assert localize(tmp_path / "neurons.json", "--end", "1") == 0
    assert list(json.loads((tmp_path / "neurons.json").read_text())["prompts"]) == [MEMORIZED]
    assert localize(tmp_path / "neurons.json") == 0
    assert (tmp_path / "neurons.json").read_text() == whole
    monkeypatch.setattr(
        memorization_suite.localization.run,
        "localize",
        lambda *args, **kwargs: pytest.fail("searched again"),
    )
    assert localize(tmp_path / "neurons.json") == 0


def test_another_search_is_not_mixed_in(whole, localize, tmp_path, capsys):
    """Settings that differ are named; --overwrite starts over."""
    (tmp_path / "neurons.json").write_text(whole)
    assert localize(tmp_path / "neurons.json", "--threshold", "0.99") == 2
    error = capsys.readouterr().err
    assert (
        "holds another search (threshold: 0." in error
        and "0.99 now" in error
        and error.count("\n") == 1
    )
    assert (tmp_path / "neurons.json").read_text() == whole
    assert (
        localize(tmp_path / "neurons.json", "--threshold", "0.9999", "--overwrite", "--end", "1")
        == 0
    )
    assert json.loads((tmp_path / "neurons.json").read_text())["prompts"] == {MEMORIZED: {}}


def test_statistics_of_another_kind_are_refused(localize, folder, no_model, tmp_path, capsys):
    """Another model, another timestep, and files that are none; before a model is loaded."""
    from memorization_suite.localization.store import read_statistics, write_statistics

    statistics, settings = read_statistics(folder / "statistics.safetensors")
    write_statistics(tmp_path / "other.safetensors", statistics, settings | {"model": "another"})
    save_file(
        {"mean.a": statistics.mean[next(iter(statistics.mean))]}, tmp_path / "plain.safetensors"
    )
    (tmp_path / "text.safetensors").write_text("none")
    for flags, told in (
        (("--statistics", "other.safetensors"), "is of another model: another there"),
        (("--t_index", "1"), "--t_index 0: use that"),
        (("--statistics", "plain.safetensors"), "is no statistics file"),
        (("--statistics", "text.safetensors"), "is no statistics"),
        (("--statistics", "missing.safetensors"), "is no statistics file"),
    ):
        flags = [str(tmp_path / flag) if flag.endswith(".safetensors") else flag for flag in flags]
        assert localize(tmp_path / "neurons.json", *flags) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_statistics_without_a_threshold(folder, localize, monkeypatch, tmp_path, capsys):
    """--threshold_prompts 0 takes no UNet pass; the search then needs --threshold."""
    monkeypatch.setattr(
        memorization_suite.localization.run, "make_maps", lambda *args: pytest.fail("a UNet pass")
    )
    out = str(tmp_path / "s.safetensors")
    assert (
        main(
            [
                "statistics",
                *FEW,
                "--prompts",
                str(folder / "ordinary.txt"),
                "--out",
                out,
                "--threshold_prompts",
                "0",
            ]
        )
        == 0
    )
    assert localize(tmp_path / "neurons.json", "--statistics", out) == 2
    assert "give one with --threshold" in capsys.readouterr().err


NEEDED = {
    "statistics": ("--prompts", "p.txt", "--out", "s.safetensors"),
    "localize": ("--prompts", "p.txt", "--out", "n.json", "--statistics", "s.safetensors"),
}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((), "required"),
        (("nonsense",), "nonsense"),
        (("statistics",), "--prompts"),
        (("localize", *NEEDED["localize"][:4]), "--statistics"),
        (("localize", *NEEDED["localize"], "--seeds", "1"), "'1' is no whole number of at least 2"),
        (("localize", *NEEDED["localize"], "--rows", "0"), "at least 1"),
        (("localize", *NEEDED["localize"], "--seed", "-1"), "at least 0"),
        (("localize", *NEEDED["localize"], "--threshold", "nan"), "no finite number"),
        (("localize", *NEEDED["localize"], "--blocks", "up"), "--blocks"),
        (("localize", *NEEDED["localize"], "--scaling_factor", "-1"), "at least 0"),
        (("localize", *NEEDED["localize"], "--t_index", "2"), "--t_index"),
        (
            ("statistics", *NEEDED["statistics"], "--model_id", "nonsense"),
            "there is no model 'nonsense'",
        ),
        (
            ("statistics", *NEEDED["statistics"], "--model_id", "tiny", "--device", "cuda:99"),
            "--device cuda:99",
        ),
        (
            ("statistics", *NEEDED["statistics"], "--model_id", "tiny"),
            "cannot read the prompt file",
        ),
        (
            ("statistics", "--prompts", "{one}", "--out", "s.safetensors", "--model_id", "tiny"),
            "at least two ordinary prompts",
        ),
        (
            (
                "statistics",
                "--prompts",
                "{two}",
                "--out",
                "missing/s.safetensors",
                "--model_id",
                "tiny",
            ),
            "--out missing/s.safetensors",
        ),
        (
            (
                "localize",
                *NEEDED["localize"],
                "--model_id",
                "tiny",
                "--prompts",
                "{two}",
                "--end",
                "3",
            ),
            "--start 0 --end 3",
        ),
        (
            ("localize", *NEEDED["localize"], "--model_id", "tiny", "--prompts", "{two}"),
            "is no statistics file",
        ),
    ],
)
def test_wrong_arguments(tmp_path, capsys, no_model, tiny, argv, told):
    """One line on stderr, exit code 2, no model."""
    for name, text in (("one", "a\n"), ("two", "a\nb\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    try:
        code = main(
            [arg.format(one=tmp_path / "one.txt", two=tmp_path / "two.txt") for arg in argv]
        )
    except SystemExit as leave:
        code = leave.code
    out, error = capsys.readouterr()
    assert code == 2 and error.count("\n") == 1 and told in error and not out


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model": "m", "settings": {}, "prompts": {"a": {}}}']
)
def test_a_foreign_file_is_not_overwritten(localize, no_model, tmp_path, capsys, content):
    (tmp_path / "neurons.json").write_text(content)
    assert localize(tmp_path / "neurons.json") == 2
    assert (
        "is no neuron file of localize_neurons.py. Give another --out, or --overwrite"
        in capsys.readouterr().err
    )
    assert (tmp_path / "neurons.json").read_text() == content
