"""Spectrum of the Hessian of the log density, which is the Jacobian of a score: Jeon et al., ICML
2025.

Products with the Jacobian are float32 passes through the UNet, everything else is float64. n images
of d values; a product takes (r, d), row k by the matrix of image k % n, so that several vectors of
each image go at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from memorization_suite.lazy import forward_ad, no_grad, np, torch, torch_attention
from memorization_suite.sampling import NoisePredictor, alpha_sigma
from memorization_suite.sampling.gradients import frozen
from memorization_suite.sampling.noise import stream

KINDS = ("text", "uncond", "difference")
OPERATORS = ("lanczos", "arnoldi")
Product = Callable[["torch.Tensor"], "torch.Tensor"]


class Operator(Protocol):
    """A square matrix for each of n images, known by its products; v and results: (r, d) float64,
    row k of image k % n.
    """

    def times(self, v: torch.Tensor) -> torch.Tensor:
        """J v."""

    def transposed(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v."""


class ScoreJacobian:
    """Jacobian of s(x) = -e / sigma where the UNet reads x; d = 4 h w. A product costs one UNet row
    a vector, two for the difference.

    kind: text s(x, c), uncond s(x, ""), or their difference. x: (n, 4, h, w) of unit variance. The
    UNet should be float32. at_once: vectors that go through the UNet together.
    """

    def __init__(
        self, predictor: NoisePredictor, x: torch.Tensor, t, kind: str, *, at_once: int = 4
    ):
        if kind not in KINDS:
            raise ValueError(f"there is no score {kind!r}; there are {', '.join(KINDS)}")
        self.predictor, self.x, self.t, self.kind, self.at_once = (
            predictor,
            x.detach().float(),
            t,
            kind,
            at_once,
        )
        _, self.sigma = alpha_sigma(predictor.scheduler, t)

    def score(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """s(x) of these images, (k, 4, h, w) float32."""
        prediction = self.predictor.select(images).at(x, self.t)
        e = (
            prediction.conditional
            if self.kind == "difference"
            else prediction.text
            if self.kind == "text"
            else prediction.uncond
        )
        return -e.float() / self.sigma

    def times(self, v: torch.Tensor) -> torch.Tensor:
        """J v by forward-mode differentiation."""
        return self.in_parts(self.forward_product, v)

    def transposed(self, v: torch.Tensor) -> torch.Tensor:
        """J^T v by reverse-mode differentiation, with respect to x alone."""
        return self.in_parts(self.reverse_product, v)

    def in_parts(self, product: Callable[..., torch.Tensor], v: torch.Tensor) -> torch.Tensor:
        """A product of (r, d) vectors, some at a time."""
        parts = []
        for rows in torch.arange(len(v)).split(self.at_once):
            images = rows % len(self.x)
            x = self.x[images.to(self.x.device)]
            parts.append(
                product(x, v[rows.to(v.device)].float().reshape(x.shape), images)
                .flatten(1)
                .double()
            )
        return torch.cat(parts)

    @no_grad
    def forward_product(
        self, x: torch.Tensor, v: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        with (
            forward_ad.dual_level(),
            torch_attention.sdpa_kernel(torch_attention.SDPBackend.MATH),
        ):  # fused attention has no forward mode
            return forward_ad.unpack_dual(self.score(forward_ad.make_dual(x, v), images)).tangent

    def reverse_product(
        self, x: torch.Tensor, v: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        with torch.enable_grad(), frozen(self.predictor.unet):
            x = x.requires_grad_()
            return torch.autograd.grad(self.score(x, images), x, v)[0]


@dataclass
class Probes:
    """Random unit vectors with entries +-1/sqrt(d), and their products: (probes, n, d) each. seeds:
    one an image, for further draws.
    """

    vectors: torch.Tensor
    products: torch.Tensor
    transposed: torch.Tensor
    seeds: list[int]

    def trace(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Hutchinson's estimate of tr J and its standard error, (n,) each; the error of a single
        probe is nan.
        """
        return mean_and_error((self.vectors * self.products).sum(2) * self.vectors.shape[2])

    def asymmetry(self) -> torch.Tensor:
        """Mean of ||J z - J^T z|| / ||J z||, (n,); 0 where both are 0."""
        gap, size = (
            torch.linalg.vector_norm(v, dim=2)
            for v in (self.products - self.transposed, self.products)
        )
        return torch.where(gap > 0, gap / size, gap).mean(0)


def probe(
    operator: Operator,
    count: int,
    seeds: list[int],
    dimension: int,
    device: torch.device | str = "cpu",
) -> Probes:
    """Probes of every image and their products. seeds: one an image; equal seeds give equal probes,
    whatever the batch.
    """
    generators = [stream(seed, "probes") for seed in seeds]
    signs = torch.stack(
        [torch.randint(2, (count, dimension), generator=generator) for generator in generators], 1
    )
    vectors = ((2 * signs - 1).double() / dimension**0.5).to(device)
    products, transposed = (
        product(vectors.flatten(0, 1)).reshape(vectors.shape)
        for product in (operator.times, operator.transposed)
    )
    return Probes(vectors, products, transposed, seeds)


def mean_and_error(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over the first dimension and its standard error, nan for a single value."""
    alone = len(values) == 1
    return values.mean(0), torch.full_like(values[0], torch.nan) if alone else values.std(0) / len(
        values
    ) ** 0.5


def orthogonalise(w: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """w less its part in the span of the basis, and the coefficients of that part. w: (r, d);
    basis: (r, k, d), orthonormal.

    Gram-Schmidt with all vectors at once, twice: what the first round leaves of them by rounding
    goes in the second.
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
        w[i] = orthogonalise(drawn, basis[i : i + 1])[0][0]
    return w / torch.linalg.vector_norm(w, dim=1, keepdim=True), torch.where(ended, 0.0, length)


def arnoldi(
    product: Product,
    start: torch.Tensor,
    iterations: int,
    generators: list[torch.Generator],
    first: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hessenberg matrices of the operator in the Krylov spaces of the rows of `start`, (r, m, m), m
    = min(iterations, d).

    start: unit vectors (r, d) float64. first: the product with them, where known. generators: one a
    row. Every new vector is orthogonalised against all before it, so for a symmetric operator this
    is Lanczos with full reorthogonalisation and the matrix is tridiagonal to rounding.
    """
    r, d = start.shape
    m = min(iterations, d)
    basis, hessenberg = start.new_zeros(r, m, d), start.new_zeros(r, m, m)
    q, scale = start, start.new_zeros(r)
    for k in range(m):
        basis[:, k] = q
        w = first if k == 0 and first is not None else product(q)
        scale = torch.maximum(scale, torch.linalg.vector_norm(w, dim=1))
        w, hessenberg[:, : k + 1, k] = orthogonalise(w, basis[:, : k + 1])
        if k + 1 < m:
            q, hessenberg[:, k + 1, k] = following(w, basis[:, : k + 1], scale, generators)
    return hessenberg


def lanczos(
    product: Product,
    start: torch.Tensor,
    iterations: int,
    generators: list[torch.Generator],
    first: torch.Tensor | None = None,
) -> torch.Tensor:
    """Tridiagonal matrices of a symmetric operator, (r, m, m), m = min(iterations, d); full
    reorthogonalisation. Arguments as of `arnoldi`.
    """
    hessenberg = arnoldi(product, start, iterations, generators, first)
    beside = hessenberg.diagonal(-1, 1, 2)
    return (
        torch.diag_embed(hessenberg.diagonal(0, 1, 2))
        + torch.diag_embed(beside, 1)
        + torch.diag_embed(beside, -1)
    )


def ritz(tridiagonal: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values, ascending, and their weights in the start vector, which add up to one; (n, m)
    each, nan where the matrix is not finite.
    """
    matrices = tridiagonal.cpu().numpy()
    finite = np.isfinite(matrices).all((1, 2))
    values, vectors = np.linalg.eigh(np.where(finite[:, None, None], matrices, 0.0))
    values[~finite] = np.nan
    return values, vectors[:, 0, :] ** 2


def ritz_real(hessenberg: torch.Tensor) -> np.ndarray:
    """Real parts of the Ritz values, ascending, (n, m); nan where the matrix is not finite."""
    matrices = hessenberg.cpu().numpy()
    finite = np.isfinite(matrices).all((1, 2))
    values = np.sort(np.linalg.eigvals(np.where(finite[:, None, None], matrices, 0.0)).real, 1)
    values[~finite] = np.nan
    return values


def not_negative(values: np.ndarray) -> np.ndarray:
    """How many are at least 0, (n, m) -> (n,) float; nan where there are nan."""
    return np.where(np.isfinite(values).all(1), (values >= 0).sum(1).astype(float), np.nan)


@dataclass
class Spectrum:
    """Eigenvalues (n, m), ascending: all of them if exact, else Ritz values. The rest: (n,) each.

    nonnegative: eigenvalues >= 0 among them. estimate, estimate_error: of all d eigenvalues, by
    stochastic Lanczos quadrature over the probes, with its standard error; the count itself and 0
    if exact, nan for Arnoldi, which has no quadrature. trace, trace_error: Hutchinson.
    """

    exact: bool
    eigenvalues: np.ndarray
    nonnegative: np.ndarray
    estimate: np.ndarray
    estimate_error: np.ndarray
    trace: np.ndarray
    trace_error: np.ndarray
    asymmetry: np.ndarray


def spectrum(operator: Operator, probes: Probes, method: str, iterations: int) -> Spectrum:
    """Spectrum of (J + J^T) / 2 by lanczos, or of J by arnoldi (real parts), from the first probe;
    the others are for the estimate.

    UNet rows of an image, k a product (1; 2 for the difference), m = min(iterations, d), P probes:
    2kP for the probes, and beyond them 2k(m - 1)P for lanczos, 2k(m - 1) if m = d, k(m - 1) for
    arnoldi.
    """
    if method not in OPERATORS or iterations < 1:
        raise ValueError(
            f"{method!r} with {iterations} iterations is not possible; there are "
            f"{', '.join(OPERATORS)} with at least 1"
        )
    many, n, dimension = probes.vectors.shape
    exact = iterations >= dimension
    many = 1 if exact or method == "arnoldi" else many
    start = probes.vectors[:many].flatten(0, 1)
    generators = [stream(seed, "krylov start") for _ in range(many) for seed in probes.seeds]
    if method == "arnoldi":
        values = ritz_real(
            arnoldi(operator.times, start, iterations, generators, probes.products[0])
        )
        estimate = error = np.full(n, np.nan)
    else:
        first = ((probes.products + probes.transposed) / 2)[:many].flatten(0, 1)
        both, weights = ritz(
            lanczos(
                lambda v: (operator.times(v) + operator.transposed(v)) / 2,
                start,
                iterations,
                generators,
                first,
            )
        )
        values = both[:n]
        estimate, error = arrays(
            mean_and_error(torch.from_numpy(quadrature(both, weights, dimension).reshape(many, n)))
        )
    count = not_negative(values)
    if exact:
        estimate, error = count, 0 * count
    return Spectrum(
        exact, values, count, estimate, error, *arrays((*probes.trace(), probes.asymmetry()))
    )


def quadrature(values: np.ndarray, weights: np.ndarray, dimension: int) -> np.ndarray:
    """Each probe's estimate of how many of all eigenvalues are at least 0, (r,). Source: stochastic
    Lanczos quadrature.
    """
    return np.where(
        np.isfinite(values).all(1), dimension * (weights * (values >= 0)).sum(1), np.nan
    )


def arrays(tensors: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, ...]:
    """On the CPU, for numpy."""
    return tuple(tensor.cpu().numpy() for tensor in tensors)
