r"""The neurons that memorized prompts need (NeMo), for --method nemo; see commands/neurons.py.

python mitigation/nemo/localize_neurons.py statistics --model_id tiny \
    --prompts tiny/prompts/tiny_ordinary_tuning.csv --out ordinary.safetensors
python mitigation/nemo/localize_neurons.py localize --model_id tiny --blocks all \
    --prompts tiny/prompts/tiny_memorized_test.csv --statistics ordinary.safetensors \
    --out neurons.json
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # this checkout's suite comes first
    from memorization_suite.commands.neurons import main

    sys.exit(main())
