"""The subcommands spectrum and tokens: tables, pictures, going on, refusals."""

import csv
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch

import memorization_suite.pipelines.loading
from memorization_suite.commands.spectrum import Spectra, spectrum
from memorization_suite.commands.tokens import Tokens, tokens
from memorization_suite.detect_memorization import main
from memorization_suite.detection.spectrum import KINDS, OPERATORS
from memorization_suite.runs.files import write_csv
from tests.reference.wen2024_tokens import correct_significance, official_significance

CAPTIONS = {
    0: "a red square above a $5 bill_{2}",
    1: "the great wave 🐍 café",
    2: "two cats, in the style of an old master",
}
SPECTRUM = ("--iterations", "2", "--probes", "2", "--num_inference_steps", "4")
TOKENS = ("--num_inference_steps", "3", "-n", "2")


@pytest.fixture(scope="module")
def prompt_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "three.csv"
    path.write_text(
        "Caption;type\n"
        + "\n".join(f"{text};{'$a$_' if row else 'b'}" for row, text in CAPTIONS.items())
        + "\n",
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture(scope="module")
def loaded():
    return functools.cache(memorization_suite.pipelines.loading.load_pipeline)


@pytest.fixture(scope="module")
def run(random_sd_folder, prompt_file, loaded):
    """run("spectrum", out, *flags, code=0): the study's folder below out."""

    def go(name, out, *more, code=0) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
            argv = [
                "--model_id",
                random_sd_folder,
                "--prompts",
                prompt_file,
                "--image_length",
                "16",
                "--quiet",
                "--output_path",
                str(out),
                *more,
            ]
            assert main([name, *argv]) == code
        return Path(out) / name

    return go


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(
        memorization_suite.pipelines.loading,
        "load_pipeline",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(path)]


@pytest.mark.parametrize("official", [(), ("--official", "swapped")], ids=str)
def test_tokens_with_the_official_noise(run, pipe, tmp_path, official):
    """--rng official --seed S: every prompt has the draws of S. Scores are those of the
    transcriptions on them, 1e-5; a folder says so, and one without the flag is as ever.
    """
    folder = run("tokens", tmp_path, *TOKENS, "--rng", "official", "--seed", "7", *official)
    drawn = torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(7))
    table = rows(folder / "tokens.csv")
    for i, caption in CAPTIONS.items():
        told = {"num_steps": 3, "watched": 3, "guidance_scale": 7.5}
        prompt, empty = pipe.encode([caption]).tokens, pipe.encode([""]).tokens
        if official:
            expected = official_significance(pipe.unet, prompt, empty, drawn, **told)
        else:
            expected = correct_significance(pipe.unet, prompt, empty, drawn, **told).mean(0)
        found = [float(row["score"]) for row in table if row["prompt_index"] == str(i)]
        found = torch.tensor(found)
        torch.testing.assert_close(found, expected[1 : 1 + len(found)], rtol=1e-5, atol=1e-6)
    assert json.loads((folder / "manifest.json").read_text())["identity"]["rng"] == "official"


def test_the_noise_of_a_study_is_named_where_it_is_official(run, tmp_path, capsys):
    """Folders from before the flag go on; those of another noise are refused."""
    folder = run("tokens", tmp_path, *TOKENS, "--end", "1")
    assert "rng" not in json.loads((folder / "manifest.json").read_text())["identity"]
    run("tokens", tmp_path, *TOKENS, "--end", "1", "--rng", "official", code=2)
    assert "rng: None there, 'official' now" in capsys.readouterr().err


def test_spectrum_tables_and_pictures(run, tmp_path, capsys):
    folder = run(
        "spectrum",
        tmp_path,
        *SPECTRUM,
        "--at",
        "2",
        "0",
        "--operator",
        "arnoldi",
        "lanczos",
        "-n",
        "2",
        "--start",
        "1",
        "--end",
        "2",
    )
    table, summary = rows(folder / "spectrum.csv"), rows(folder / "summary.csv")
    assert list(table[0]) == [
        "prompt_index",
        "sample_index",
        "step",
        "timestep",
        "kind",
        "operator",
        "index",
        "eigenvalue",
    ]
    keys = [
        (prompt, sample, step, kind, operator)
        for prompt in "1"
        for sample in "01"
        for step in "02"
        for kind in KINDS
        for operator in OPERATORS
    ]
    names = ("prompt_index", "sample_index", "step", "kind", "operator")
    assert [tuple(row[name] for name in names) for row in summary] == keys
    assert [tuple(row[name] for name in names) for row in table] == [
        one for one in keys for _ in range(2)
    ]
    for row in summary:
        k = 2 if row["kind"] == "difference" else 1
        lanczos = row["operator"] == "lanczos"
        assert (
            row["rows"] == str(2 * k * 2 + (2 * k * 2 if lanczos else k))
            and float(row["seconds"]) > 0
        )
        assert (row["iterations"], row["exact"], row["timestep"]) == (
            "2",
            "0",
            {"0": "751", "2": "251"}[row["step"]],
        )
        own = [
            float(one["eigenvalue"])
            for one in table
            if all(one[name] == row[name] for name in names)
        ]
        assert own == sorted(own) and int(row["nonnegative"]) == sum(value >= 0 for value in own)
        assert (float(row["most_negative"]), float(row["most_positive"])) == (own[0], own[-1])
        assert bool(row["nonnegative_estimate"]) == bool(row["nonnegative_error"]) == lanczos
        assert float(row["trace"]) and float(row["trace_error"]) > 0 and float(row["asymmetry"]) > 0
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "counts.png",
        "histogram_0001_step000.png",
        "histogram_0001_step002.png",
    ]
    said = capsys.readouterr().out
    assert (
        "1 prompts, 1 made now" in said
        and "step 2, difference, lanczos, $a$_: " in said
        and "mean of 2" in said
    )


def test_a_whole_spectrum_needs_one_run(run, tmp_path):
    folder = run(
        "spectrum",
        tmp_path,
        "--num_inference_steps",
        "4",
        "--image_length",
        "8",
        "--iterations",
        "99",
        "--probes",
        "2",
        "--kind",
        "text",
        "--end",
        "1",
    )
    (row,) = rows(folder / "summary.csv")
    values = [float(one["eigenvalue"]) for one in rows(folder / "spectrum.csv")]
    assert (
        len(values) == 16 == int(row["iterations"])
        and row["exact"] == "1"
        and row["rows"] == str(4 + 2 * 15)
    )
    assert (
        float(row["nonnegative_estimate"])
        == int(row["nonnegative"])
        == sum(value >= 0 for value in values)
        and row["nonnegative_error"] == "0"
    )
    assert abs(sum(values) - float(row["trace"])) < 6 * float(row["trace_error"]) + 1e-3


@pytest.mark.parametrize(
    ("name", "flags", "tables"),
    [
        ("spectrum", (*SPECTRUM, "--kind", "text"), ("spectrum", "summary")),
        ("tokens", TOKENS, ("tokens",)),
    ],
)
def test_a_stopped_study_goes_on(run, tmp_path, capsys, monkeypatch, name, flags, tables):
    whole = run(name, tmp_path / "whole", *flags)
    parts = run(name, tmp_path / "parts", *flags, "--start", "1", "--end", "2")
    before = rows(parts / f"{tables[-1]}.csv")
    assert {row["prompt_index"] for row in before} == {"1"}
    run(name, tmp_path / "parts", *flags)
    assert all(
        without_seconds(parts / f"{table}.csv") == without_seconds(whole / f"{table}.csv")
        for table in tables
    )
    assert [
        row for row in rows(parts / f"{tables[-1]}.csv") if row["prompt_index"] == "1"
    ] == before
    capsys.readouterr()
    run(name, tmp_path / "parts", *flags)
    assert "3 prompts, 0 made now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "flags", "tables"),
    [
        ("spectrum", (*SPECTRUM, "--kind", "text"), ("spectrum", "summary")),
        ("tokens", TOKENS, ("tokens",)),
    ],
)
def test_whole_tables_of_an_older_checkout_are_read_as_done(
    run, tmp_path, monkeypatch, name, flags, tables
):
    """It wrote the tables anew after each prompt, and no parts."""
    whole = run(name, tmp_path / "whole", *flags)
    half = run(name, tmp_path / "half", *flags, "--end", "1")
    for table in tables:
        write_csv(
            half / f"{table}.csv",
            [row for row in rows(whole / f"{table}.csv") if row["prompt_index"] != "2"],
        )
    for picture in whole.glob("*_0001*.png"):
        shutil.copy(picture, half)
    job = {"spectrum": Spectra, "tokens": Tokens}[name]
    make = job.make
    made = []

    def noted(self, prompt):
        made.append(prompt.row)
        make(self, prompt)

    monkeypatch.setattr(job, "make", noted)
    run(name, tmp_path / "half", *flags)
    assert made == [2]
    for table in tables:
        assert without_seconds(half / f"{table}.csv") == without_seconds(whole / f"{table}.csv")


@pytest.mark.parametrize(
    ("name", "flags", "table"),
    [("spectrum", (*SPECTRUM, "--kind", "text"), "spectrum"), ("tokens", TOKENS, "tokens")],
)
def test_what_is_damaged_is_made_again(run, tmp_path, capsys, name, flags, table):
    """Pictures, and rows of a table that are lost; the bytes are as before."""
    folder = run(name, tmp_path, *flags)
    pictures = {file: file.read_bytes() for file in folder.glob("*.png")}
    values = without_seconds(folder / f"{table}.csv")
    cut, gone, *_ = sorted(file for file in pictures if file.name != "counts.png")
    cut.write_bytes(pictures[cut][:500])
    gone.unlink()
    lines = (folder / f"{table}.csv").read_bytes().splitlines(keepends=True)
    (folder / f"{table}.csv").write_bytes(b"".join(lines[:-1]) + lines[-1][:-3])
    capsys.readouterr()
    run(name, tmp_path, *flags)
    said = capsys.readouterr()
    assert f"1 file is damaged ({cut.name} is cut short), to be made again" in said.err
    assert "3 prompts, 3 made now" in said.out
    assert {file: file.read_bytes() for file in folder.glob("*.png")} == pictures
    assert without_seconds(folder / f"{table}.csv") == values
    run(name, tmp_path, *flags)
    assert "3 prompts, 0 made now" in capsys.readouterr().out


def test_studies_from_python(random_sd_folder, prompt_file, loaded, tmp_path):
    given = {
        "model_id": random_sd_folder,
        "prompts": prompt_file,
        "image_length": 16,
        "num_inference_steps": 3,
        "end": 1,
        "quiet": True,
        "output_path": str(tmp_path),
    }
    spectra = spectrum(load=loaded, **given, iterations=2, probes=1, kind="text", at=[1, 0, 1])
    assert [row["step"] for row in spectra.rows("summary")] == ["0", "1"]
    assert "1 prompts, 1 made now\nstep 0, text, lanczos" in str(spectra)
    assert spectra.is_finished()
    words = tokens(load=loaded, **given, n_samples_per_prompt=1)
    assert [row["token"] for row in words.rows("tokens")[:3]] == ["a", "red", "square"]
    with pytest.raises(ValueError, match="there is no flag 'num_step'.*Did you mean num_steps"):
        tokens(**given, num_step=2)


def test_parts_of_a_killed_study_are_kept_beside_other_kinds(run, tmp_path):
    """As after SIGKILL: what was found of a prompt is not lost when more is asked of it."""
    flags = (*SPECTRUM, "--end", "1")
    folder = run("spectrum", tmp_path, *flags, "--kind", "uncond")
    (folder / ".parts").mkdir()
    for table in ("spectrum", "summary"):
        (folder / f"{table}.csv").rename(folder / ".parts" / f"{table}_000000.csv")
    run("spectrum", tmp_path, *flags, "--kind", "text")
    kinds = [row["kind"] for row in rows(folder / "summary.csv")]
    assert kinds == ["text", "uncond"] and not (folder / ".parts").exists()


def test_a_fault_loses_one_prompt_only(run, tmp_path, capsys, monkeypatch):
    look = Tokens.look

    def until_the_third(self, prompt):
        if prompt.row == 2:
            raise OSError("no space left on device")
        return look(self, prompt)

    with monkeypatch.context() as patch:
        patch.setattr(Tokens, "look", until_the_third)
        folder = run("tokens", tmp_path, *TOKENS, code=1)
    kept = f"no space left on device. 2 of 3 prompts are kept in {folder}. Rerun the command"
    assert kept in capsys.readouterr().err
    assert {row["prompt_index"] for row in rows(folder / "tokens.csv")} == {"0", "1"}
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


def test_a_lack_of_memory_is_told(run, tmp_path, capsys, monkeypatch):
    def fail(self, prompt):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore")

    monkeypatch.setattr(Spectra, "look", fail)
    run("spectrum", tmp_path, *SPECTRUM, code=1)
    assert capsys.readouterr().err.endswith(
        "Tried to allocate 20 GiB. Use a smaller --batch_size.\n"
    )


def test_more_steps_kinds_and_images_join_a_table(run, tmp_path):
    folder = run("spectrum", tmp_path, *SPECTRUM, "--kind", "uncond", "--end", "1")
    first = rows(folder / "summary.csv")
    run(
        "spectrum",
        tmp_path,
        *SPECTRUM,
        "--kind",
        "text",
        "uncond",
        "--at",
        "0",
        "1",
        "-n",
        "2",
        "--end",
        "1",
    )
    assert len(rows(folder / "summary.csv")) == 8 and len(rows(folder / "spectrum.csv")) == 16
    run("spectrum", tmp_path, *SPECTRUM, "--kind", "difference", "--end", "1")
    assert len(rows(folder / "summary.csv")) == 9
    same = [
        row
        for row in rows(folder / "summary.csv")
        if (row["kind"], row["step"], row["sample_index"]) == ("uncond", "0", "0")
    ]
    assert len(same) == 1 and float(same[0]["trace"]) == pytest.approx(
        float(first[0]["trace"]), rel=1e-4
    )


def test_another_study_does_not_join(run, tmp_path, capsys):
    run("spectrum", tmp_path, *SPECTRUM, "--kind", "text", "--end", "1")
    run("spectrum", tmp_path, *SPECTRUM, "--kind", "text", "--end", "1", "--probes", "3", code=2)
    error = capsys.readouterr().err
    assert "holds another run (probes: 2 there, 3 now)" in error
    assert f"--output_path {tmp_path}_probes3, or --overwrite" in error
    run(
        "spectrum",
        tmp_path,
        *SPECTRUM,
        "--kind",
        "text",
        "--end",
        "1",
        "--probes",
        "3",
        "--overwrite",
    )
    (tmp_path / "spectrum" / "summary.csv").write_text("a,b\n1,2\n")
    run("spectrum", tmp_path, *SPECTRUM, "--kind", "text", "--end", "1", "--probes", "3", code=2)
    assert "summary.csv is no table summary of a run" in capsys.readouterr().err


def test_tokens_table_and_pictures(run, tmp_path):
    folder = run("tokens", tmp_path, *TOKENS)
    table = rows(folder / "tokens.csv")
    assert list(table[0]) == ["prompt_index", "token_index", "token", "score"]
    for prompt in "012":
        own = [row for row in table if row["prompt_index"] == prompt]
        assert [int(row["token_index"]) for row in own] == list(range(1, len(own) + 1)) and len(
            own
        ) <= 75
        assert all(float(row["score"]) > 0 and row["token"] for row in own)
    assert [row["token"] for row in table[:3]] == ["a", "red", "square"] and "$" in {
        row["token"] for row in table
    }
    assert sorted(path.name for path in folder.glob("*.png")) == [
        f"tokens_000{i}.png" for i in range(3)
    ]
    assert json.loads((folder / "config.json").read_text())["command"].startswith(
        "python detect_memorization.py tokens "
    )


def test_the_official_tokens_differ(run, tmp_path, capsys):
    right = rows(run("tokens", tmp_path / "a", *TOKENS, "--end", "1") / "tokens.csv")
    official = rows(
        run("tokens", tmp_path / "b", *TOKENS, "--end", "1", "--official", "swapped") / "tokens.csv"
    )
    assert [row["token"] for row in right] == [row["token"] for row in official]
    assert all(
        float(a["score"]) != pytest.approx(float(b["score"]), rel=0.05)
        for a, b in zip(right, official)
    )
    run("tokens", tmp_path / "a", *TOKENS, "--official", "swapped", code=2)
    assert "official: '' there, 'swapped' now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("spectrum", ("--at", "4"), "--at 4 is no step of the sampler: there are 0 to 3"),
        ("spectrum", ("--at", "-1"), "--at"),
        ("spectrum", ("--iterations", "0"), "--iterations 0"),
        ("spectrum", ("--probes", "0"), "--probes 0"),
        ("spectrum", ("--batch_size", "0"), "--batch_size 0"),
        ("spectrum", ("--kind", "both"), "--kind"),
        ("spectrum", ("--operator", "power"), "--operator"),
        ("spectrum", ("--num_steps", "3"), "--num_steps"),
        ("tokens", ("--num_steps", "5"), "--num_steps 5 is not possible: the sampler has 4 steps"),
        ("tokens", ("--num_steps", "0"), "--num_steps 0"),
        ("tokens", ("--official", "joint"), "--official"),
        ("tokens", ("--kind", "text"), "--kind"),
        *(
            (name, more, told)
            for name in ("spectrum", "tokens")
            for more, told in (
                (("--start", "3"), "--start 3 --end 3 is no range of the 3 rows"),
                (("--end", "9"), "--end 9"),
                (("-n", "0"), "--n_samples_per_prompt 0"),
                (("--guidance_scale", "nan"), "--guidance_scale"),
                (("--model_id", "nonsense"), "there is no model 'nonsense'"),
                (("--prompts", "missing.csv"), "missing.csv"),
                (("--device", "cuda:99"), "--device cuda:99"),
                (("extra",), "extra"),
            )
        ),
    ],
)
def test_wrong_arguments_are_refused(
    random_sd_folder, prompt_file, tmp_path, capsys, no_model, name, more, told
):
    argv = [
        "--model_id",
        random_sd_folder,
        "--prompts",
        prompt_file,
        "--num_inference_steps",
        "4",
        "--output_path",
        str(tmp_path),
        *more,
    ]
    try:
        code = main([name, *argv])
    except SystemExit as leave:
        code = leave.code
    error = capsys.readouterr().err
    assert (
        code == 2
        and told in error
        and error.startswith(f"detect_memorization.py {name}: ")
        and error.count("\n") == 1
    )
    assert not list(tmp_path.iterdir())
