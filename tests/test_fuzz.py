"""Readers of files that people make: whatever is in one, nothing but the documented errors."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memorization_suite import tiny
from memorization_suite.commands.calibrate import threshold
from memorization_suite.commands.detect_plan import ScoreFolder
from memorization_suite.commands.sweeps.file import read_sweep
from memorization_suite.commands.sweeps.record import read_record as read_sweep_record
from memorization_suite.detection.evaluation.score_files import read_scores
from memorization_suite.detection.stability import read_statistics
from memorization_suite.download.assets import read_table
from memorization_suite.download.check import read_record
from memorization_suite.metrics.embedded import subjects_of
from memorization_suite.metrics.references import References, stored_rows
from memorization_suite.mitigation.nemo.method import read_neurons
from memorization_suite.pipelines.kinds import Unknown
from memorization_suite.pipelines.models import kind_of, load_preset, resolve_model
from memorization_suite.prompts.files import read_prompts
from memorization_suite.runs.files import marked, unmarked, write_csv
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.table import read_results
from memorization_suite.runs.tables import read_csv

# Examples of each reader and kind of content. The same ones every time; nothing is kept of them.
quick = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# --- contents

words = st.sampled_from(
    [
        *("caption", "Caption", "prompt", "text", "Index", "type", "caption1", "key"),
        *("prompt_index", "sample_index", "quantity", "variant", "value", "run", "method"),
        *("set", "score", "mem", "nonmem", "step", "schema", "identity", "environments"),
        *("0", "1", "-1", "1e999", "nan", "", "=1", "'=1", "a kite", "\ud7ff", "猫", "\x00"),
    ]
)
marks = st.sampled_from(
    [",", ";", "\t", '"', "'", "\n", "\r", "\r\n", "\\", "{", "}", "[", "]", " "]
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
trees = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=12,
)
pieces = st.lists(words | marks | st.text(max_size=4), max_size=40).map("".join)


def toml(value) -> str:
    """Roughly TOML; what it lacks is left for its parser to refuse."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(str(key))} = {toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def encoded(text: str) -> bytes:
    """UTF-8, also of halves of characters, which are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A good file with some of it replaced, left out or said twice."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.integers(start, min(len(whole), start + 40)))
        other = draw(st.binary(max_size=8) | (words | marks).map(encoded) | st.just(b"[" * 3000))
        again = whole[start:end] if draw(st.booleans()) else b""
        whole = whole[:start] + again + other + whole[end:]
    return whole


def contents(whole: bytes, as_text=json.dumps) -> st.SearchStrategy[bytes]:
    """Bytes, texts of its words, other trees, and damaged ones."""
    made = trees.map(as_text).map(encoded)
    lines = st.lists(trees.map(json.dumps), max_size=4).map("\n".join).map(encoded)
    return st.binary(max_size=60) | pieces.map(encoded) | made | lines | damaged(whole)


# What is looked at of every reader.
ODD = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"a = " + b"[" * 100_000,
    b"9" * 10_000,
    b'{"schema": 1' + b"0" * 5000 + b"}",
    b"x = " + b"9" * 10_000,
)

# --- readers

TABLE = (
    b'key,prompt_index,sample_index,prompt,file_bytes\n0000_00,0,0,"a, kite",12\n0000_01,0,1,b,3\n'
)
RESULTS = (
    b"run,method,prompt_index,sample_index,quantity,variant,value\nr,m,0,0,q,v,0.5\nr,m,,,q,v,1\n"
)
REFERENCES = b"prompt_index,caption,sha256\n0,a,ab cd\n1,b,\n"
SCORES = b"set,prompt_index,sample_index,prompt,score\nmem,0,0,a,0.5\nnonmem,0,0,b,0.25\n"
MANIFEST = b'{"schema": 1, "identity": {"seed": 2}, "environments": [], "finished": null}'
ASSET = b'[a]\nwhat = "w"\ngroup = "g"\nkind = "file"\npath = "a"\nused_by = "u"\nlicence = "l"\n'
ASSET += b'source = "s"\nurl = "https://x"\nsize = 3\n'
SWEEP = b'[common]\nmodel_id = "tiny"\n[[run]]\nmethod = "batch_wise"\nrho = [1, 2]\n'
JOBS = b'{"schema": 1, "title": "t", "scores": true, "plugins": [], "runs": []}'
FIRST_SEEN = b'{"a": {"source": "s", "date": "d", "files": {"": "0"}}}'
NEURONS = b'{"model": "m", "settings": {}, "prompts": {"a kite": {"layer": [1, 2]}}}'
NORMS = dict.fromkeys(("update", "latent", "clean"), [1.0, 2.0])
STATISTICS = {"kind": "stability", "schema": 1, "mean": NORMS, "sd": NORMS}
STABILITY = json.dumps(STATISTICS | {"made_with": {}, "made_from": {}}).encode()
PRESET = b"[generate]\nguidance_scale = 7.0\n[batch_wise]\nrho = 1\n"
PROMPTS = {
    "a.csv": b';Caption;type;Index;caption1\n0;"a; kite";VM;7;b\n1;c;;8;\n',
    "a.tsv": b"Prompt\tType\na kite\tVM\nb\t\n",
    "a.txt": b"a kite\r\nb\n",
    "a.jsonl": b'{"caption": "a kite", "index": 7, "type": 0}\n{"caption": "b", "caption1": "c"}\n',
}


def in_folder(name, read):
    """A reader of the folder that holds the file."""
    return name, lambda path: read(path.parents[len(Path(name).parts) - 1])


READERS = {  # name -> ((the file, what reads it), a good one, how a tree is written)
    **{
        name: ((name, lambda path: read_prompts(path)), whole, json.dumps)
        for name, whole in PROMPTS.items()
    },
    "column": (
        ("a.csv", lambda path: read_prompts(path, "key")),
        b"key;Caption\na;b\n",
        json.dumps,
    ),
    "subjects": (("a.csv", subjects_of), b"Caption;subject\na;b\n", json.dumps),
    "images": (in_folder("images.csv", lambda f: RunFolder(f).rows("images")), TABLE, json.dumps),
    "part": (
        in_folder(".parts/images_0.csv", lambda f: RunFolder(f).done("images")),
        TABLE,
        json.dumps,
    ),
    "scored": (
        in_folder("scores.csv", lambda f: ScoreFolder(f).rows("scores")),
        SCORES,
        json.dumps,
    ),
    "results": (in_folder("results.csv", read_results), RESULTS, json.dumps),
    "references": (in_folder("references.csv", stored_rows), REFERENCES, json.dumps),
    "any table": (("a.csv", read_csv), TABLE, json.dumps),
    "scores": (("scores.csv", read_scores), SCORES, json.dumps),
    "wen": (("a.jsonl", read_scores), b'{"text_noise_norm": [[1, 2]]}\n', json.dumps),
    "threshold": (("scores.csv", threshold), SCORES, json.dumps),
    "manifest": (
        in_folder("manifest.json", lambda f: RunFolder(f).manifest()),
        MANIFEST,
        json.dumps,
    ),
    "config": (in_folder("config.json", lambda f: RunFolder(f).config()), b'{"a": 1}', json.dumps),
    "jobs": (in_folder("jobs/sweep.json", read_sweep_record), JOBS, json.dumps),
    "first seen": (in_folder("checkpoints/first_seen.json", read_record), FIRST_SEEN, json.dumps),
    "neurons": (("neurons.json", read_neurons), NEURONS, json.dumps),
    "stability": (("stability.json", read_statistics), STABILITY, json.dumps),
    "assets": (("assets.toml", read_table), ASSET, toml),
    "sweep": (("sweep.toml", read_sweep), SWEEP, toml),
    "preset": (("preset.toml", lambda path: load_preset(str(path), "tiny")), PRESET, toml),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_in_words(tmp_path, name):
    """ValueError with a text of one line is what readers raise."""
    (file, read), whole, as_text = READERS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)

    def tried(content):
        path.write_bytes(content)
        try:
            read(path)
        except ValueError as error:
            assert str(error), "an error without a text"

    @quick
    @given(contents(whole, as_text))
    def look(content):
        tried(content)

    path.write_bytes(whole)
    read(path)
    for content in ODD:
        tried(content)
    look()


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json"])
def test_json_of_model_folders(tmp_path, file):
    folder = tmp_path / "model"
    source = Path(tiny.MODELS["tiny"])
    for name in ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / name).parent.mkdir(exist_ok=True)
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("*.safetensors")
            shutil.copytree(source / name, folder / name, ignore=ignored)
        else:
            shutil.copy(source / name, folder / name)
    whole = (folder / file).read_bytes()

    def tried(content):
        (folder / file).write_bytes(content)
        for read in (resolve_model, kind_of):
            try:
                read(str(folder))
            except (ValueError, Unknown) as error:
                assert str(error), "an error without a text"

    @quick
    @given(contents(whole))
    def look(content):
        tried(content)

    for content in ODD:
        tried(content)
    look()


def test_parquet_that_is_damaged(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"Caption": ["a kite", "b"] * 20, "Index": list(range(40))})
    pyarrow.parquet.write_table(table, path)
    whole = path.read_bytes()

    @quick
    @given(damaged(whole) | st.binary(max_size=60))
    def look(content):
        path.write_bytes(content)
        try:
            read_prompts(path)
        except ValueError as error:
            assert str(path) in str(error)

    look()


@quick
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(), min_size=1), max_size=5))
def test_a_table_comes_back_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    rows = [{"key": str(i), **row} for i, row in enumerate(rows)]
    rows = [{name: text for name, text in row.items() if is_text(text)} for row in rows]
    write_csv(path, rows)
    read = [{name: text for name, text in row.items() if text} for row in read_csv(path)]
    assert read == [{name: text for name, text in row.items() if text} for row in rows]


def is_text(text: str) -> bool:
    """Whether UTF-8 has it."""
    try:
        return bool(text.encode() or True)
    except UnicodeEncodeError:
        return False


@settings(quick, max_examples=500)
@given(st.text(st.sampled_from("'=+-@\t\r1.e a"), max_size=6))
def test_marks_are_undone_exactly(text):
    assert unmarked(marked(text)) == text
    assert marked(text)[:1] not in ("=", "@", "\t", "\r")


def test_an_index_is_no_way_out_of_the_folder(tmp_path):
    inside = tmp_path / "gt"
    inside.mkdir()
    (tmp_path / "a.png").write_bytes(b"")

    @quick
    @given(pieces | st.sampled_from(["..", ".", "../", "/", "a/..", "\x00"]))
    def look(index):
        assert not References(inside).files(index)

    look()
