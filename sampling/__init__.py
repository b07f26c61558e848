"""What every method shares: noise prediction in epsilon units, guidance schedules, noise per image,
attention patches.
"""

from memorization_suite import one_name
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.guidance import BelowTimestep, Deferred, GuidanceSchedule, Step
from memorization_suite.sampling.noise import image_seed, initial_noise
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction, alpha_sigma

__all__ = [
    "Batch",
    "BelowTimestep",
    "Deferred",
    "GuidanceSchedule",
    "NoisePredictor",
    "Prediction",
    "Step",
    "alpha_sigma",
    "image_seed",
    "initial_noise",
]

one_name(__name__)
