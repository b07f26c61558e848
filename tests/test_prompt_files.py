"""Prompt files: what people put into CSV, text and JSON lines, and what is refused."""

import hashlib
import json
import os
import socket

import pyarrow
import pyarrow.parquet
import pytest

from memorization_suite.prompts.files import CAPTION_COLUMNS, Prompt, read_prompts
from memorization_suite.prompts.sets import other_column, prompt_file
from memorization_suite.runs.files import sha256_of

OFFICIAL = """;Caption;URL;type;mean_sscd;max_sscd;Index
0;Mothers influence on her young hippo;http://example.org/a.jpg;VM;0.91;0.93;12
1;"<b>Bold</b> &amp; <i>said</i> ""Let it be""; part two";http://example.org/b;TM;0.5;0.75;340
2;NA;;LM;;;7
"""


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def captions(folder, name, text):
    return [prompt.caption for prompt in read_prompts(write(folder, name, text))]


def test_the_official_layout(tmp_path):
    assert read_prompts(write(tmp_path, "official.csv", OFFICIAL)) == [
        Prompt(0, "Mothers influence on her young hippo", "12", "VM"),
        Prompt(1, '<b>Bold</b> &amp; <i>said</i> "Let it be"; part two', "340", "TM"),
        Prompt(2, "NA", "7", "LM"),
    ]


@pytest.mark.parametrize("delimiter", [";", ","])
@pytest.mark.parametrize(
    "caption",
    [
        "plain",
        'a ""doubled"" quote',
        "a, comma and a; semicolon",
        "two\nlines",
        "two\r\nlines",
        "<a href='x'>HTML</a> &quot;&#39;",
        "Ünï – 猫 🦊",
        " spaces around ",
        "100% {braces} \\n",
    ],
)
def test_a_caption_of_a_csv_file_stays_as_it_is(tmp_path, delimiter, caption):
    text = f'Index{delimiter}Caption\n5{delimiter}"{caption}"\n6{delimiter}next\n'
    found = read_prompts(write(tmp_path, "a.csv", text))
    assert [(prompt.row, prompt.caption, prompt.index) for prompt in found] == [
        (0, caption.replace('""', '"'), "5"),
        (1, "next", "6"),
    ]


@pytest.mark.parametrize(
    "caption", ["NA", "nan", "null", "None", "001", "1e5", "True", "#N/A", "-"]
)
@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", ";Caption\n0;{}\n"), ("a.txt", "{}\n"), ("a.jsonl", '{{"caption": "{}"}}\n')],
)
def test_words_that_look_like_values_stay_text(tmp_path, caption, name, text):
    assert captions(tmp_path, name, text.format(caption)) == [caption]


@pytest.mark.parametrize("row", ["a; b", "a, b", "a\tb", "a; b, c\td", ' said "so"; twice', ";"])
def test_a_csv_file_of_one_column_is_read_by_its_lines(tmp_path, row):
    text = f'Caption\n{row}\n"two ""quoted""\nlines; one caption"\nlast\n'
    assert captions(tmp_path, "a.csv", text) == [row, 'two "quoted"\nlines; one caption', "last"]


def test_a_quote_that_is_open_in_a_file_of_one_column(tmp_path):
    with pytest.raises(ValueError, match="a.csv, line 2: a caption that begins with a quote must"):
        captions(tmp_path, "a.csv", 'Caption\n"Night" by somebody\n')


@pytest.mark.parametrize("name", ["a.csv", "A.CSV"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_file_with_bom_windows_lines_and_one_column(tmp_path, name, bom, newline):
    assert read_prompts(
        write(tmp_path, name, bom + newline.join(["Caption", "a", "b"]).encode())
    ) == [Prompt(0, "a"), Prompt(1, "b")]


def test_a_text_file_has_a_prompt_a_line_and_blank_lines_do_not_count(tmp_path):
    text = '\ufeffone; "two", three\r\n\r\n   \n  four\r\nfive'
    assert read_prompts(write(tmp_path, "a.txt", text)) == [
        Prompt(0, 'one; "two", three'),
        Prompt(1, "  four"),
        Prompt(2, "five"),
    ]


def test_a_text_line_ends_at_a_newline_only(tmp_path):
    assert captions(tmp_path, "a.txt", "one\u2028still one\x0cand on\ntwo\n") == [
        "one\u2028still one\x0cand on",
        "two",
    ]


def test_json_lines(tmp_path):
    text = (
        '{"caption": "a \\"b\\"\\nc", "index": 0, "type": "VM", "more": 1}\n\n{"caption": '
        '"d\u2028e"}\n'
    )
    assert read_prompts(write(tmp_path, "a.jsonl", text)) == [
        Prompt(0, 'a "b"\nc', "0", "VM"),
        Prompt(1, "d\u2028e"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "", "no column 'Caption'"),
        ("a.csv", ";Caption;URL\n", "no prompts"),
        ("a.csv", "Index;Words\n1;a\n", "its columns are Index, Words"),
        ("a.csv", ";Caption\n0;a\n1;b; and more\n", "line 3"),
        ("a.csv", ';Caption\n0;"never closed\n', "line"),
        ("a.csv", ";Caption;URL\n0;;http://x\n", "prompt 0 is empty"),
        ("a.csv", "Index;Caption\n0;a\n1\n", "prompt 1 is empty"),
        ("a.csv", b";Caption\n0;caf\xe9\n", "not UTF-8"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "not UTF-8"),
        ("a.txt", "", "no prompts"),
        ("a.txt", " \r\n\n", "no prompts"),
        ("a.txt", b"abc\0def", "binary"),
        ("a.jsonl", "", "no prompts"),
        ("a.jsonl", '{"caption": "a"}\n\n{"caption": "b"\n', "line 3: not JSON"),
        ("a.jsonl", '{"caption": "a"}\n["b"]\n', "line 2: no text field 'caption'"),
        ("a.jsonl", '{"words": "a"}\n', "line 1 has no text field 'Caption'"),
        ("a.jsonl", '{"caption": null}\n', "line 1: no text field 'caption'"),
        ("a.jsonl", '{"caption": " "}\n', "prompt 0 is empty"),
        ("a.json", "[]", ".csv, .tsv, .txt, .jsonl"),
        ("a", "x", ".csv, .tsv, .txt, .jsonl"),
    ],
)
def test_what_is_refused_names_the_file_and_the_reason(tmp_path, name, text, told):
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError) as error:
        read_prompts(path)
    assert str(path) in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("name", ["missing.csv", "folder.csv"])
def test_a_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="cannot read the prompt file"):
        read_prompts(tmp_path / name)


def test_the_hash_is_that_of_the_bytes(tmp_path):
    path = write(tmp_path, "a.txt", "one\r\n")
    assert sha256_of(path) == hashlib.sha256(b"one\r\n").hexdigest()


# --- columns


@pytest.mark.parametrize("spelled", [str, str.upper, str.title, " {} ".format])
@pytest.mark.parametrize("name", CAPTION_COLUMNS)
@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_common_names_of_the_column_in_any_case(tmp_path, name, spelled, delimiter):
    header = delimiter.join(["id", spelled(name), "INDEX", "Type"])
    text = f"{header}\n1{delimiter}a kite{delimiter}7{delimiter}VM\n"
    assert read_prompts(write(tmp_path, "a.csv", text)) == [Prompt(0, "a kite", "7", "VM")]
    fields = {"id": 1, spelled(name): "a kite", "INDEX": 7, "Type": "VM"}
    read = read_prompts(write(tmp_path, "a.jsonl", json.dumps(fields)))
    assert read == [Prompt(0, "a kite", "7", "VM")]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.csv", "caption,index\na,1\nb,2\n", [("a", "1", ""), ("b", "2", "")]),
        ("a.csv", ",prompt,urls\n0,a b,['x?v=1']\n1,c,\"['x', 'y']\"\n", ["a b", "c"]),
        ("a.tsv", "Prompt\tCategory\na kite\tA\n", ["a kite"]),
        ("a.tsv", "Caption\na, b; c\n", ["a, b; c"]),
        ("a.tsv", "Index;Caption\n3;a\n", [("a", "3", "")]),
        ("a.csv", '"a;b";Caption\n1;x\n', ["x"]),
        ("a.csv", '"a;b;c",Caption\n1,x\n', ["x"]),
        ("a.csv", "prompt;Caption\nleft;right\n", ["right"]),
        ("a.csv", "text;prompt\nleft;right\n", ["right"]),
        ("a.csv", "\n\nCaption\na\n\nb\n", ["a", "b"]),
        ("a.csv", "Index,index,Caption\n1,2,a\n", [("a", "1", "")]),
        ("a.jsonl", '{"prompt": "left", "caption": "right", "Index": 1}', [("right", "1", "")]),
        ("a.jsonl", '{"caption": "a", "type": 0}\n{"caption": "b", "type": 1}', None),
    ],
)
def test_what_is_read_of_a_table(tmp_path, name, text, found):
    if found is None:
        found = [("a", "", "0"), ("b", "", "1")]
    expected = [(each, "", "") if isinstance(each, str) else each for each in found]
    read = read_prompts(write(tmp_path, name, text))
    assert [(prompt.caption, prompt.index, prompt.type) for prompt in read] == expected


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_lines_may_end_with_carriage_returns_alone(tmp_path, name):
    lines = {
        "a.txt": ["a", "b", "c"],
        "a.csv": ["Caption", "a", "b", "c"],
        "a.jsonl": [json.dumps({"caption": text}) for text in "abc"],
    }[name]
    assert captions(tmp_path, name, "".join(f"{line}\r" for line in lines)) == ["a", "b", "c"]


def test_a_carriage_return_in_a_line_is_a_character(tmp_path):
    assert captions(tmp_path, "a.txt", "a\rb\nc\r\n") == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.csv", 'Index;Caption\n1;"Big" kite on a hill\n2;plain\n', 2),
        ("a.csv", 'Index;Caption\n1;"two\nlines"\n2;"Big" kite\n3;x\n', 4),
        ("a.csv", 'Index;Caption\n1;"never closed\n2;x\n3;y\n', 2),
        ("a.csv", 'Index;Caption\n1;"two\nlines";more\n', 2),
        ("a.csv", "\n\nIndex;Caption\n1;a\n\n2;\n", 6),
        ("a.csv", "Index;Caption\r1;a\r2;\r", 3),
        ("a.tsv", "Caption\tIndex\na\tb\tc\n", 2),
        ("a.jsonl", '\n{"caption": "a"}\n{"caption": ""}', 3),
        ("a.jsonl", '{"caption": "a"}\r{"caption": 3}\r', 2),
        ("a.txt", "a\n\n\n\ud800\n".encode("utf-8", "surrogatepass"), None),
    ],
)
def test_messages_name_the_line_where_a_row_begins(tmp_path, name, text, line):
    with pytest.raises(ValueError) as error:
        read_prompts(write(tmp_path, name, text))
    assert line is None or f"{name}, line {line}:" in str(error.value)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("", ["right"]),
        ("Caption", ["right"]),
        ("words", ["left"]),
        (" WORDS", ["left"]),
        ("caption1", ["other"]),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_another_column_is_named(tmp_path, name, column, found):
    fields = {"words": "left", "Caption": "right", "caption1": "other", "Index": 4}
    if name == "a.parquet":
        path = tmp_path / name
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([fields]), path)
    elif name == "a.jsonl":
        path = write(tmp_path, name, json.dumps(fields))
    else:
        path = write(tmp_path, name, "words,Caption,caption1,Index\nleft,right,other,4\n")
    (read,) = read_prompts(path, column)
    assert [read.caption] == found and read.index == "4"
    assert read.alternatives == (() if column == "caption1" else ("other",))
    assert other_column(path, column, [read]) == (column if found != ["right"] else "")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt"])
def test_a_column_that_is_not_there(tmp_path, name):
    path = write(tmp_path, name, '{"caption": "a"}' if name == "a.jsonl" else "caption\na\n")
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"caption": ["a"]}), path)
    with pytest.raises(ValueError, match="nowhere"):
        read_prompts(path, "nowhere")
    assert read_prompts(path, "nowhere", needed=False)[-1].caption == "a"


def test_of_two_columns_the_one_that_is_read_is_said(tmp_path, capsys):
    captions(tmp_path, "a.csv", "text;prompt\na;b\n")
    said = capsys.readouterr().err
    assert "read from the column 'prompt'; --caption_column text reads the other" in said
    captions(tmp_path, "b.csv", "text;Caption\na;b\n")
    assert not capsys.readouterr().err


# --- Parquet


def test_parquet(tmp_path):
    rows = [
        {"Prompt": 'a, "b"\nc', "Index": 3, "type": "VM", "picture": b"\0", "caption1": "d"},
        {"Prompt": "猫", "Index": None, "type": None, "picture": None, "caption1": None},
    ]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    expected = [Prompt(0, 'a, "b"\nc', "3", "VM", ("d",)), Prompt(1, "猫")]
    assert read_prompts(path) == expected


def test_a_data_frame_as_parquet(tmp_path):
    """A column of numbers with a gap is one of floats there."""
    import pandas

    frame = pandas.DataFrame({"caption": ["a", "b"], "Index": [12.0, None], "type": [0, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_prompts(tmp_path / "a.parquet") == [
        Prompt(0, "a", "12", "0"),
        Prompt(1, "b", "", "1"),
    ]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"words": ["a"]}, "has no column 'Caption'"),
        ({"caption": [3]}, "row 0: the column 'caption' holds no text"),
        ({"caption": [["a"]]}, "holds no text"),
        ({"caption": ["a", " "]}, "row 1: prompt 1 is empty"),
        ({"caption": pyarrow.array([], pyarrow.string())}, "has no prompts"),
    ],
)
def test_parquet_that_is_refused(tmp_path, columns, told):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(ValueError) as error:
        read_prompts(path)
    assert str(path) in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 9, b"Caption\na\n"])
def test_what_is_no_parquet(tmp_path, content):
    path = write(tmp_path, "a.parquet", content)
    with pytest.raises(ValueError, match="a.parquet is no Parquet file that can be read"):
        read_prompts(path)


# --- what is no file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl", ".parquet"])
def test_what_is_no_file_is_refused_at_once(tmp_path, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    device = tmp_path / f"device{suffix}"
    device.symlink_to("/dev/zero")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / f"socket{suffix}"))
        for kind in ("pipe", "device", "folder", "socket"):
            with pytest.raises(ValueError, match=f"prompt file .*: it is a {kind}, and no file"):
                read_prompts(tmp_path / f"{kind}{suffix}")


# --- data sets of the hub


def test_all_texts_of_a_data_set(tmp_path, monkeypatch):
    import memorization_suite.prompts.sets

    texts = ["a kite", "=1+1", "'quoted'", "two; parts", "猫"]
    asked = []
    monkeypatch.setattr(
        memorization_suite.prompts.sets, "read_hub", lambda source: asked.append(source) or texts
    )
    for _ in range(2):
        path = prompt_file("hub:owner/name:Prompt", tmp_path)
    assert asked == ["hub:owner/name:Prompt"] and path.parent == tmp_path / "prompt_sets"
    assert [prompt.caption for prompt in read_prompts(path)] == texts
    assert "'=" not in path.read_text(encoding="utf-8")  # prompt files have no marks
    assert prompt_file("hub:owner-name:Prompt", tmp_path) != path
    with pytest.raises(ValueError, match="--caption_column is for prompt files"):
        prompt_file("hub:owner/name:Prompt", tmp_path, "text")
    with pytest.raises(ValueError, match="a data set is written hub:NAME:COLUMN"):
        prompt_file("hub:owner/name", tmp_path)


def test_long_captions(tmp_path):
    """Longer than a field of the module csv may be by default."""
    caption = "word " * 40_000
    assert captions(tmp_path, "a.csv", f"Caption\n{caption}\n") == [caption]


def test_one_field_of_a_file_of_json_lines_holds_the_captions(tmp_path, capsys):
    """That of the first line, which is said where another one may be meant."""
    text = '{"prompt": "a", "text": "ocr 1"}\n{"prompt": "b"}\n'
    file = write(tmp_path, "a.jsonl", text)
    assert [prompt.caption for prompt in read_prompts(file)] == ["a", "b"]
    assert "its captions are read from the column 'prompt'" in capsys.readouterr().err
    file = write(tmp_path, "b.jsonl", '{"caption": "a"}\n{"text": "ocr 2"}\n')
    with pytest.raises(ValueError, match="line 2 has no text field 'caption'"):
        read_prompts(file)


def test_the_column_that_was_typed_is_not_said_to_be_another(tmp_path, capsys):
    file = write(tmp_path, "a.csv", "prompt,text\na,b\n")
    assert other_column(file, "text", read_prompts(file, "text")) == "text"
    assert capsys.readouterr().err == ""
