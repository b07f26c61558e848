"""Spectrum of the Hessian of the log density, which is the Jacobian of a score.

Jeon et al., ICML 2025. Products with the Jacobian are float32 passes through the UNet, whatever its
dtype, everything else is float64. n images of d values; a product takes (r, d), row k by the matrix
of image k % n, so that several vectors of each image go at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from memorization_suite.runs.lazy import np, torch
from memorization_suite.sampling import NoisePredictor
from memorization_suite.sampling.gradients import forward_mode_images, forward_product
from memorization_suite.sampling.noise import stream

KINDS = ("text", "uncond", "difference")
OPERATORS = ("lanczos", "arnoldi")
Product = Callable[["torch.Tensor"], "torch.Tensor"]


class Operator(Protocol):
    """A square matrix for each of n images, known by its products.

    v and results: (r, d) float64, row k of image k % n.
    """

    def times(self, v: torch.Tensor) -> torch.Tensor:
        """J v."""

    def transposed(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v."""


class ScoreJacobian:
    """Jacobian of s(x) = -e / sigma where the UNet reads x; d = 4 h w.

    A product costs one NFE a vector, two for the difference.

    kind: text s(x, c), uncond s(x, ""), or their difference. x: (n, 4, h, w) of unit variance.
    at_once: vectors that go through the UNet together, fewer where memory is limited. Raises
    ValueError for another kind.
    """

    def __init__(
        self, predictor: NoisePredictor, x: torch.Tensor, t, kind: str, *, at_once: int = 4
    ):
        if kind not in KINDS:
            raise ValueError(f"there is no score {kind!r}; there are {', '.join(KINDS)}")
        self.predictor = predictor
        self.x = x.detach().float()
        self.t = t
        self.kind = kind
        rows = 2 if kind == "difference" else 1
        self.at_once = forward_mode_images(predictor.model, rows, most=at_once)
        _, self.sigma = predictor.model.alpha_sigma(t)

    def score(
        self, x: torch.Tensor, images: torch.Tensor, predictor: NoisePredictor
    ) -> torch.Tensor:
        """s(x) of these images, (k, 4, h, w) float32."""
        prediction = predictor.select(images).at(x, self.t)
        if self.kind == "difference":
            e = prediction.conditional
        elif self.kind == "text":
            e = prediction.text
        else:
            e = prediction.uncond
        return -e.float() / self.sigma

    def times(self, v: torch.Tensor) -> torch.Tensor:
        """J v by forward-mode differentiation."""
        with torch.no_grad():
            sparing = self.predictor.model.limits.forward is not None
            return self.in_parts(partial(forward_product, sparing=sparing), v)

    def transposed(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v by reverse-mode differentiation, with respect to x alone."""
        with torch.enable_grad(), self.predictor.model.frozen():
            return self.in_parts(reverse_product, v)

    def in_parts(self, product: Callable[..., torch.Tensor], v: torch.Tensor) -> torch.Tensor:
        """A product of (r, d) vectors, `at_once` at a time."""
        products = []
        with self.predictor.in_float32() as exact:
            for rows in torch.arange(len(v)).split(self.at_once):
                images = rows % len(self.x)
                score = partial(self.score, images=images, predictor=exact)
                x = self.x[images]
                part = v[rows].float().reshape(x.shape)
                products.append(product(score, x, part).flatten(1).double())
        return torch.cat(products)


def reverse_product(score: Product, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """J^T v, J the Jacobian of the score at x."""
    x = x.requires_grad_()
    (product,) = torch.autograd.grad(score(x), x, v)
    return product


@dataclass
class Probes:
    """Random unit vectors with entries +-1/sqrt(d), and their products: (probes, n, d) each."""

    vectors: torch.Tensor
    products: torch.Tensor
    transposed: torch.Tensor
    # One an image, for further draws.
    seeds: list[int]

    def trace(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Hutchinson's estimate of tr J and its standard error, (n,) each.

        The error of a single probe is nan.
        """
        dimension = self.vectors.shape[2]
        return mean_and_error((self.vectors * self.products).sum(2) * dimension)

    def asymmetry(self) -> torch.Tensor:
        """Mean of ||J z - J^T z|| / ||J z||, (n,); 0 where both are 0."""
        gap = torch.linalg.vector_norm(self.products - self.transposed, dim=2)
        size = torch.linalg.vector_norm(self.products, dim=2)
        return torch.where(gap > 0, gap / size, gap).mean(0)


def probe(
    operator: Operator,
    count: int,
    seeds: list[int],
    dimension: int,
    device: torch.device | str = "cpu",
) -> Probes:
    """Probes of every image and their products.

    seeds: one an image; equal seeds give equal probes, whatever the batch.
    """
    shape = (count, dimension)
    bits = [torch.randint(2, shape, generator=stream(seed, "probes")) for seed in seeds]
    signs = 2 * torch.stack(bits, 1).double() - 1
    vectors = (signs / dimension**0.5).to(device)
    flat = vectors.flatten(0, 1)
    products = operator.times(flat).reshape(vectors.shape)
    transposed = operator.transposed(flat).reshape(vectors.shape)
    return Probes(vectors, products, transposed, seeds)


def mean_and_error(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over the first dimension and its standard error, nan for a single value."""
    mean = values.mean(0)
    if len(values) == 1:
        return mean, torch.full_like(mean, torch.nan)
    return mean, values.std(0) / len(values) ** 0.5


def orthogonalize(w: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """w less its part in the span of the basis, and the coefficients of that part.

    w: (r, d); basis: (r, k, d), orthonormal. Gram-Schmidt with all vectors at once, twice: what the
    first round leaves of them by rounding goes in the second.
    """
    coefficients = w.new_zeros(basis.shape[:2])
    for _ in range(2):
        part = torch.einsum("rkd,rd->rk", basis, w)
        w = w - torch.einsum("rk,rkd->rd", part, basis)
        coefficients = coefficients + part
    return w, coefficients


def following(
    w: torch.Tensor, basis: torch.Tensor, scale: torch.Tensor, generators: list[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next vector of the basis and the length of w, which is orthogonal to it.

    Where w is nothing but rounding (below 1e-10 of scale (r,)) the space is invariant: a random
    vector orthogonal to it and length 0.
    """
    length = torch.linalg.vector_norm(w, dim=1)
    ended = length <= 1e-10 * scale
    for i in ended.nonzero().flatten().tolist():
        drawn = torch.randn(1, w.shape[1], generator=generators[i], dtype=w.dtype)
        row = slice(i, i + 1)
        w[row], _ = orthogonalize(drawn.to(w.device), basis[row])
    q = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return q, torch.where(ended, 0.0, length)


def arnoldi(
    product: Product,
    q: torch.Tensor,
    w: torch.Tensor,
    *,
    iterations: int,
    generators: list[torch.Generator],
) -> torch.Tensor:
    """Hessenberg matrices of the operator in the Krylov spaces, (r, m, m), m = min(iterations, d).

    Every new vector is orthogonalized against all before it, so for a symmetric operator this is
    Lanczos with full reorthogonalization and the matrix is tridiagonal to rounding. q: where the
    spaces begin, unit vectors (r, d) float64; w: their products. generators: one a row, for vectors
    beyond a space that is invariant.
    """
    r, d = q.shape
    m = min(iterations, d)
    basis = q.new_zeros(r, m, d)
    hessenberg = q.new_zeros(r, m, m)
    scale = q.new_zeros(r)
    for k in range(m):
        if k > 0:
            w = product(q)
        basis[:, k] = q
        so_far = basis[:, : k + 1]
        scale = torch.maximum(scale, torch.linalg.vector_norm(w, dim=1))
        w, hessenberg[:, : k + 1, k] = orthogonalize(w, so_far)
        if k + 1 < m:
            q, hessenberg[:, k + 1, k] = following(w, so_far, scale, generators)
    return hessenberg


def ritz(hessenberg: torch.Tensor, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values, ascending (arnoldi: their real parts), and weights in the start vector, which
    add up to one (arnoldi: nan).

    (r, m) each, nan where the matrix is not finite. Lanczos' matrices are what is on and below the
    diagonal, which is all that eigh reads.
    """
    matrices = array(hessenberg)
    broken = ~np.isfinite(matrices).all((1, 2))
    matrices = np.where(broken[:, None, None], 0.0, matrices)  # so that the solvers take them
    if method == "arnoldi":
        values = np.sort(np.linalg.eigvals(matrices).real, 1)
        weights = np.full(values.shape, np.nan)
    else:
        values, vectors = np.linalg.eigh(matrices)
        weights = vectors[:, 0] ** 2
    values[broken] = np.nan
    return values, weights


@dataclass
class Spectrum:
    """What is known of the n images' spectra."""

    # Are the eigenvalues all there are? Else they are Ritz values.
    exact: bool
    # (n, m), ascending.
    eigenvalues: np.ndarray
    # How many of them are at least 0, (n,) as all that follow.
    nonnegative: np.ndarray
    # Of all d eigenvalues, by stochastic Lanczos quadrature over the probes; the count itself if
    # exact, nan for Arnoldi, which has no quadrature.
    estimate: np.ndarray
    # Its standard error, 0 if exact.
    estimate_error: np.ndarray
    # Hutchinson's.
    trace: np.ndarray
    trace_error: np.ndarray
    # See `Probes.asymmetry`.
    asymmetry: np.ndarray


def spectrum(operator: Operator, probes: Probes, method: str, iterations: int) -> Spectrum:
    """Spectrum of (J + J^T) / 2 by lanczos, or of J by arnoldi (real parts), from the first probe;
    the others are for the estimate.

    NFE of an image, k a product (1; 2 for the difference), m = min(iterations, d), P probes:
    2kP for the probes, and beyond them 2k(m - 1)P for lanczos, 2k(m - 1) if m = d, k(m - 1) for
    arnoldi. Raises ValueError.
    """
    if method not in OPERATORS or iterations < 1:
        raise ValueError(
            f"{method!r} with {iterations} iterations is not possible; there are "
            f"{', '.join(OPERATORS)} with at least 1"
        )
    many, n, d = probes.vectors.shape
    exact = iterations >= d

    def symmetric(v: torch.Tensor) -> torch.Tensor:
        return (operator.times(v) + operator.transposed(v)) / 2

    product = operator.times
    products = probes.products
    if method == "lanczos":
        product = symmetric
        products = (probes.products + probes.transposed) / 2
    if exact or method == "arnoldi":
        many = 1  # there is nothing to estimate
    hessenberg = arnoldi(
        product,
        probes.vectors[:many].flatten(0, 1),
        products[:many].flatten(0, 1),
        iterations=iterations,
        generators=[stream(seed, "krylov start") for seed in probes.seeds * many],
    )
    values, weights = ritz(hessenberg, method)
    nonnegative = np.heaviside(values, 1.0)  # 1 or 0, nan of nan
    count = nonnegative[:n].sum(1)
    shares = (weights * nonnegative).sum(1).reshape(many, n)
    estimate, error = mean_and_error(torch.from_numpy(d * shares))
    trace, trace_error = probes.trace()
    return Spectrum(
        exact=exact,
        eigenvalues=values[:n],
        nonnegative=count,
        estimate=count if exact else array(estimate),
        estimate_error=0 * count if exact else array(error),
        trace=array(trace),
        trace_error=array(trace_error),
        asymmetry=array(probes.asymmetry()),
    )


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor for numpy."""
    return tensor.cpu().numpy()
