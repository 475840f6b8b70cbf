package docs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/doctest"
	"github.com/brindle-net/brindle/internal/testenv"
)

// installPage is run in a machine made of namespaces.
const installPage = "docs/guides/install.md"

// machine turns the shell's namespaces into a machine of its own: folders that
// the page writes to are copies or empty, the network is one link with the
// page's first address, and systemctl starts what a unit says.
const machine = `
mount --make-rprivate /
mount -t sysfs sysfs /sys
for d in /opt /run /var/lib /usr/local/bin /mnt; do mount -t tmpfs tmpfs $d; done
cp -a /etc /mnt/etc && mount --bind /mnt/etc /etc && mkdir -p /etc/systemd/system
ip link set lo up
ip link add eth0 type veth peer name wire
ip link set eth0 up && ip link set wire up
ip address add 192.0.2.1/24 dev eth0
wait_for() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
systemctl() {
	case "$1 $2" in
	"enable --now") start $3;;
	"disable --now") kill $(cat /mnt/$3.pid) && wait_for refused kill -0 $(cat /mnt/$3.pid);;
	*) return 1;;
	esac
}
refused() { ! "$@"; }
# start does what a unit says: its environment, its capabilities, and files
# that it cannot write.
start() {
	local unit=/etc/systemd/system/$1.service env caps
	env=$(sed -n 's/^EnvironmentFile=-*//p' $unit)
	caps=$(sed -n 's/^CapabilityBoundingSet=//p' $unit | sed 's/ *CAP_/,+/g' | tr A-Z a-z)
	(
		set -a; BRINDLE_SERVER_FLAGS=; [ ! -e "$env" ] || . "$env"
		echo $BASHPID >/mnt/$1.pid
		eval exec unshare --mount --propagation slave confine setpriv --no-new-privs --bounding-set "-all$caps" $(sed -n 's/^ExecStart=//p' $unit)
	) >/mnt/$1.log 2>&1 &
	case $1 in
	brindle-server) wait_for brindle server status;;
	brindle-agent) wait_for brindle node status;;
	esac
}
cat >/usr/local/bin/confine <<'END'
#!/bin/sh
for d in / /etc /opt /usr/local/bin; do mount -o remount,ro,bind $d; done
exec "$@"
END
chmod +x /usr/local/bin/confine
trap 'tail -n 20 /mnt/*.log' ERR
`

// TestInstall runs the page on installation for one host. It is about IPv4 and
// IPv6 pools at once, as the page is.
func TestInstall(t *testing.T) {
	testenv.NeedRoot(t)
	src, err := os.ReadFile(filepath.Join(root, installPage))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := doctest.Blocks(installPage, string(src))
	if err != nil {
		t.Fatal(err)
	}
	script := asRoot + machine
	for _, b := range blocks {
		if b.Test == "test/docs/install_test.go" {
			script += b.Script()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-Eeuxo", "pipefail", "-c", script)
	cmd.Dir = root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
}
