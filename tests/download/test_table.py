"""The table of assets, what it refuses, and what other code and people ask of it."""

import os
import re
import subprocess
import sys

import pytest

from memorization_suite import ROOT
from memorization_suite.commands.fetch import build_parser, main
from memorization_suite.download.assets import Asset, hint, path_of, read_assets, select

ASSETS = read_assets()
README = (ROOT / "download" / "README.md").read_text()


def test_path_and_hint():
    assert path_of("sscd_disc_mixup") == ROOT / "checkpoints" / "sscd_disc_mixup.torchscript.pt"
    assert path_of("image_reward") == ROOT / "checkpoints" / "ImageReward" / "ImageReward.pt"
    assert (
        hint("sscd_disc_mixup")
        == "checkpoints/sscd_disc_mixup.torchscript.pt is not here: python download/fetch.py "
        "sscd_disc_mixup"
    )
    assert hint("sdv1_500_mem_groundtruth").startswith(
        "sdv1_500_mem_groundtruth/gt_images is not here: "
    )


def test_our_table_is_read_once_and_another_one_anew(table):
    assert read_assets() is read_assets()
    path = table(thing={"url": "http://x/y", "path": "thing"})
    assert list(read_assets(path)) == ["thing"]
    table(other={"url": "http://x/y", "path": "thing"})
    assert list(read_assets(path)) == ["other"]


@pytest.mark.parametrize("function", [path_of, hint])
@pytest.mark.parametrize("name", ["nothing", "metrics", "all"])
def test_path_and_hint_of_an_unknown_name(function, name):
    with pytest.raises(ValueError, match="there is no asset"):
        function(name)


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_everything_goes_to_an_ignored_place(asset: Asset):
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert asset.path in ignored or f"{asset.path.split('/')[0]}/" in ignored


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_the_readme_names_every_asset_and_its_place(asset: Asset):
    lines = [line for line in README.splitlines() if f"`{asset.name}`" in line]
    assert any(f"`{asset.where}`" in line for line in lines)


def test_the_readme_names_no_other_flag():
    assert set(re.findall(r"`(--[a-z_]+)", README)) <= set(build_parser()._option_string_actions)


def test_groups():
    assert {asset.group for asset in ASSETS.values()} == {
        "metrics",
        "metric_variants",
        "prompts",
        "groundtruth",
        "models",
    }
    assert select(ASSETS, ["all"]) == list(ASSETS.values())
    assert [asset.name for asset in select(ASSETS, ["sd14", "groundtruth", "sd14"])] == [
        "sdv1_500_mem_groundtruth",
        "sd14",
    ]


def test_no_network_and_no_heavy_import():
    code = (
        "import sys, memorization_suite.download.assets as a; a.path_of('sd14'); "
        "print({'torch', 'tqdm', 'requests', 'huggingface_hub', 'gdown'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_the_script_lists(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "download" / "fetch.py"), "--list", "models"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "name",
        "sd14",
        "sd20",
        "sd20_base",
    ]


def test_list_says_size_checksum_place_and_source(capsys):
    assert main(["--list", "sscd_disc_mixup", "sscd_disc_large"]) == 0
    _, known, unknown = capsys.readouterr().out.splitlines()
    for text in (
        "98.8 MB",
        " known ",
        "checkpoints/sscd_disc_mixup.torchscript.pt",
        "https://dl.fbaipublicfiles.com/",
    ):
        assert text in known
    assert " ? MB " in unknown and "not known yet" in unknown


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nothing"], "there is no asset 'nothing'; the assets are sscd_disc_mixup"),
        ([], "say what to fetch"),
        (["sd14", "--root", "/no/such/folder"], "is no folder"),
        (["sd14", "--assets", "/no/such/file"], "cannot read the assets file"),
        (["sd14", "--wrong"], "--wrong"),
        (["sd14", "--overwrit"], "did you mean --overwrite?"),
    ],
)
def test_wrong_arguments(capsys, argv, told):
    try:
        code = main(argv)
    except SystemExit as leave:
        code = leave.code
    out, err = capsys.readouterr()
    assert code == 2 and told in err and err.count("\n") == 1 and not out


OUTSIDE = ["../x", "/x", "//x", "a/../../x", "", ".", "a\\..\\x", "C:/x", "a\nb"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leaves_the_root_is_refused_before_anything_is_fetched(
    server, table, fetch, path
):
    table(
        good={"url": server.put("good", b"good"), "path": "good"},
        bad={"url": server.put("x", b"x"), "path": path},
    )
    said = fetch("good")
    assert said.code == 2 and "[bad] leaves the folder" in said.err and not server.requests


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "hub", "repo": "a/b", "files": {"../x": ""}}, "leaves the folder"),
        ({"main": "../x"}, "leaves the folder"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"url": "file:///etc/passwd"}, "not http"),
        ({"kind": "magic"}, "'magic' is none of file"),
        ({"url": ""}, "needs a url"),
        ({"kind": "hub"}, "needs a repo"),
        ({"color": "red"}, "unknown keys: color"),
        ({"size": "big"}, "size is not a int"),
        ({"path": "checkpoints/first_seen.json"}, "in each other's place"),
        ({"path": "checkpoints"}, "in each other's place"),
    ],
)
def test_a_wrong_table_is_refused(table, fetch, changes, told):
    table(thing={"url": "http://x/y", "path": "thing"} | changes)
    said = fetch("thing")
    assert said.code == 2 and told in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[thing", "is not a TOML file"),
        ("thing = 1", "thing is not a table"),
        ("[thing]\nwhat = 'w'", "lacks group, kind"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, fetch, text, told):
    (tmp_path / "assets.toml").write_text(text)
    said = fetch("thing")
    assert said.code == 2 and told in said.err


def test_an_asset_in_the_folder_of_another_is_refused(table, fetch):
    table(a={"url": "http://x/a", "path": "a"}, b={"url": "http://x/b", "path": "a/b"})
    assert "a and a/b are in each other's place" in fetch("a").err
