#!/usr/bin/env bash
# Batch-wise adjustment: length of the probe.
. "$(dirname "$0")/common.sh"
case $family in
  sd1) values="10 30 50 70" ;;
  sd2) values="0.7 1.4 2.05 2.7" ;;        # 10, 20, 30, 40 of Euler's latents
  tiny) values="2.5 5 10" ;;
esac
generate
for rho in $values; do generate --method batch_wise --rho "$rho"; done
finish
