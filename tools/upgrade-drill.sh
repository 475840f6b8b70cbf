#!/bin/sh
# Builds an older release beside this one and swaps agents of both under probes.
# Usage: tools/upgrade-drill.sh REVISION (run by `make upgrade-drill`; needs root)
set -eu
cd "$(dirname "$0")/.."
from=${1:?"which release? make upgrade-drill FROM=REVISION"}
rev=$(git rev-parse --verify --quiet "$from^{commit}") || {
	echo "upgrade-drill: $from is no revision of this repository" >&2
	exit 1
}
dir=$PWD/.cache/upgrade/$rev
if [ ! -x "$dir/bin/brindle" ]; then
	rm -rf "$dir"
	mkdir -p "$dir"
	git archive "$rev" | tar -x -C "$dir"
	make -s -C "$dir" build
fi
echo "upgrade-drill: from $rev to this tree"
BRINDLE_UPGRADE_FROM=$dir/bin/brindle exec go test -count=1 -timeout 20m -run '^TestUpgrade$' ${VERBOSE:+-v} ./test/scenarios
