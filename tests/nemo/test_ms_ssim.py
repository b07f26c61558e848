"""MS-SSIM is that of torchmetrics 1.3.2, which the official code of NeMo pins; later releases give
other numbers.
"""

import numpy as np
import pytest
import torch

from memorization_suite.mitigation.nemo.ms_ssim import gaussian_window, kernel_size, ms_ssim
from tests.reference import hintersdorf2024 as reference

# (side, seed) -> similarity of each pair of `pairs`. Made once with torchmetrics 1.3.2 and torch
# 2.14.1 on a CPU, in an environment of its own:
#
#   from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
#   a, b = (torch.from_numpy(maps) for maps in pairs(side, seed))
#   kernel = 3 if side == 16 else 11
#   multiscale_structural_similarity_index_measure(
#       a, b, reduction="none", kernel_size=kernel, sigma=1.5 * kernel / 11, betas=(0.33,) * 3
#   )
#
# The official call has no sigma, which is 1.5 then, and a kernel of 11: that is the call for 64 and
# 48. A map of 16 has 4 pixels a side at the third scale. torchmetrics refuses a kernel of 11 there;
# 3 is the largest that fits, and the sigma 1.5 * 3 / 11 makes it take one of 3.
MADE_WITH_1_3_2 = {
    (64, 0): (0.988920826416947, 0.8876272696199246, 0.4885223451890107),
    (64, 1): (0.9896342493169211, 0.8797198722498559, 0.5366502370837701),
    (48, 0): (0.9894392588805584, 0.888038673783297, 0.530177465922492),
    (48, 1): (0.9892684283356992, 0.8824425318644713, 0.4973590479924353),
    (16, 0): (0.9860952110021031, 0.8872052852645819, 0.44091366377360175),
    (16, 1): (0.9872668905200976, 0.8609472068819061, 0.5311116972864288),
}


def pairs(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three pairs of maps, (3, 4, side, side) float64 each; the second of a pair has 10, 30 and
    60 % of other noise.
    """
    first, noise = np.random.RandomState(seed).random_sample((2, 3, 4, side, side))
    share = np.array([0.1, 0.3, 0.6]).reshape(3, 1, 1, 1)
    return first, (1 - share) * first + share * noise


@pytest.mark.parametrize(("side", "seed"), MADE_WITH_1_3_2)
def test_the_numbers_of_the_official_package(side, seed):
    """Within 1e-6; in float32, as maps are, within 2e-5, which is what rounding does there."""
    first, second = (torch.from_numpy(maps) for maps in pairs(side, seed))
    expected = pytest.approx(MADE_WITH_1_3_2[side, seed], abs=1e-6)
    assert ms_ssim(first, second).tolist() == expected
    rounded = ms_ssim(first.float(), second.float())
    assert rounded.tolist() == pytest.approx(MADE_WITH_1_3_2[side, seed], abs=2e-5)


@pytest.mark.parametrize(("side", "seed"), MADE_WITH_1_3_2)
def test_the_loops_have_them_too(side, seed):
    """Within 1e-6."""
    kernel = 3 if side == 16 else 11
    values = reference.ms_ssim(*pairs(side, seed), kernel, 1.5 * kernel / 11)
    assert values == pytest.approx(MADE_WITH_1_3_2[side, seed], abs=1e-6)


@pytest.mark.parametrize("side", [12, 20, 32, 37])
def test_other_sides_equal_the_loops(side):
    """Within 1e-6, also of sides that halve to odd ones; a pair without likeness is cut at zero."""
    first, second = pairs(side, side)
    second[2] = 1 - first[2]
    kernel = kernel_size(side)
    expected = reference.ms_ssim(first, second, kernel, 1.5 * kernel / 11)
    values = ms_ssim(torch.from_numpy(first), torch.from_numpy(second)).tolist()
    assert values == pytest.approx(expected, abs=1e-6) and values[2] == 0


@pytest.mark.parametrize(
    ("side", "kernel"),
    [(12, 3), (16, 3), (20, 5), (24, 5), (28, 7), (32, 7), (36, 9), (44, 11), (64, 11), (96, 11)],
)
def test_the_window_fits_three_scales(side, kernel):
    """The official one from 44 on; equal maps have a similarity of 1."""
    assert kernel_size(side) == kernel == len(gaussian_window(kernel))
    assert float(gaussian_window(kernel).sum()) == pytest.approx(1.0, abs=1e-12)
    maps = torch.rand((2, 4, side, side), generator=torch.Generator().manual_seed(side))
    assert ms_ssim(maps, maps).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_small_maps_are_refused():
    with pytest.raises(ValueError, match="8 x 8, too small for three scales; the least is 12 x 12"):
        kernel_size(8)


def test_a_pair_that_is_not_finite_has_no_similarity():
    first, second = (torch.from_numpy(maps) for maps in pairs(16, 0))
    first[1, 2, 3, 4] = torch.nan
    assert ms_ssim(first, second).isnan().all()
