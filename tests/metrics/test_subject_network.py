"""metrics/subject_network.py: which subjects an image shows."""

import pytest
import torch

from memorization_suite.metrics.subject_network import (
    SIZE,
    WEIGHTS,
    SubjectNetwork,
    build_network,
    logits_of,
    subject_logits,
    subject_names,
)
from memorization_suite.tiny.world import WORDS


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(5).eval()


@pytest.fixture
def images():
    return torch.rand((3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))


def test_a_subject_is_there_when_it_is_anywhere(network, images):
    """The logits of an image are those of all its places together."""
    with torch.no_grad():
        places = network(2 * images - 1)
        assert places.shape == (3, 5, 8, 8)
        expected = places.exp().sum((2, 3)).log()
        torch.testing.assert_close(logits_of(network, images), expected)


def test_images_do_not_see_each_other(network, images):
    with torch.no_grad():
        alone = torch.cat([logits_of(network, image[None]) for image in images])
        torch.testing.assert_close(logits_of(network, images), alone, rtol=1e-4, atol=1e-4)


def test_an_image_of_another_size_is_resized(network, images):
    """Twice the pixels, each four times: nearly the same."""
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            logits_of(network, large), logits_of(network, images), rtol=0, atol=0.05
        )


def test_it_knows_the_subjects_of_the_world():
    assert WEIGHTS.stat().st_size < 300_000
    assert subject_names() == WORDS


def test_as_an_embedder_it_gives_the_same(images):
    own = SubjectNetwork()
    torch.testing.assert_close(own.forward(images), subject_logits(images))
