"""Spectrum of the Hessian of the log density, which is the Jacobian of a score.

Jeon et al., ICML 2025. Products with the Jacobian are float32 passes through the UNet, everything
else is float64. n images of d values; a product takes (r, d), row k by the matrix of image k % n,
so that several vectors of each image go at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from memorization_suite.runs.lazy import no_grad, np, torch
from memorization_suite.sampling import NoisePredictor
from memorization_suite.sampling.gradients import forward_product
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

    A product costs one UNet row a vector, two for the difference. The UNet should be float32.

    kind: text s(x, c), uncond s(x, ""), or their difference. x: (n, 4, h, w) of unit variance.
    at_once: vectors that go through the UNet together. Raises ValueError for another kind.
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
        self.at_once = at_once
        _, self.sigma = predictor.model.alpha_sigma(t)

    def score(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """s(x) of these images, (k, 4, h, w) float32."""
        prediction = self.predictor.select(images).at(x, self.t)
        if self.kind == "difference":
            e = prediction.conditional
        elif self.kind == "text":
            e = prediction.text
        else:
            e = prediction.uncond
        return -e.float() / self.sigma

    def times(self, v: torch.Tensor) -> torch.Tensor:
        """J v by forward-mode differentiation."""
        return self.in_parts(self.forward_product, v)

    def transposed(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v by reverse-mode differentiation, with respect to x alone."""
        return self.in_parts(self.reverse_product, v)

    def in_parts(self, product: Callable[..., torch.Tensor], v: torch.Tensor) -> torch.Tensor:
        """A product of (r, d) vectors, `at_once` at a time."""
        products = []
        for rows in torch.arange(len(v)).split(self.at_once):
            images = rows % len(self.x)
            x = self.x[images.to(self.x.device)]
            part = v[rows.to(v.device)].float().reshape(x.shape)
            products.append(product(x, part, images).flatten(1).double())
        return torch.cat(products)

    @no_grad
    def forward_product(
        self, x: torch.Tensor, v: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """J v of these images."""
        return forward_product(lambda x: self.score(x, images), x, v)

    def reverse_product(
        self, x: torch.Tensor, v: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """J^T v of these images."""
        with torch.enable_grad(), self.predictor.model.frozen():
            x = x.requires_grad_()
            return torch.autograd.grad(self.score(x, images), x, v)[0]


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
    signs = []
    for seed in seeds:
        generator = stream(seed, "probes")
        signs.append(torch.randint(2, (count, dimension), generator=generator))
    vectors = ((2 * torch.stack(signs, 1) - 1).double() / dimension**0.5).to(device)
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
        part = (basis @ w[:, :, None])[:, :, 0]
        w = w - (part[:, None, :] @ basis)[:, 0]
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
        drawn = torch.randn(1, w.shape[1], generator=generators[i], dtype=w.dtype).to(w.device)
        direction, _ = orthogonalize(drawn, basis[i : i + 1])
        w[i] = direction[0]
    q = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return q, torch.where(ended, 0.0, length)


@dataclass
class Start:
    """Where Krylov spaces begin, a row each."""

    # Unit vectors, (r, d) float64.
    vectors: torch.Tensor
    # The operator's products with them.
    products: torch.Tensor
    # For vectors beyond a space that is invariant.
    generators: list[torch.Generator]


def arnoldi(product: Product, start: Start, iterations: int) -> torch.Tensor:
    """Hessenberg matrices of the operator in the Krylov spaces, (r, m, m), m = min(iterations, d).

    Every new vector is orthogonalized against all before it, so for a symmetric operator this is
    Lanczos with full reorthogonalization and the matrix is tridiagonal to rounding.
    """
    r, d = start.vectors.shape
    m = min(iterations, d)
    basis = start.vectors.new_zeros(r, m, d)
    hessenberg = start.vectors.new_zeros(r, m, m)
    scale = start.vectors.new_zeros(r)
    q = start.vectors
    for k in range(m):
        basis[:, k] = q
        w = product(q) if k else start.products
        scale = torch.maximum(scale, torch.linalg.vector_norm(w, dim=1))
        w, hessenberg[:, : k + 1, k] = orthogonalize(w, basis[:, : k + 1])
        if k + 1 < m:
            q, hessenberg[:, k + 1, k] = following(w, basis[:, : k + 1], scale, start.generators)
    return hessenberg


def tridiagonal(hessenberg: torch.Tensor) -> torch.Tensor:
    """What Lanczos gives: the matrices of a symmetric operator without their rounding."""
    diagonal = hessenberg.diagonal(0, 1, 2)
    beside = hessenberg.diagonal(-1, 1, 2)
    return torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)


def without_broken(matrices: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The matrices with zeros where one is not finite, and which are, (n,)."""
    values = array(matrices)
    broken = ~np.isfinite(values).all((1, 2))
    return np.where(broken[:, None, None], 0.0, values), broken


def ritz(symmetric: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values, ascending, and their weights in the start vector, which add up to one.

    (n, m) each, nan where the matrix is not finite.
    """
    matrices, broken = without_broken(symmetric)
    values, vectors = np.linalg.eigh(matrices)
    values[broken] = np.nan
    return values, vectors[:, 0, :] ** 2


def ritz_real(hessenberg: torch.Tensor) -> np.ndarray:
    """Real parts of the Ritz values, ascending, (n, m); nan where the matrix is not finite."""
    matrices, broken = without_broken(hessenberg)
    values = np.sort(np.linalg.eigvals(matrices).real, 1)
    values[broken] = np.nan
    return values


def not_negative(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """The weight of those that are at least 0, (n, m) -> (n,) float; nan where there are nan.

    Without weights how many they are; with those of Ritz values the share of all eigenvalues, by
    stochastic Lanczos quadrature.
    """
    weight = (weights * (values >= 0)).sum(1)
    return np.where(np.isfinite(values).all(1), weight, np.nan)


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

    UNet rows of an image, k a product (1; 2 for the difference), m = min(iterations, d), P probes:
    2kP for the probes, and beyond them 2k(m - 1)P for lanczos, 2k(m - 1) if m = d, k(m - 1) for
    arnoldi. Raises ValueError.
    """
    if method not in OPERATORS or iterations < 1:
        raise ValueError(
            f"{method!r} with {iterations} iterations is not possible; there are "
            f"{', '.join(OPERATORS)} with at least 1"
        )
    by_method = by_arnoldi if method == "arnoldi" else by_lanczos
    values, estimate, error = by_method(operator, probes, iterations)
    count = not_negative(values)
    exact = iterations >= probes.vectors.shape[2]
    if exact:
        estimate = count
        error = 0 * count
    trace, trace_error = probes.trace()
    return Spectrum(
        exact=exact,
        eigenvalues=values,
        nonnegative=count,
        estimate=estimate,
        estimate_error=error,
        trace=array(trace),
        trace_error=array(trace_error),
        asymmetry=array(probes.asymmetry()),
    )


def by_arnoldi(operator: Operator, probes: Probes, iterations: int) -> tuple[np.ndarray, ...]:
    """Real parts of J's Ritz values (n, m), and nan in the place of an estimate and its error."""
    start = Start(probes.vectors[0], probes.products[0], krylov_streams(probes.seeds))
    values = ritz_real(arnoldi(operator.times, start, iterations))
    unknown = np.full(len(values), np.nan)
    return values, unknown, unknown


def by_lanczos(operator: Operator, probes: Probes, iterations: int) -> tuple[np.ndarray, ...]:
    """Ritz values of (J + J^T) / 2, (n, m), the estimated count and its standard error, (n,)."""

    def symmetric(v: torch.Tensor) -> torch.Tensor:
        return (operator.times(v) + operator.transposed(v)) / 2

    many, n, d = probes.vectors.shape
    if iterations >= d:
        many = 1  # all eigenvalues: there is nothing to estimate
    start = Start(
        vectors=probes.vectors[:many].flatten(0, 1),
        products=((probes.products + probes.transposed) / 2)[:many].flatten(0, 1),
        generators=krylov_streams(probes.seeds * many),
    )
    values, weights = ritz(tridiagonal(arnoldi(symmetric, start, iterations)))
    estimates = torch.from_numpy(d * not_negative(values, weights)).reshape(many, n)
    estimate, error = mean_and_error(estimates)
    return values[:n], array(estimate), array(error)


def krylov_streams(seeds: list[int]) -> list[torch.Generator]:
    """One a seed."""
    return [stream(seed, "krylov start") for seed in seeds]


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor for numpy."""
    return tensor.cpu().numpy()
