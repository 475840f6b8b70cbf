#!/bin/sh
# Compiles the programs, with the one compiler that gives the same bytes
# everywhere. Where it is missing, what is committed stays; a test knows by
# the sums of the sources whether that is current.
set -eu
cd "$(dirname "$0")"
clang=${CLANG:-clang-14}
strip=${LLVM_STRIP:-llvm-strip-14}
if ! command -v "$clang" >/dev/null || ! command -v "$strip" >/dev/null || [ ! -e /usr/include/bpf/bpf_helpers.h ]; then
	echo "internal/ipip: $clang, $strip or libbpf-dev is not here: ipip.o was not made anew" >&2
	exit 0
fi
multiarch=/usr/include/$(uname -m)-linux-gnu
"$clang" -target bpfel -mcpu=v3 -O2 -g -Wall -Wextra -Werror -fdebug-prefix-map="$PWD=." -I"$multiarch" -c ipip.bpf.c -o ipip.o
"$strip" -g ipip.o
sha256sum -- *.c *.h generate.sh ipip.o >sources.sha256
