#!/usr/bin/env bash
# Batch-wise adjustment: step size; 0 is delayed guidance alone (Figures 3 and 9 of Han et al. 2025).
. "$(dirname "$0")/common.sh"
case $family in
  sd1|sd2) values="0 0.5 0.7 1.0 1.5" ;;
  tiny) values="0 1 3 5 8" ;;
esac
generate
for gamma in $values; do generate --method batch_wise --gamma "$gamma"; done
finish
