"""Where a sweep runs: flags that say nothing together, and the devices of this machine."""

import pytest

from memorization_suite.commands.sweeps import local as sweep_local
from memorization_suite.commands.sweeps.file import Combination
from memorization_suite.commands.sweeps.record import pieces_of
from memorization_suite.commands.sweeps.sweep import folders_above, plan_sweep
from memorization_suite.pipelines import loading
from memorization_suite.sweep import lacking_text, main


@pytest.fixture
def command(file, tmp_path, monkeypatch, capsys):
    """command(*flags): (exit code, stdout, stderr) of a sweep that loads no model."""
    monkeypatch.setattr(loading, "load_pipeline", lambda *a, **k: pytest.fail("a model was loaded"))

    def run(*flags):
        try:
            code = main([str(file), "--output_path", str(tmp_path / "out"), *flags])
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--slurm partition=gpu", "--slurm is for jobs of Slurm: add --launcher slurm"),
        ("--no_wait", "--no_wait is for jobs of Slurm: add --launcher slurm"),
        ("--launcher slurm --slurm partition", "--slurm partition is no KEY=VALUE"),
        ("--launcher ssh", "invalid choice: 'ssh'"),
        ("--devices 8", "add --dry_run"),
        ("--dry_run --devices 0", "--devices 0 is out of range"),
        ("--prompts_per_job 0", "--prompts_per_job 0 is out of range"),
        ("--jobs 0", "--jobs 0 is out of range"),
        ("--shard 0/2", "I/N takes I from 1 to N"),
        ("--shard 1/2 --launcher slurm", "--prompts_per_job N divides the runs"),
        ("--shard 1/2 --prompts_per_job 4", "leave --prompts_per_job out"),
        ("--dry_run --shard 1/2", "leave --shard 1/2 out"),
        ("--status --jobs 2", "--status only looks, and takes no --jobs"),
        ("--status --dry_run", "--status only looks, and takes no --dry_run"),
        ("--status --end 2", "takes no --end"),
    ],
)
def test_flags_that_say_nothing_together(command, tmp_path, flags, told):
    code, out, error = command(*flags.split())
    assert code == 2 and told in error and error.count("\n") == 1 and not out
    assert not (tmp_path / "out").exists()


def test_a_file_sets_no_piece(command, file):
    file.write_text(file.read_text().replace("[common]", "[common]\nshard = '1/2'"))
    assert "sets 'shard', which is no flag" in command("--dry_run")[2]


@pytest.mark.parametrize(
    ("runs", "folders"),
    [
        ([{"seed": 1}, {"seed": 1}], ["", ""]),
        ([{"image_length": 32}, {}], ["image_length32", "image_lengthdefault"]),
        ([{"model_id": "x/a"}, {"model_id": "tiny"}], ["model_ida", "model_idtiny"]),
        ([{"model_id": "x/a"}, {"model_id": "y/a"}], ["model_idx-a", "model_idy-a"]),
        # Another flag tells them apart.
        (
            [{"model_id": "x/a", "dtype": "bf16"}, {"model_id": "y/a", "dtype": "fp16"}],
            ["dtypebf16_model_ida", "dtypefp16_model_ida"],
        ),
    ],
)
def test_folders_of_flags_that_vary(runs, folders):
    combinations = [Combination(str(number), run) for number, run in enumerate(runs)]
    assert folders_above(combinations) == folders


def test_another_run_in_a_folder_is_found_before_the_first_one(
    command, file, tasks_of, made_up, capsys
):
    tasks = tasks_of()
    tasks.do(tasks.tasks[2])
    capsys.readouterr()
    code, out, error = command("--num_inference_steps", "5")
    assert code == 2 and "run 3 of 3" in error and "num_inference_steps: 4 there, 5 now" in error
    assert out == "" and len(made_up.notes) == 8


@pytest.mark.parametrize(
    ("prompts", "batch_size", "pieces"), [(1, 1, 4), (3, 1, 2), (9, 1, 1), (1, 3, 2), (3, 2, 2)]
)
def test_a_piece_has_at_most_so_many_prompts_or_one_batch(
    file, tmp_path, prompts, batch_size, pieces
):
    entry = plan_sweep(file, tmp_path / "out", batch_size=batch_size)[0]
    assert pieces_of(entry.plan, prompts) == pieces


@pytest.mark.parametrize(
    ("devices", "visible", "jobs", "expected"),
    [
        ({"cuda"}, "", None, [("cuda0", "0"), ("cuda1", "1"), ("cuda2", "2")]),
        ({"cuda", "cpu"}, "5,GPU-a,7", 2, [("cuda0", "5"), ("cuda1", "GPU-a")]),
        (
            {"cuda"},
            "4,6,7",
            4,
            [("cuda0_1", "4"), ("cuda1_1", "6"), ("cuda2_1", "7"), ("cuda0_2", "4")],
        ),
        ({"cuda:1"}, "", None, [("worker1", None)]),
        ({"cpu"}, "", None, [("worker1", None)]),
        ({"cpu"}, "", 2, [("worker1", None), ("worker2", None)]),
    ],
)
def test_every_visible_device_has_a_process(monkeypatch, devices, visible, jobs, expected):
    monkeypatch.setattr(sweep_local, "device_count", lambda kind: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    workers = sweep_local.workers_for(devices, jobs)
    shown = [(worker.name, worker.shown.get("CUDA_VISIBLE_DEVICES")) for worker in workers]
    assert shown == expected


@pytest.mark.parametrize(
    ("lacking", "scores", "told"),
    [
        (1, False, "1 image of other pieces is missing"),
        (2, True, "2 images of other pieces are missing; whoever makes the last one scores all"),
    ],
)
def test_images_of_other_pieces_in_words(lacking, scores, told):
    assert lacking_text(lacking, scores=scores) == told


def test_a_piece_says_what_the_others_lack(command, made_up, file):
    code, out, error = command("--shard", "2/2")
    assert code == 0 and "12 images of other pieces are missing; whoever" in out
    assert out.count("waiting  4 of 8  for piece 1/2, which nobody began") == 3
    assert error.rstrip().endswith("--status") and "next: python " in error
    code, out, error = command("--shard", "1/2")
    assert code == 0 and "missing" not in out and "3 of 3 runs done" in out
    assert "report.html: 3 runs" in out and error.rstrip().endswith("report.html")
    code, out, error = command("--shard", "1/2")
    assert code == 0 and out.count("(nothing to make)") == 3 and len(made_up.notes) == 24 + 3
