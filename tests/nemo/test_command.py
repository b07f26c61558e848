"""localize_neurons.py: files, going on after a stop, wrong arguments. On the embedded model with
two seeds.
"""

import json
import shlex

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from memorization_suite import generate_images, localize_neurons
from memorization_suite.commands import neurons
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.neurons import main
from memorization_suite.mitigation.nemo.method import read_neurons
from memorization_suite.mitigation.nemo.store import read_statistics, write_statistics
from memorization_suite.pipelines import loading
from tests.nemo.conftest import MEMORIZED, ORDINARY, load

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
        patch.setattr(loading, "load_pipeline", load)
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
    monkeypatch.setattr(loading, "load_pipeline", load)

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
def no_model_after(monkeypatch):
    """no_model_after(): from now on the test fails when a model is loaded."""

    def fail(*args, **kwargs):
        pytest.fail("a model was loaded")

    return lambda: monkeypatch.setattr(loading, "load_pipeline", fail)


@pytest.fixture
def no_model(no_model_after):
    """Fails the test when a model is loaded."""
    no_model_after()


@pytest.fixture(scope="session")
def whole(folder, tmp_path_factory):
    """The file of an uninterrupted search, as text."""
    out = tmp_path_factory.mktemp("whole") / "neurons.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_pipeline", load)
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
    made = plan(model_id="tiny", method="nemo", neurons=str(tmp_path / "neurons.json"))
    assert made.mitigation.named_values()["neurons"] in str(made.folder)


def test_it_is_a_function(whole, folder, monkeypatch, tmp_path):
    """Of a finished file's prompts some are asked for; a name that is no flag is refused."""
    monkeypatch.setattr(loading, "load_pipeline", load)
    (tmp_path / "neurons.json").write_text(whole)
    typed = {"model_id": "tiny", "scheduler": "keep", "seeds": 2, "device": "cpu", "blocks": "all"}
    typed |= {"prompts": folder / "memorized.txt", "out": tmp_path / "neurons.json"}
    typed |= {"statistics": folder / "statistics.safetensors", "quiet": True}
    line = neurons.search(**typed, end=1)
    count = sum(map(len, json.loads(whole)["prompts"][MEMORIZED].values()))
    assert line.endswith(f"1 prompts, 1 look memorized, {count} neurons in the middle one")
    assert (tmp_path / "neurons.json").read_text() == whole
    with pytest.raises(ValueError, match="there is no flag 'noises'"):
        neurons.search(**typed, noises=3)


def test_the_former_command_does_the_same(folder, monkeypatch, tmp_path, capsys):
    """And says in a line what to type now."""
    monkeypatch.setattr(loading, "load_pipeline", load)
    for k, command in enumerate((main, localize_neurons.main)):
        argv = ["statistics", *FEW, "--prompts", str(folder / "ordinary.txt"), "--quiet"]
        assert command([*argv, "--out", str(tmp_path / str(k))]) == 0
    assert (tmp_path / "1").read_bytes() == (tmp_path / "0").read_bytes()
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.endswith(f"--out {tmp_path / '1'}\n")
    assert "python mitigation/nemo/localize_neurons.py statistics --model_id tiny" in line


@pytest.fixture
def searched(monkeypatch):
    """What became of each search: a prompt, and once, in place of the third, a stop."""
    events = []
    search = neurons.localize

    def stopping(maps, *args, **kwargs):
        if len(events) == 2:
            events.append("stop")
            raise KeyboardInterrupt
        events.append("prompt")
        return search(maps, *args, **kwargs)

    monkeypatch.setattr(neurons, "localize", stopping)
    return events


def parts(folder) -> list[str]:
    """What a stopped search has written."""
    return sorted(path.name for path in (folder / ".neurons.json.work" / ".parts").iterdir())


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stopped_search_goes_on(whole, localize, searched, tmp_path, capsys, damaged):
    """The same file in the end; what was found is not searched again, and a part that was cut off
    is passed over.
    """
    assert localize(tmp_path / "neurons.json") == 1
    work = tmp_path / ".neurons.json.work"
    assert f"interrupted: 2 of 3 prompts are kept in {work}. Rerun" in capsys.readouterr().err
    assert not (tmp_path / "neurons.json").exists()
    assert parts(tmp_path) == ["prompts_000000.csv", "prompts_000001.csv"]
    if damaged:
        cut_off = tmp_path / ".neurons.json.work" / ".parts" / ".prompts_000002.csv.1.part"
        cut_off.write_text("position,caption")
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
        neurons,
        "localize",
        lambda *args, **kwargs: pytest.fail("searched again"),
    )
    assert localize(tmp_path / "neurons.json") == 0


def test_a_widened_search_that_is_stopped_keeps_both(whole, localize, searched, tmp_path):
    """The first prompt is in the finished file, the second in the folder; the third is left."""
    assert localize(tmp_path / "neurons.json", "--end", "1") == 0
    finished = (tmp_path / "neurons.json").read_text()
    assert localize(tmp_path / "neurons.json") == 1
    assert (tmp_path / "neurons.json").read_text() == finished
    assert parts(tmp_path) == ["prompts_000000.csv", "prompts_000001.csv"]
    assert localize(tmp_path / "neurons.json") == 0
    assert searched == ["prompt", "prompt", "stop", "prompt"]
    assert (tmp_path / "neurons.json").read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["neurons.json"]


def test_a_stopped_search_of_another_kind(localize, searched, no_model_after, tmp_path, capsys):
    """It is named, and started over on demand; what is no search is said to be that."""
    assert localize(tmp_path / "neurons.json") == 1
    no_model_after()
    capsys.readouterr()
    work = tmp_path / ".neurons.json.work"
    assert localize(tmp_path / "neurons.json", "--threshold", "0.99") == 2
    assert f"{work} holds another search (threshold: 0." in capsys.readouterr().err
    (work / "manifest.json").write_text("{}")
    assert localize(tmp_path / "neurons.json") == 2
    assert f"{work} is no neuron file of localize_neurons.py" in capsys.readouterr().err


def test_another_search_is_not_mixed_in(whole, localize, tmp_path, capsys):
    """Settings that differ are named; --overwrite starts over."""
    (tmp_path / "neurons.json").write_text(whole)
    assert localize(tmp_path / "neurons.json", "--threshold", "0.99") == 2
    error = capsys.readouterr().err
    assert (
        "holds another search (threshold: 0." in error
        and "0.99 now" in error
        and f"--out {tmp_path / 'neurons_threshold0.99.json'}, or --overwrite" in error
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
    statistics, settings = read_statistics(folder / "statistics.safetensors")
    write_statistics(tmp_path / "other.safetensors", statistics, settings | {"model": "another"})
    save_file(
        {"mean.a": statistics.mean[next(iter(statistics.mean))]}, tmp_path / "plain.safetensors"
    )
    (tmp_path / "text.safetensors").write_text("none")
    for flags, told in (
        (("--statistics", "other.safetensors"), "is of another model: another there"),
        (("--t_index", "1"), "--t_index 0: use that"),
        (("--statistics", "plain.safetensors"), "localize_neurons.py (it has no 'settings'). Make"),
        (("--statistics", "text.safetensors"), "is no statistics"),
        (("--statistics", "missing.safetensors"), "localize_neurons.py (there is no such file)."),
    ):
        flags = [str(tmp_path / flag) if flag.endswith(".safetensors") else flag for flag in flags]
        assert localize(tmp_path / "neurons.json", *flags) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_official_settings_are_remembered(localize, folder, tmp_path, capsys):
    """What was typed stands in the file; a threshold of other maps is refused, and so is a search
    that would select nothing.
    """
    flags = ("--rng", "official", "--official", "doubles", "--initial_theta", "4", "--end", "1")
    assert localize(tmp_path / "neurons.json", *flags) == 0
    settings = json.loads((tmp_path / "neurons.json").read_text())["settings"]
    assert (settings["official"], settings["rng"]) == ("doubles", "official")
    assert settings["initial_theta"] == 4.0 and "no_theta" not in settings
    capsys.readouterr()
    for flags, told in (
        (("--official", "raw_v"), "the threshold without --official raw_v: use none, or give"),
        (("--no_theta", "--no_top_k"), "together select nothing: leave out one"),
    ):
        assert localize(tmp_path / "other.json", *flags) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_a_search_of_quirks_in_another_order_goes_on(localize, tmp_path, capsys):
    """As an earlier version wrote them; other quirks are another search."""
    out = tmp_path / "neurons.json"
    flags = ("--threshold", "0.9", "--initial_theta", "4", "--end")
    assert localize(out, "--official", "raw_v,doubles", *flags, "1") == 0
    found = json.loads(out.read_text())
    assert found["settings"]["official"] == "doubles,raw_v"
    found["settings"]["official"] = "raw_v,doubles"
    out.write_text(json.dumps(found))
    capsys.readouterr()
    assert localize(out, "--official", "raw_v", *flags, "2") == 2
    told = "official: 'raw_v,doubles' there, 'raw_v' now"
    error = capsys.readouterr().err
    assert told in error and "neurons_raw_v.json" in error
    assert localize(out, "--official", "raw_v,doubles", *flags, "2") == 0
    more = json.loads(out.read_text())
    assert more["settings"]["official"] == "doubles,raw_v" and len(more["prompts"]) == 2
    assert more["figures"].items() > found["figures"].items()


def test_thresholds_of_the_former_similarity_are_refused(localize, folder, tmp_path, capsys):
    """A file of statistics of schema 1 is to be made anew."""
    with safe_open(folder / "statistics.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        stored = json.loads(file.metadata()["settings"])
    former = {"settings": json.dumps({**stored, "schema": 1})}
    save_file(tensors, tmp_path / "former.safetensors", former)
    flags = ("--statistics", str(tmp_path / "former.safetensors"))
    assert localize(tmp_path / "neurons.json", *flags) == 2
    error = capsys.readouterr().err
    assert "former.safetensors was made by an older version" in error and error.count("\n") == 1
    assert "Make one: python mitigation/nemo/localize_neurons.py statistics" in error


def test_one_set_for_all_prompts(whole, folder, tmp_path, capsys):
    """control: the most frequent neurons, and as many others, for prompts of another file; the
    method takes them.
    """
    (tmp_path / "neurons.json").write_text(whole)
    made = ["control", "--neurons", str(tmp_path / "neurons.json"), "--quiet", "--k", "3"]
    other = ("--prompts", str(folder / "ordinary.txt"))
    assert main([*made, *other, "--out", str(tmp_path / "top.json")]) == 0
    assert capsys.readouterr().out.endswith("6 prompts, the same 3 neurons for each\n")
    top = read_neurons(tmp_path / "top.json")
    assert list(top) == ORDINARY and sum(map(len, top[ORDINARY[0]].values())) == 3
    found = json.loads(whole)["prompts"]
    for name, channels in top[ORDINARY[0]].items():
        assert set(channels) <= {j for one in found.values() for j in one.get(name, [])}
    assert plan(model_id="tiny", method="nemo", neurons=str(tmp_path / "top.json"))
    random = [*made, "--random", "--out", str(tmp_path / "random.json")]
    assert main(random) == 2
    assert "--random needs --statistics FILE" in capsys.readouterr().err
    assert main([*random, "--statistics", str(folder / "statistics.safetensors")]) == 0
    drawn = read_neurons(tmp_path / "random.json")
    assert list(drawn) == list(found) and drawn[SECOND] == drawn[MEMORIZED] != top[ORDINARY[0]]
    assert {name: len(part) for name, part in drawn[SECOND].items()} == {
        name: len(part) for name, part in top[ORDINARY[0]].items()
    }


def test_a_control_replaces_no_other_file(whole, tmp_path, capsys):
    """--overwrite does; the same control again is no other file."""
    (tmp_path / "neurons.json").write_text(whole)
    out = tmp_path / "search.json"
    out.write_text(whole)
    typed = ("--neurons", tmp_path / "neurons.json", "--out", out)
    assert control(*typed) == 2
    error = capsys.readouterr().err
    assert f"{out} holds the neurons of a search. Give another --out, or --overwrite" in error
    assert error.count("\n") == 1 and out.read_text() == whole
    assert control(*typed, "--overwrite") == 0
    made = out.read_text()
    assert control(*typed) == 0 and out.read_text() == made != whole
    assert control(*typed, "--k", "1") == 2
    assert f"{out} holds something else" in capsys.readouterr().err


def test_statistics_without_a_threshold(folder, localize, monkeypatch, tmp_path, capsys):
    """--threshold_prompts 0 takes no UNet pass; the search then needs --threshold."""
    monkeypatch.setattr(neurons, "make_maps", lambda *args: pytest.fail("a UNet pass"))
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


def control(*argv) -> int:
    """The exit code of a subcommand control."""
    return main(["control", *map(str, argv)])


def test_an_input_is_not_overwritten(whole, folder, no_model, localize, tmp_path, capsys):
    """--out may be no file that is read, by whatever name; --overwrite or not."""
    path = tmp_path / "neurons.json"
    path.write_text(whole)
    other = tmp_path / "other.json"
    other.symlink_to(path)
    statistics = folder / "statistics.safetensors"
    captions = folder / "memorized.txt"
    before = [file.read_bytes() for file in (path, statistics, captions)]
    assert control("--neurons", path, "--out", path) == 2
    told = ["--neurons"]
    assert control("--neurons", path, "--out", other) == 2
    told.append("--neurons")
    assert control("--neurons", path, "--out", captions, "--prompts", captions) == 2
    told.append("--prompts")
    random = ("--random", "--statistics", statistics)
    assert control("--neurons", path, "--out", statistics, *random) == 2
    told.append("--statistics")
    assert localize(captions, "--overwrite") == 2
    told.append("--prompts")
    assert localize(statistics, "--overwrite") == 2
    told.append("--statistics")
    assert main(["statistics", *FEW, "--prompts", str(captions), "--out", str(captions)]) == 2
    told.append("--prompts")
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(told)
    for error, name in zip(errors, told):
        assert error.endswith(f"--out is the file of {name}: give another")
    assert [file.read_bytes() for file in (path, statistics, captions)] == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--ssim_threshold_refinement", "0.4", "--rel_threshold_refinement", "0.1"),
            "--rel_threshold_refinement and --ssim_threshold_refinement exclude each other",
        ),
        (("--no_theta", "--initial_theta", "5"), "--no_theta and --initial_theta exclude"),
        (("--no_theta", "--min_theta", "2"), "--no_theta and --min_theta exclude"),
        (
            ("--theta_reduction_per_step", "0.5", "--no_theta"),
            "--no_theta and --theta_reduction_per_step exclude",
        ),
        (("--no_top_k", "--initial_k", "0"), "--no_top_k and --initial_k exclude each other"),
    ],
)
def test_flags_that_a_search_would_ignore(localize, no_model, tmp_path, capsys, flags, told):
    """One line, also where the value is the default."""
    assert localize(tmp_path / "neurons.json", *flags) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "other"),
    [
        (("--seed", "0"), "--random"),
        (("--statistics", "s.safetensors"), "--random"),
        (("--caption_column", "Caption"), "--prompts"),
    ],
)
def test_flags_that_a_control_would_ignore(whole, tmp_path, capsys, flags, other):
    """One line; nothing is written."""
    (tmp_path / "neurons.json").write_text(whole)
    out = tmp_path / "top.json"
    assert control("--neurons", tmp_path / "neurons.json", "--out", out, *flags) == 2
    error = capsys.readouterr().err
    assert f"{flags[0]} does nothing without {other}: type both or none\n" in error
    assert error.count("\n") == 1 and not out.exists()


def test_a_threshold_that_is_not_asked_for(folder, no_model, tmp_path, capsys):
    """--official changes it alone."""
    typed = ["statistics", *FEW, "--prompts", str(folder / "ordinary.txt"), "--out"]
    typed += [str(tmp_path / "s.safetensors"), "--threshold_prompts", "0"]
    assert main([*typed, "--official", "swapped_guidance"]) == 2
    error = capsys.readouterr().err
    assert "--official swapped_guidance changes the threshold alone" in error
    assert error.count("\n") == 1


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
        (
            ("localize", *NEEDED["localize"], "--seeds", "1"),
            "--seeds 1 is out of range: it must be a whole number of at least 2",
        ),
        (
            ("localize", *NEEDED["localize"], "--rows", "0"),
            "--rows 0 is out of range: it must be a whole number of at least 1",
        ),
        (
            ("localize", *NEEDED["localize"], "--seed", "-1"),
            "--seed -1 is out of range: it must be a whole number of at least 0",
        ),
        (
            ("localize", *NEEDED["localize"], "--threshold", "nan"),
            "--threshold nan is out of range: it must be a finite number",
        ),
        (("localize", *NEEDED["localize"], "--blocks", "up"), "--blocks"),
        (
            ("localize", *NEEDED["localize"], "--scaling_factor", "-1"),
            "--scaling_factor -1.0 is out of range",
        ),
        (("localize", *NEEDED["localize"], "--t_index", "2"), "--t_index"),
        (("localize", *NEEDED["localize"], "--thresholds", "1"), "did you mean --threshold?"),
        (
            ("statistics", *NEEDED["statistics"], "--model_id", "nonsense"),
            "there is no model 'nonsense'",
        ),
        (
            (
                "statistics",
                *NEEDED["statistics"],
                "--model_id",
                "tiny",
                "--prompts",
                "{two}",
                "--device",
                "cuda:99",
            ),
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
    ("content", "fault"),
    [
        ("", "Expecting value"),
        ("[]", "it is built in another way)"),
        ('{"prompts": [1]}', "it is built in another way)"),
        ("{}", "it has no 'prompts')"),
        ('{"model": "m", "settings": {}, "prompts": {"a": {}}}', "it has no 'figures')"),
        ("\udcff", "it is not UTF-8 text)"),
    ],
)
def test_a_foreign_file_is_not_overwritten(localize, no_model, tmp_path, capsys, content, fault):
    """What is wrong with it is said in words, not in Python's."""
    (tmp_path / "neurons.json").write_text(content, errors="surrogateescape")
    assert localize(tmp_path / "neurons.json") == 2
    told = capsys.readouterr().err
    assert f"is no neuron file of localize_neurons.py ({fault}" in told
    assert ". Give another --out, or --overwrite" in told
    assert (tmp_path / "neurons.json").read_bytes() == content.encode(errors="surrogateescape")


def test_what_is_next(tmp_path):
    """The search after the statistics, images after the search; as one would type them."""
    typed = {"model_id": "tiny", "scheduler": "keep", "out": tmp_path / "a.safetensors"}
    python, script, job, *argv = neurons.after_statistics(typed)
    assert (python, script, job) == ("python", neurons.SCRIPT, "localize")
    search = neurons.build_parser().typed([job, *argv])
    assert search["statistics"] == typed["out"] and search["model_id"] == "tiny"
    search["end"] = 2
    python, script, *argv = neurons.after_search(search)
    assert (python, script) == ("python", "generate_images.py")
    images = generate_images.build_parser(argv).typed(argv)
    assert images["method"] == "nemo" and images["neurons"] == "neurons.json"
    assert (images["end"], images["scheduler"]) == (2, "keep")


def test_what_is_next_after_a_control(whole, tmp_path, capsys):
    """Images of the model of the neurons, which generate_images.py takes."""
    (tmp_path / "neurons.json").write_text(whole)
    out = tmp_path / "top.json"
    assert control("--neurons", tmp_path / "neurons.json", "--out", out) == 0
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("next: python ")
    argv = shlex.split(line)[3:]
    images = generate_images.build_parser(argv).typed(argv)
    assert images == {"model_id": "tiny", "method": "nemo", "neurons": str(out)}
    assert plan(**images).settings.model_id == "tiny"


@pytest.mark.parametrize(
    ("stored", "model_id"),
    [
        ("CompVis/stable-diffusion-v1-4@133a221b8aa7", "CompVis/stable-diffusion-v1-4"),
        ("some/model", "some/model"),
        ("sha256 0123", ""),
        ("folder a/b, sha256 0123", ""),
        (None, ""),
    ],
)
def test_what_a_model_is_called(tmp_path, stored, model_id):
    """By a hub id; a folder elsewhere is not known by its content, and nothing is next."""
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({"model": stored, "prompts": {}}))
    following = neurons.after_control({"neurons": path, "out": "top.json"})
    assert [word for word in following if word.startswith("--model_id")] == (
        [f"--model_id={model_id}"] if model_id else []
    )
    assert bool(following) == bool(model_id)
