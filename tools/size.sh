#!/usr/bin/env bash
# Prints the size of each binary and how long it takes to print its version:
# the least of 20 runs, which is the one nothing else disturbed.
set -euo pipefail
printf '%-20s %10s %14s\n' binary 'MiB' 'start-up, ms'
for b in "$@"; do
	best=
	for _ in $(seq 20); do
		t0=$(date +%s%N); "$b" version >/dev/null 2>&1 </dev/null || true; t1=$(date +%s%N)
		d=$(((t1 - t0) / 1000))
		if [ -z "$best" ] || [ "$d" -lt "$best" ]; then best=$d; fi
	done
	awk -v n="$b" -v s="$(stat -c %s "$b")" -v t="$best" 'BEGIN { printf "%-20s %10.1f %14.1f\n", n, s / 1048576, t / 1000 }'
done
