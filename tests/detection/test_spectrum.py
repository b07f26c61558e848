"""Spectra of the Hessian: against closed forms of Gaussian mixtures and against matrices whose
eigenvalues are known.
"""

import copy

import numpy as np
import pytest
import torch

from memorization_suite.detection.sharpness import directional
from memorization_suite.detection.spectrum import (
    KINDS,
    ScoreJacobian,
    arnoldi,
    probe,
    ritz,
    spectrum,
)
from memorization_suite.sampling import NoisePredictor
from tests.detection.mixture import DIMENSION, LATENT, exact_hessian, make_predictor
from tests.models import predictor_for

PREDICTIONS = ("epsilon", "v_prediction")
STEP = 25  # t = 481: some of the Hessians below have positive eigenvalues, some have none


def between_modes(predictor: NoisePredictor, t) -> torch.Tensor:
    """Latents near the mean of their prompt's mixture, where its parts share the density."""
    alpha, sigma = predictor.model.alpha_sigma(t)
    centers = (
        predictor.model.unet.means.detach()[predictor.tokens("text")[:, 0, 0].long()]
        .mean(1)
        .reshape(-1, *LATENT)
    )
    noise = torch.stack(
        [
            torch.randn(LATENT, generator=torch.Generator().manual_seed(i))
            for i in range(len(centers))
        ]
    )
    return (alpha * centers + 0.5 * sigma * noise).float()


def mixture_case(prediction_type: str, text=(1, 2, 3)):
    predictor = make_predictor(prediction_type, list(text))
    t = predictor.model.scheduler.timesteps[STEP]
    return predictor, between_modes(predictor, t), t


class Matrices:
    """An operator from matrices (n, d, d)."""

    def __init__(self, matrices: torch.Tensor):
        self.matrices = matrices

    def times(self, v):
        return (self.of_rows(v) @ v[:, :, None])[:, :, 0]

    def transposed(self, v):
        return (self.of_rows(v).mT @ v[:, :, None])[:, :, 0]

    def of_rows(self, v):
        return self.matrices[torch.arange(len(v)) % len(self.matrices)]


def random_matrices(n: int, d: int, *, symmetric: bool = True) -> torch.Tensor:
    drawn = torch.randn(n, d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    return (drawn + drawn.mT) / 2 if symmetric else drawn


def whole(
    matrices: torch.Tensor, method: str = "lanczos", iterations: int = 10_000, probes: int = 1
):
    operator = Matrices(matrices)
    return spectrum(
        operator,
        probe(operator, probes, list(range(len(matrices))), matrices.shape[1]),
        method,
        iterations,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_eigenvalues_of_a_mixture_are_exact(prediction_type, kind):
    predictor, x, t = mixture_case(prediction_type)
    jacobian = ScoreJacobian(predictor, x, t, kind)
    exact = np.linalg.eigvalsh(exact_hessian(predictor, x, t, kind).numpy())
    probes = probe(jacobian, 2, [1, 2, 3], DIMENSION)
    by_lanczos, by_arnoldi = (
        spectrum(jacobian, probes, method, DIMENSION) for method in ("lanczos", "arnoldi")
    )
    for found in (by_lanczos, by_arnoldi):
        assert found.exact and np.abs(found.eigenvalues - exact).max() < 1e-3
        assert (
            found.nonnegative.tolist() == (exact >= 0).sum(1).tolist() == found.estimate.tolist()
            and not found.estimate_error.any()
        )
    assert np.abs(by_lanczos.eigenvalues - by_arnoldi.eigenvalues).max() < 1e-4
    assert by_lanczos.asymmetry.max() < 1e-5
    if kind == "text":
        assert by_lanczos.nonnegative.tolist() == [
            2,
            2,
            0,
        ]  # two saddles between three parts, and a mode


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_short_runs_find_the_ends_of_the_spectrum(prediction_type, kind):
    predictor, x, t = mixture_case(prediction_type)
    jacobian = ScoreJacobian(predictor, x, t, kind)
    exact = np.linalg.eigvalsh(exact_hessian(predictor, x, t, kind).numpy())
    probes = probe(jacobian, 1, [1, 2, 3], DIMENSION)
    by_lanczos, by_arnoldi = (
        spectrum(jacobian, probes, method, 30).eigenvalues for method in ("lanczos", "arnoldi")
    )
    assert by_lanczos.shape == (3, 30) and np.abs(by_lanczos - by_arnoldi).max() < 1e-3
    assert np.abs(by_lanczos[:, [0, -1]] - exact[:, [0, -1]]).max() < 1e-3


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_products_and_sharpness_of_a_mixture_are_exact(prediction_type):
    predictor, x, t = mixture_case(prediction_type)
    _, sigma = predictor.model.alpha_sigma(t)
    hessian = exact_hessian(predictor, x, t, "difference")
    with torch.no_grad():
        delta = predictor.conditional_noise(x, t)
        found = directional(predictor, x, t, delta).flatten(1) / sigma**2
    for i, which in enumerate((1, 2, 3)):
        score = (
            predictor.model.unet.score_and_hessian(x[i], t, which)[0]
            - predictor.model.unet.score_and_hessian(x[i], t, 0)[0]
        )
        assert torch.allclose(-delta[i].flatten().double() / sigma, score, atol=1e-4)
        assert torch.allclose(found[i].double(), hessian[i] @ score, rtol=1e-3, atol=1e-3)
    v = torch.randn(3, DIMENSION, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobian = ScoreJacobian(predictor, x, t, "difference")
    for product in (jacobian.times(v), jacobian.transposed(v)):
        assert torch.allclose(product, (hessian @ v[:, :, None])[:, :, 0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_lies_within_its_error(kind):
    predictor, x, t = mixture_case("epsilon")
    probes = probe(ScoreJacobian(predictor, x, t, kind, at_once=100), 200, [4, 5, 6], DIMENSION)
    trace, error = probes.trace()
    exact = exact_hessian(predictor, x, t, kind).diagonal(0, 1, 2).sum(1)
    assert (error > 0).all() and ((trace - exact).abs() < 3 * error + 1e-4).all()


def test_images_do_not_see_each_other():
    predictor, x, t = mixture_case("v_prediction")
    seeds = [7, 8, 9]

    def found(rows: list[int], at_once: int):
        jacobian = ScoreJacobian(
            predictor.select(torch.tensor(rows)), x[rows], t, "text", at_once=at_once
        )
        probes = probe(jacobian, 3, [seeds[i] for i in rows], DIMENSION)
        return [spectrum(jacobian, probes, method, 12) for method in ("lanczos", "arnoldi")]

    together, alone = found([0, 1, 2], 4), [found([i], 2) for i in range(3)]
    for k, one in enumerate(together):
        for name in ("eigenvalues", "nonnegative", "estimate", "trace", "trace_error"):
            joined = np.concatenate([getattr(parts[k], name) for parts in alone])
            assert np.allclose(getattr(one, name), joined, rtol=1e-4, atol=1e-4, equal_nan=True), (
                name
            )


@pytest.mark.parametrize(("kind", "k"), [("text", 1), ("uncond", 1), ("difference", 2)])
@pytest.mark.parametrize("m", [10, DIMENSION])
def test_unet_rows(kind, k, m):
    predictor, x, t = mixture_case("epsilon", (1, 2))
    jacobian, many = ScoreJacobian(predictor, x, t, kind), 3
    probes = probe(jacobian, many, [1, 2], DIMENSION)
    assert predictor.unet_evals.tolist() == [2 * k * many] * 2
    for method, rows in (
        ("lanczos", 2 * k * (m - 1) * (many if m < DIMENSION else 1)),
        ("arnoldi", k * (m - 1)),
    ):
        before = predictor.unet_evals.clone()
        spectrum(jacobian, probes, method, m)
        assert (predictor.unet_evals - before).tolist() == [rows] * 2, method


def test_the_unet_is_left_alone():
    predictor, x, t = mixture_case("epsilon", (1,))
    before = copy.deepcopy(predictor.model.unet.state_dict())
    jacobian = ScoreJacobian(predictor, x, t, "difference")
    spectrum(jacobian, probe(jacobian, 2, [1], DIMENSION), "lanczos", 5)
    assert (
        all(p.grad is None and p.requires_grad for p in predictor.model.unet.parameters())
        and not x.requires_grad
    )
    assert all(
        torch.equal(value, before[name])
        for name, value in predictor.model.unet.state_dict().items()
    )


def test_on_a_real_unet_the_two_products_are_adjoint(pipe, noise, prompts):
    """z'J v = v'J'z, and J v is what a finite difference says."""
    pipe.scheduler.set_timesteps(50)
    t = pipe.scheduler.timesteps[10]
    predictor = predictor_for(pipe, prompts)
    v, z = (
        torch.randn(
            3, noise[0].numel(), generator=torch.Generator().manual_seed(i), dtype=torch.float64
        )
        for i in (1, 2)
    )
    for kind in KINDS:
        jacobian = ScoreJacobian(predictor, noise, t, kind)
        product = jacobian.times(v)
        assert torch.allclose(
            (z * product).sum(1), (v * jacobian.transposed(z)).sum(1), rtol=1e-3, atol=1e-3
        )
        with torch.no_grad():
            small = 1e-2 * v.float().reshape(noise.shape)
            images = torch.arange(3)
            slope = (
                jacobian.score(noise + small, images, predictor)
                - jacobian.score(noise - small, images, predictor)
            ).flatten(1) / 2e-2
        assert (slope - product).norm() < 0.02 * product.norm()


@pytest.mark.parametrize("d", [1, 2, 30])
def test_a_whole_run_gives_all_eigenvalues(d):
    matrices = random_matrices(3, d)
    found = whole(matrices)
    assert np.allclose(found.eigenvalues, np.linalg.eigvalsh(matrices.numpy()), atol=1e-10)
    assert found.nonnegative.tolist() == (np.linalg.eigvalsh(matrices.numpy()) >= 0).sum(1).tolist()


@pytest.mark.parametrize("method", ["lanczos", "arnoldi"])
def test_multiple_eigenvalues_keep_their_number(method):
    """The Krylov space of a start vector has each eigenvalue once only; the run goes on outside
    it.
    """
    turned = torch.linalg.qr(random_matrices(1, 20, symmetric=False)[0])[0]
    eigenvalues = torch.tensor([-2.0] * 12 + [3.0] * 5 + [5.0, 5.0, 7.0], dtype=torch.float64)
    matrices = torch.stack(
        [
            turned @ torch.diag(eigenvalues) @ turned.T,
            -torch.eye(20, dtype=torch.float64),
            torch.zeros(20, 20).double(),
        ]
    )
    found = whole(matrices, method)
    assert np.allclose(
        found.eigenvalues,
        torch.stack([eigenvalues, -torch.ones(20), torch.zeros(20)]).numpy(),
        atol=1e-9,
    )
    assert found.nonnegative[:2].tolist() == [8, 0] and found.asymmetry.max() < 1e-12


def test_arnoldi_gives_real_parts_of_what_is_not_symmetric():
    matrices = random_matrices(2, 12, symmetric=False)
    found, symmetric = whole(matrices, "arnoldi"), whole(matrices)
    assert np.allclose(
        found.eigenvalues, np.sort(np.linalg.eigvals(matrices.numpy()).real, 1), atol=1e-9
    )
    assert np.allclose(
        symmetric.eigenvalues,
        np.linalg.eigvalsh(((matrices + matrices.mT) / 2).numpy()),
        atol=1e-10,
    )


def test_the_basis_stays_orthogonal():
    """The Hessenberg matrix of a symmetric operator is symmetric to rounding only when it does: H =
    Q'AQ.
    """
    matrices = random_matrices(1, 60) + torch.diag(torch.logspace(0, 6, 60, dtype=torch.float64))
    operator = Matrices(matrices)
    vectors = probe(operator, 1, [0], 60).vectors[0]
    hessenberg = arnoldi(
        operator.times,
        vectors,
        operator.times(vectors),
        iterations=60,
        generators=[torch.Generator()],
    )
    assert (hessenberg - hessenberg.mT).abs().max() < 1e-13 * matrices.abs().max() * 60
    by_lanczos, by_arnoldi = (ritz(hessenberg, name)[0] for name in ("lanczos", "arnoldi"))
    assert np.allclose(by_lanczos, by_arnoldi, rtol=1e-9)


def test_the_estimated_count_lies_within_its_error():
    matrices = random_matrices(2, 400) + 3.0 * torch.eye(400, dtype=torch.float64)
    exact = (np.linalg.eigvalsh(matrices.numpy()) >= 0).sum(1)
    found = whole(matrices, iterations=40, probes=30)
    assert (
        not found.exact and found.eigenvalues.shape == (2, 40) and (found.nonnegative <= 40).all()
    )
    assert (found.estimate_error > 0).all() and (
        np.abs(found.estimate - exact) < 3 * found.estimate_error
    ).all()
    assert (found.estimate_error < 10).all()
    one = whole(matrices, iterations=40)
    assert (
        np.isnan(one.estimate_error).all()
        and np.isnan(one.trace_error).all()
        and np.isfinite(one.estimate).all()
    )
    assert np.isnan(whole(matrices, "arnoldi", iterations=5, probes=2).estimate).all()


def test_asymmetry():
    """Of a rotation by 90 degrees J' = -J, so ||J z - J'z|| = 2 ||J z||."""
    rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    found = whole(torch.stack([rotation, rotation.T @ rotation, 0 * rotation]), probes=5)
    assert found.asymmetry.tolist() == [2.0, 0.0, 0.0]


def test_an_image_that_is_not_finite_harms_no_other():
    matrices = random_matrices(3, 8)
    broken = matrices.clone()
    broken[1, 2, 3] = torch.nan
    for method in ("lanczos", "arnoldi"):
        found, expected = whole(broken, method), whole(matrices, method)
        assert (
            np.isnan(found.eigenvalues[1]).all()
            and np.isnan(found.nonnegative[1])
            and np.isnan(found.estimate[1])
        )
        assert np.array_equal(found.eigenvalues[[0, 2]], expected.eigenvalues[[0, 2]])


def test_what_is_refused():
    predictor, x, t = mixture_case("epsilon")
    with pytest.raises(ValueError, match="no score 'both'; there are text, uncond, difference"):
        ScoreJacobian(predictor, x, t, "both")
    for method, iterations in (("power", 3), ("lanczos", 0)):
        with pytest.raises(ValueError, match="lanczos, arnoldi with at least 1"):
            whole(random_matrices(1, 4), method, iterations)
