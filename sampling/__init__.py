"""What every method shares: noise prediction in epsilon units, guidance schedules, noise per image,
attention patches.
"""

from sampling.batch import Batch
from sampling.guidance import BelowTimestep, Deferred, GuidanceSchedule, Step
from sampling.noise import image_seed, initial_noise
from sampling.noise_predictor import NoisePredictor, Prediction, alpha_sigma

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
