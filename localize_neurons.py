r"""Finds the neurons that memorized prompts need (NeMo), for --method nemo. See --help and the
README.

python localize_neurons.py statistics --model_id tiny --prompts
tiny/prompts/tiny_ordinary_tuning.csv --out ordinary.safetensors python localize_neurons.py localize
--model_id tiny --prompts tiny/prompts/tiny_memorized_test.csv --blocks all \
    --statistics ordinary.safetensors --out neurons.json
"""

import sys

from memorization_suite.localization import main

if __name__ == "__main__":
    sys.exit(main())
