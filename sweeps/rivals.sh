#!/usr/bin/env bash
# One strength a method, ours and the rivals', on equal seeds: Figure 5 of Han et al. 2025, with the newer methods.
. "$(dirname "$0")/common.sh"
case $family in
  sd1) tokens="1 2 4 6 8" noise="0.05 0.1 0.2" embedding="0.95 1.26 1.58 1.9 2.2" bos="1.15 1.2 1.25 1.3 1.35" opposite="1 3 5 7 9"
       tau="780 760 740 720" target="0.7 0.9 1.1 1.3 1.5" sail="7.6 7.8 8.2 8.6 9" repulsion="1 2 3" attenuation="0.1 0.3 0.6" masked="0 0.4 0.7"
       bright="0.5 1 2" search="1 2 3" cosine="1 1.5 2" ;;
  sd2) tokens="1 2 4 6 8" noise="0.05 0.1 0.2" embedding="1.08 1.3 1.51 1.73 1.94" bos="1.15 1.2 1.25 1.3 1.35" opposite="1 3 5 7 9"
       tau="999 978.6122 958.2245 937.8367 917.4490" target="0.34 0.55 0.68 1.02 1.37" sail="4 4.5 5 5.5 6" repulsion="1 2 3"
       attenuation="0.1 0.3 0.6" masked="0 0.4 0.7" bright="0.5 1 2" search="1 2 3" cosine="1 1.5 2" ;;
  tiny) tokens="1 2 4" noise="0.5 1 2" embedding="0.31 0.47 0.62" bos="1.25 2 3" opposite="1 2 4" tau="900 800 700" target="0.31 0.47 0.62 0.78"
        sail="1 1.5 2" repulsion="1 2" attenuation="0 0.3" masked="0 0.7" bright="0.31 0.47 0.62" search="0.62 0.78" cosine="0.31 0.47 0.62" ;;
esac

each() {                                   # each METHOD FLAG VALUES...: one run a value
  local method=$1 flag=$2 value; shift 2
  for value in "$@"; do generate --method "$method" "$flag" "$value"; done
}

generate
generate --method batch_wise
each per_sample --target_loss $target
each random_tokens --repeat_num $tokens
each embedding_noise --rand_noise_lam $noise
each clip_padding --mask_padding $masked
each prompt_embedding --optim_target_loss $embedding
each bright_ending_embedding --optim_target_loss $bright
each anisotropy_embedding --optim_target_loss $cosine
each prss --l_target_ss $search
each cross_attention --bos_scale $bos
each ca_attenuation --attenuation $attenuation
each guard --repulsion $repulsion
each static_transition --tau $tau
each opposite_guidance --opposite_scale $opposite
generate --method dynamic_transition
each sail --l_thres $sail
finish
