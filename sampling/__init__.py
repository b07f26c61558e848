"""What every method shares: the interface to models, noise prediction in epsilon units, guidance
schedules, noise per image, the loop.
"""

from memorization_suite import one_name
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.denoiser import Conditioning, Denoiser
from memorization_suite.sampling.guidance import BelowTimestep, Deferred, GuidanceSchedule, Step
from memorization_suite.sampling.hooks import Adjustment, Hooks
from memorization_suite.sampling.noise import image_seed, initial_noise
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction

__all__ = [
    "Adjustment",
    "Batch",
    "BelowTimestep",
    "Conditioning",
    "Deferred",
    "Denoiser",
    "GuidanceSchedule",
    "Hooks",
    "NoisePredictor",
    "Prediction",
    "Step",
    "image_seed",
    "initial_noise",
]

one_name(__name__)
