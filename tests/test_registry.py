"""Methods by name: all are found, official defaults are frozen, wrong settings are refused with a
helpful message.
"""

import dataclasses
from pathlib import Path

import pytest

import memorization_suite.mitigation
from memorization_suite.mitigation import METHODS, Mitigation, build_mitigation
from memorization_suite.mitigation.base import flag, flags, register, value_type
from memorization_suite.runs.cli import listing

FOLDER = Path(memorization_suite.mitigation.__file__).parent


def test_every_file_that_registers_is_found():
    """One `@register` below the folder, one method; nothing else is listed."""
    written = sum(
        path.read_text(encoding="utf-8").count("\n@register(") for path in FOLDER.rglob("*.py")
    )
    assert written == len(METHODS)
    assert {"no_mitigation", "batch_wise", "per_sample", "static_transition"} <= set(METHODS)
    assert list(METHODS) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_describes_itself(name):
    cls = METHODS[name]
    assert cls.name == name
    assert cls.paper and cls.cost and cls.__doc__
    assert all(option.metadata["help"] for option in flags(cls))
    shorts = [option.metadata["short"] for option in flags(cls)]
    assert all(shorts) and len(set(shorts)) == len(shorts)


@pytest.mark.parametrize("name", METHODS)
def test_settings_of_a_method_cannot_change_later(name):
    method = build_mitigation(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.rho = 1.0


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        (
            "batch_wise",
            {"rho": 50.0, "gamma": 0.7, "adj_iters": 2, "apply_cfg_step": 4, "tau": None},
        ),
        ("per_sample", {"lr": 0.01, "target_loss": 0.9, "optim_iters": 1000, "weight_decay": 0.01}),
    ],
)
def test_official_defaults_are_frozen(name, defaults):
    method = build_mitigation(name)
    assert {key: getattr(method, key) for key in defaults} == defaults


@pytest.mark.parametrize(
    ("name", "settings", "folder"),
    [
        ("no_mitigation", {}, {}),
        ("batch_wise", {}, {"rho": 50.0, "gamma": 0.7, "M": 2, "step": 4}),
        ("batch_wise", {"tau": 900.0}, {"rho": 50.0, "gamma": 0.7, "M": 2, "tau": 900.0}),
        ("per_sample", {}, {"lr": 0.01, "tl": 0.9, "oi": 1000}),
        (
            "per_sample",
            {"weight_decay": 0.0, "grad_rows": 4},
            {"lr": 0.01, "tl": 0.9, "oi": 1000, "wd": 0.0},
        ),
        ("static_transition", {}, {"tau": 500.0}),
        ("static_transition", {"cfg_step": 3}, {"step": 3}),
    ],
)
def test_settings_in_folder_names(name, settings, folder):
    """Names, values and order; what does not change the images is left out."""
    assert list(build_mitigation(name, **settings).named_values().items()) == list(folder.items())


def test_a_whole_number_names_the_same_folder_as_its_float():
    """rho=50 and rho=50.0 are the same run."""
    assert str(build_mitigation("batch_wise", rho=50).named_values()) == str(
        build_mitigation("batch_wise", rho=50.0).named_values()
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("batchwise", {}, r"no method 'batchwise'; there are .*batch_wise.*per_sample"),
        ("batch_wise", {"lr": 0.1}, r"batch_wise does not take 'lr'; it takes rho, gamma"),
        ("no_mitigation", {"rho": 1.0}, r"no_mitigation does not take 'rho'; it takes nothing"),
        ("batch_wise", {"rho": 0.0}, r"--rho 0.0 is out of range.*above 0"),
        ("batch_wise", {"rho": -1.0}, r"--rho -1.0 is out of range.*above 0"),
        ("batch_wise", {"rho": float("nan")}, r"--rho nan is out of range.*finite"),
        ("batch_wise", {"gamma": float("inf")}, r"--gamma inf is out of range.*at least 0"),
        ("batch_wise", {"adj_iters": -1}, r"--adj_iters -1 is out of range.*at least 0"),
        ("batch_wise", {"apply_cfg_step": -2}, r"--apply_cfg_step -2 is out of range.*at least -1"),
        ("batch_wise", {"adj_iters": 2.0}, r"--adj_iters must be of type int, not 2.0"),
        ("batch_wise", {"adj_iters": True}, r"--adj_iters must be of type int, not True"),
        ("batch_wise", {"rho": "50"}, r"--rho must be of type float, not '50'"),
        ("batch_wise", {"rho": None}, r"--rho must be of type float, not None"),
        ("per_sample", {"target_loss": 0.0}, r"--target_loss 0.0 is out of range.*above 0"),
        ("per_sample", {"lr": 0}, r"--lr 0 is out of range.*above 0"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation(name, **settings)


def test_a_new_method_needs_no_list(registries):
    @register("toy", paper="none", cost="2N + 1")
    class Toy(Mitigation):
        """A toy."""

        strength: float = flag(1.5, "how strong", above=0.0)
        kind: str = flag("plain", "which kind", always_named=False)
        cap: int | None = flag(None, "cap")

    assert METHODS["toy"] is Toy
    assert (Toy.name, Toy.paper, Toy.cost) == ("toy", "none", "2N + 1")
    assert build_mitigation("toy").named_values() == {"strength": 1.5}
    assert build_mitigation("toy", strength=2.0, kind="odd", cap=3).named_values() == {
        "strength": 2.0,
        "kind": "odd",
        "cap": 3,
    }
    with pytest.raises(ValueError, match="--strength 0.0 is out of range"):
        build_mitigation("toy", strength=0.0)
    with pytest.raises(ValueError, match="--kind must be of type str, not 3"):
        build_mitigation("toy", kind=3)


def test_a_new_method_is_one_file(registries, tmp_path, monkeypatch):
    """A file in the folder, no edit elsewhere: listed, with its flag, and built."""
    (tmp_path / "halved_noise.py").write_text('''"""Halves the noise."""
from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, register


@register("halved_noise", paper="none", cost="2N")
class HalvedNoise(Mitigation):
    """The noise times a factor."""

    noise_factor: float = flag(0.5, "factor", above=0.0)

    def adjust_initial_noise(self, predictor, x, t, batch):
        return Adjustment(self.noise_factor * x)
''')
    monkeypatch.setattr(
        memorization_suite.mitigation,
        "__path__",
        [*memorization_suite.mitigation.__path__, str(tmp_path)],
    )
    monkeypatch.setattr(METHODS, "is_loaded", False)
    assert (
        "halved_noise" in METHODS
        and build_mitigation("halved_noise", noise_factor=0.25).noise_factor == 0.25
    )
    listed = listing(METHODS)
    assert "halved_noise" in listed and "--noise_factor" in listed


def test_two_methods_cannot_share_a_name(registries):
    first = METHODS["batch_wise"]
    with pytest.raises(ValueError, match="two methods are called 'batch_wise'"):
        register("batch_wise", paper="none")(type("Other", (Mitigation,), {}))
    assert METHODS["batch_wise"] is first


def test_a_flag_of_an_odd_type_is_refused_where_it_is_written(registries):
    """Annotations may be texts or types: `Path | None` is one flag either way."""

    class Typed(Mitigation):
        """Written without annotations as texts."""

        __annotations__ = {"file": Path | None, "several": tuple[int, ...], "share": float}
        file = flag(None, "a file")
        several = flag((1, 2), "numbers")
        share = flag(0.5, "a share")

    made = register("typed", paper="none")(Typed)
    assert [value_type(option) for option in flags(made)] == [Path, int, float]
    Odd = type("Odd", (Mitigation,), {"__annotations__": {"odd": dict}, "odd": flag(None, "odd")})
    with pytest.raises(TypeError, match="the flag odd is of type dict; possible are int, float"):
        register("odd", paper="none")(Odd)
