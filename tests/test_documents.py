"""The generated parts of the documents are what the code and the stored figures say."""

import re
import tomllib

import pytest

import memorization_suite as suite
from memorization_suite import tiny
from memorization_suite.detection import DETECTORS
from memorization_suite.experiments import documents, result_tables, sd_cost
from memorization_suite.experiments.parity_tables import quirks, repositories, repository_of
from memorization_suite.metrics.base import METRICS, quantity_named
from memorization_suite.mitigation import METHODS
from memorization_suite.mitigation.base import flags


def test_every_part_is_up_to_date():
    """Else: python -m experiments.documents"""
    assert documents.update(check=True) == []


def test_a_changed_entry_is_noticed(monkeypatch):
    """Another paper, cost or default makes the parts stale that show it."""
    monkeypatch.setattr(METHODS["sail"], "paper", "Someone else, 2030")
    stale = documents.update(check=True)
    assert "mitigation/README.md: methods" in stale
    assert "mitigation/README.md: method_sections" in stale


def test_a_part_is_rewritten_and_the_rest_is_left_alone():
    text = "before\n<!-- generated: n -->\nold\nolder\n<!-- end -->\nafter\n"
    made, changed = documents.rewritten(text, {"n": lambda: "new\n"})
    assert made == "before\n<!-- generated: n -->\nnew\n<!-- end -->\nafter\n"
    assert changed == ["n"]
    assert documents.rewritten(made, {"n": lambda: "new\n"}) == (made, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- generated: nn -->\n<!-- end -->\n", "no generated part 'nn'.*Did you mean n?"),
        ("<!-- generated: n -->\nold\n", "n has no line <!-- end -->"),
    ],
)
def test_a_faulty_marker_is_said(text, message):
    with pytest.raises(ValueError, match=message):
        documents.rewritten(text, {"n": lambda: "new\n"})


def test_check_names_what_differs(monkeypatch, capsys, tmp_path):
    """--check changes nothing and exits with 1, without it the document is rewritten."""
    page = tmp_path / "README.md"
    page.write_text("<!-- generated: methods -->\n<!-- end -->\n")
    assert documents.update(tmp_path, check=True) == ["README.md: methods"]
    assert page.read_text().count("\n") == 2
    documents.update(tmp_path)
    assert "`sail`" in page.read_text() and documents.update(tmp_path, check=True) == []


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_how_it_compares(name):
    method = METHODS[name]
    assert method.compared
    for option in flags(method):
        if option.name == "official":
            assert set(option.metadata["repeats"]) == set(option.metadata["choices"])


def test_every_quantity_says_what_it_is():
    for metric in METRICS.values():
        for quantity in metric.quantities:
            assert quantity.what and quantity.variant, quantity.name


@pytest.mark.skipif(not tiny.MODELS["tiny"].is_dir(), reason="no weights in this checkout")
def test_declared_variants_are_those_of_a_run(tmp_path):
    """Of the metrics that need no download."""
    plan = suite.plan(
        model_id="tiny",
        end=1,
        n_samples_per_prompt=2,
        num_inference_steps=2,
        output_path=str(tmp_path),
        quiet=True,
    )
    run = suite.generate(plan)
    results = suite.score(run, unmitigated=run.path, quiet=True).results
    found = {result.quantity: result.variant for result in results}
    assert len(found) >= 8
    for name, variant in found.items():
        declared = quantity_named(name).variant.removesuffix("<method>_<run>")
        assert variant.startswith(declared), name


def test_a_changed_figure_is_noticed(monkeypatch):
    """A number of the stored results, and a measured speed."""
    figures = result_tables.figures

    def changed(model: str, name: str = ""):
        stored = figures(model, name)
        if (model, name) == ("tiny", "methods"):
            stored[0]["copies"]["mean"] = 0.123
        return stored

    monkeypatch.setattr(result_tables, "figures", changed)
    assert documents.update(check=True) == ["docs/RESULTS.md: tiny_methods"]


def test_costs_follow_from_the_measured_speeds(monkeypatch, tmp_path):
    before = sd_cost.sd_cost()
    text = sd_cost.SPEEDS.read_text()
    speeds = tomllib.loads(text)
    for method, seconds in speeds["seconds"].items():
        cost = sd_cost.cost(method, 10)
        assert cost.seconds == pytest.approx(seconds) and cost.bytes == 10 * 512 * 512 * 3
    changed = tmp_path / "speeds.toml"
    changed.write_text(text.replace("no_mitigation = ", "no_mitigation = 9"))
    monkeypatch.setattr(sd_cost, "SPEEDS", changed)
    assert sd_cost.sd_cost() != before


@pytest.mark.parametrize("name", ["readme_methods", "readme_detectors", "readme_results"])
def test_tables_of_the_readme_are_narrow(name):
    assert max(map(len, documents.PARTS[name]().splitlines())) <= 100


def claims() -> list[tuple[str, str, str]]:
    """(what, tolerance, test file) of docs/parity.toml."""
    results = [result for repository in repositories() for result in repository["results"]]
    return [(result["what"], result["within"], result["test"]) for result in results]


@pytest.mark.parametrize(("what", "tolerance", "file"), claims(), ids=str)
def test_a_test_enforces_how_equal_it_is(what, tolerance, file):
    """The named file exists, and contains the tolerance."""
    assert tolerance in (suite.ROOT / file).read_text(encoding="utf-8")


def test_every_method_detector_and_metric_is_claimed():
    told = " ".join(what for what, _, _ in claims())
    without = {"seed_similarity"}  # ours: there is nothing to compare with
    names = {*METHODS, *DETECTORS, "sscd", "clip_gen", "lpips", "image_reward", "fid"} - without
    absent = [name for name in sorted(names) if f"`{name}`" not in told]
    told = f"docs/parity.toml has no result of {', '.join(absent)}"
    assert not absent, f"{told}; one of your own goes into `without` here"
    assert len(claims()) >= 30


def test_the_page_says_why_a_quirk_is_off():
    """Each of them stands in its repository's table, and none there is unknown."""
    text = documents.PARTS["parity"]()
    known = set()
    for quirk in quirks():
        assert f"{quirk.typed} --official {quirk.name}`" in text
        known.add((repository_of(quirk.owner)["paper"], quirk.name))
    told = {(one["paper"], name) for one in repositories() for name in one.get("why", {})}
    assert told == known


def test_methods_are_compared_with_their_code():
    """The repository that a method names is the one it is listed under."""
    for cls in (*METHODS.values(), *DETECTORS.values()):
        if cls.code and cls.name != "no_mitigation":
            assert repository_of(cls.name)["code"] == cls.code


def links() -> list[tuple[str, str]]:
    """(document, target) of every link inside the repository."""
    found = []
    for path in documents.documents():
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
            found.append((path.relative_to(suite.ROOT).as_posix(), target))
    return found


@pytest.mark.parametrize(("file", "target"), links(), ids=str)
def test_links_lead_somewhere(file, target):
    """To a file that is there, and to a heading of it."""
    name, _, heading = target.partition("#")
    path = suite.ROOT / file
    if name:
        path = path.parent / name
    assert path.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert heading in anchors
