# What the sweeps share; a sweep sources it:  . "$(dirname "$0")/common.sh"
#
#   sweeps/NAME.sh [MODEL] [flags of generate_images.py ...]        MODEL: tiny (default), tiny-v, a hub id or a folder
#
# Values by family, the variable $family: sd1 (Stable Diffusion 1), sd2 (2.x, v-prediction: epsilon units), tiny (the embedded models).
# FAMILY=sd1 overrides what the name says; OUT=folder puts the runs elsewhere; PYTHON=... another interpreter. A stopped sweep goes on.
set -eu
cd "$(dirname "$0")/.."
model=${1:-tiny}
[ $# -gt 0 ] && shift
extra=("$@")
python=${PYTHON:-python}
case $model in
  tiny*) family=tiny ;;
  *stable-diffusion-2*) family=sd2 ;;
  *) family=sd1 ;;
esac
family=${FAMILY:-$family}
sweep=$(basename "$0" .sh)
out=${OUT:-sweep_results}/$sweep/$(printf %s "$model" | tr -c 'A-Za-z0-9._-' '-')

generate() {                               # generate FLAGS...: one run
  "$python" generate_images.py --model_id "$model" --output_path "$out" --quiet "$@" "${extra[@]+"${extra[@]}"}"
}

has() {                                    # has RUN QUANTITY...: is one of them in its results, newer than its images?
  local run=$1 name; shift
  [ "$run/results.csv" -nt "$run/manifest.json" ] || return 1
  for name in "$@"; do grep -q ",$name," "$run/results.csv" && return 0; done
  return 1
}

finish() {                                 # scores what is not scored yet; the table and the trade-off plot
  local run runs=()
  for run in "$out"/*/*/; do
    has "$run" sscd copy_score || "$python" metrics/compute_sscd_orig_clip_score.py --gen_folder "$run"
    has "$run" lpips feature_diversity || "$python" metrics/compute_lpips_imagereward.py --gen_folder "$run"
    runs+=("$run")
  done
  "$python" metrics/summarize.py "${runs[@]}" | tee "$out/table.txt"
  "$python" metrics/plot_tradeoff.py "${runs[@]}" --out "$out/tradeoff.png"
}
