"""Images for the prompts of a file, with one mitigation or none. See --help, --list_methods and the
README.

python generate_images.py --model_id tiny --method adj_init_noise --batch_wise
"""

import sys

from memorization_suite.generation import main

if __name__ == "__main__":
    sys.exit(main())
