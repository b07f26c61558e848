#!/usr/bin/env bash
# rho, gamma and target_loss as plain loops:  MODEL=tiny examples/sweep.sh [flags of generate_images.py ...]
# The values are those of tiny; experiments/sweeps/*_sd1.toml and *_sd2.toml have Stable Diffusion's. Interrupted runs resume: rerun the command.
set -eu
cd "$(dirname "$0")/.."
model=${MODEL:-tiny}
out=${OUT:-sweep_results/shell}
python=${PYTHON:-python}

generate() { "$python" generate_images.py --model_id "$model" --output_path "$out" --quiet "$@"; }

generate "$@"
for rho in 2.5 5 10; do generate --method batch_wise --rho "$rho" "$@"; done
for gamma in 0 1 3 5 8; do generate --method batch_wise --gamma "$gamma" "$@"; done
for target in 0.31 0.47 0.62 0.78 1.17; do generate --method per_sample --target_loss "$target" "$@"; done

for run in "$out"/*/*/; do "$python" metrics/compute_sscd_orig_clip_score.py --gen_folder "$run" --quiet; done
"$python" metrics/summarize.py "$out"/*/*/
