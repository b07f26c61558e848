"""Prompt files: what people put into CSV, text and JSON lines, and what is refused."""

import hashlib

import pytest

from memorization_suite.prompts.files import Prompt, read_prompts
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
        ("a.csv", "Index;Text\n1;a\n", "its columns are Index, Text"),
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
        ("a.jsonl", '{"prompt": "a"}\n', "line 1: no text field 'caption'"),
        ("a.jsonl", '{"caption": null}\n', "line 1: no text field 'caption'"),
        ("a.jsonl", '{"caption": " "}\n', "prompt 0 is empty"),
        ("a.json", "[]", ".csv, .txt, .jsonl"),
        ("a", "x", ".csv, .txt, .jsonl"),
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
