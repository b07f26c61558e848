#!/usr/bin/env bash
# Per-sample adjustment: target of the magnitude, epsilon units; and batch-wise adjustment over the step at which guidance starts.
. "$(dirname "$0")/common.sh"
case $family in
  sd1) targets="0.7 0.9 1.1 1.3 1.5" steps="4 5 6 7" ;;
  sd2) targets="0.34 0.55 0.68 1.02 1.37" steps="3 4 5 6" ;;      # 5, 8, 10, 15, 20 in raw v
  tiny) targets="0.31 0.47 0.62 0.78 1.17" steps="2 4 6 9" ;;
esac
generate
for target in $targets; do generate --method per_sample --target_loss "$target"; done
for step in $steps; do generate --method batch_wise --apply_cfg_step "$step"; done
finish
