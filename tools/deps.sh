#!/usr/bin/env bash
# Installs the Debian packages that the tests need and this machine lacks.
# With --list it only says which they are. It never starts a service.
set -euo pipefail

# One line each: a file that shows it is there, the package, what for.
needs() {
	cat <<-'END'
		/usr/bin/gcc                    gcc               race detector
		/usr/include/stdlib.h           libc6-dev         race detector
		/usr/bin/git                    git               version stamp, generated files
		/usr/sbin/ip:/sbin/ip:/bin/ip   iproute2          reading namespaces in stories
		/usr/bin/ping:/bin/ping         iputils-ping      stories
		/usr/sbin/traceroute:/usr/bin/traceroute.db  traceroute  stories
		/usr/bin/tcpdump:/usr/sbin/tcpdump  tcpdump       stories
		/usr/sbin/nft                   nftables          what an administrator sees
		/usr/sbin/iptables-legacy       iptables          beside rules of others
		/usr/bin/setpriv                util-linux        units of systemd, run without systemd
		/usr/bin/systemd-analyze        systemd           units of systemd
		/usr/lib/cni/host-local         containernetworking-plugins  IPAM plugins of others
		/usr/sbin/dnsmasq               dnsmasq-base      a DHCP server for a plugin of others
		/usr/share/bash-completion/bash_completion  bash-completion  completion
		/usr/bin/zsh                    zsh               completion, and keys pressed in shells
		/usr/bin/fish                   fish              completion
		/usr/sbin/bird                  bird2             BGP interoperability
		/usr/lib/frr/bgpd               frr               BGP interoperability
		/usr/bin/qemu-system-x86_64     qemu-system-x86   other kernels
		/usr/bin/dpkg-deb               dpkg              unpacking kernels
		/usr/bin/xz                     xz-utils          unpacking kernels
	END
}

there() { # one of the files in $1, colon between
	local f
	for f in ${1//:/ }; do [ -e "$f" ] && return 0; done
	return 1
}

missing=()
while read -r files package why; do
	[ -n "$files" ] || continue
	state=present
	there "$files" || { state=missing; missing+=("$package"); }
	if [ "${1:-}" = --list ]; then printf '%-18s %-8s %s\n' "$package" "$state" "$why"; fi
done < <(needs)
if [ "${1:-}" = --list ]; then exit 0; fi
if [ ${#missing[@]} -eq 0 ]; then echo "deps: nothing is missing"; exit 0; fi
if ! command -v apt-get >/dev/null; then
	echo "deps: missing: ${missing[*]}. This is not a Debian system: install their like by hand." >&2; exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "deps: missing: ${missing[*]}. Run: sudo make deps" >&2; exit 1
fi

# Packages of daemons start them when they are installed, unless this file
# says no. An administrator's own file is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "deps: installing ${missing[*]}"
apt-get update -q -o Acquire::Retries=3
apt-get install -y -q -o Acquire::Retries=3 --no-install-recommends "${missing[@]}" </dev/null
