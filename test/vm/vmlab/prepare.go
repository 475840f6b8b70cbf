//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/test/vm/image"
)

// wanted are the modules that a machine loads at its start. One that a kernel
// does not have, or has built in, is passed over.
var wanted = []string{
	"veth", "dummy", "bridge", "br_netfilter", "8021q", "vrf", "tun", "macvlan",
	"ipip", "ip6_tunnel", "sit", "fou", "vxlan", "geneve", "wireguard",
	"nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nf_log_syslog",
	"nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_redir", "nft_chain_nat", "nft_log", "nft_limit",
	"nft_hash", "nft_numgen", "nft_objref", "nft_quota", "nft_reject", "nft_reject_inet",
	"nft_fib", "nft_fib_inet", "nft_flow_offload", "nf_flow_table", "nf_flow_table_inet", "nft_compat", "nft_connlimit",
	"ip_set", "ip_set_hash_ip", "ip_set_hash_net", "xt_set",
	"sch_ingress", "cls_bpf", "act_bpf", "xfrm_user", "inet_diag", "tcp_diag", "udp_diag", "sctp",
}

// kernelDir is where the files of a prepared kernel lie: vmlinuz, base.cpio
// and version, written last.
func (c config) kernelDir() string { return filepath.Join(c.cache, c.kernel) }

// prepare fetches kernel and qemu unless they are there.
func prepare(ctx context.Context, c config) error {
	if _, err := qemu(ctx, c); err != nil {
		return err
	}
	if v, err := os.ReadFile(filepath.Join(c.kernelDir(), "version")); err == nil {
		fmt.Printf("vmlab: kernel %s is there\n", strings.TrimSpace(string(v)))
		return nil
	}
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(c.cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	pkg, err := fetchKernel(ctx, c.kernel, tmp)
	if err != nil {
		return err
	}
	if err := unpack(ctx, tmp, filepath.Join(tmp, "root")); err != nil {
		return err
	}
	return c.install(tmp, strings.TrimPrefix(pkg, "linux-image-"))
}

// install makes the folder of a kernel out of its unpacked package, whole or
// not at all.
func (c config) install(tmp, version string) error {
	out := filepath.Join(tmp, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(tmp, "root", "boot", "vmlinuz-"+version), filepath.Join(out, "vmlinuz")); err != nil {
		return err
	}
	lib := filepath.Join(tmp, "root", "lib", "modules", version)
	if _, err := os.Stat(lib); errors.Is(err, os.ErrNotExist) {
		lib = filepath.Join(tmp, "root", "usr", "lib", "modules", version)
	}
	if err := writeBase(lib, filepath.Join(out, "base.cpio")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "version"), []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(c.kernelDir()); err != nil {
		return err
	}
	fmt.Printf("vmlab: kernel %s is ready\n", version)
	return os.Rename(out, c.kernelDir())
}

// writeBase writes the archive that all machines of a kernel begin with.
func writeBase(lib, to string) error {
	mods, err := image.FindModules(lib)
	if err != nil {
		return err
	}
	for _, name := range wanted {
		if _, err := mods.Need(name); err != nil {
			return err
		}
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	w := image.NewWriter(f)
	w.Dir("dev")
	for i, m := range mods.Order() {
		w.File(fmt.Sprintf("modules/%03d-%s.ko", i, m.Name), 0o644, m.Data)
	}
	return errors.Join(w.Close(), f.Close())
}

// fetchKernel downloads the newest kernel of a series into a folder. What apt
// knows may be older than the archive: then root has it look again.
func fetchKernel(ctx context.Context, series, dir string) (string, error) {
	pkg, err := tryFetch(ctx, series, dir)
	if err == nil || os.Geteuid() != 0 {
		return pkg, err
	}
	if _, uerr := output(ctx, "", "apt-get", "update", "-q", "-o", retries); uerr != nil {
		return "", errors.Join(err, uerr)
	}
	return tryFetch(ctx, series, dir)
}

// retries is the setting of apt that makes it try a download again.
const retries = "Acquire::Retries=3"

func tryFetch(ctx context.Context, series, dir string) (string, error) {
	pkg, err := kernelPackage(ctx, series)
	if err != nil {
		return "", err
	}
	fmt.Printf("vmlab: fetching %s\n", pkg)
	_, err = output(ctx, dir, "apt-get", "download", "-q", "-o", retries, pkg)
	return pkg, err
}

// kernelPackage finds the newest of Debian's cloud kernels of a series.
func kernelPackage(ctx context.Context, series string) (string, error) {
	pattern := `^linux-image-` + regexp.QuoteMeta(series) + `\.[0-9][0-9a-z.+-]*-cloud-amd64$`
	out, err := output(ctx, "", "apt-cache", "search", "--names-only", pattern)
	if err != nil {
		return "", err
	}
	var names []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 {
			names = append(names, f[0])
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("apt knows no package linux-image-%s.*-cloud-amd64: Debian 12 has it; run `apt-get update` as root", series)
	}
	return slices.MaxFunc(names, compareVersions), nil
}

var number = regexp.MustCompile(`[0-9]+`)

// compareVersions orders names of packages by the numbers in them.
func compareVersions(a, b string) int {
	numbers := func(s string) []int {
		var all []int
		for _, m := range number.FindAllString(s, -1) {
			n, _ := strconv.Atoi(m) // digits only; one too large counts as 0
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(a), numbers(b))
}

// unpack unpacks all packages of a folder, installing none.
func unpack(ctx context.Context, dir, to string) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) == 0 {
		return fmt.Errorf("apt-get left no package in %s", dir)
	}
	for _, d := range debs {
		if _, err := output(ctx, "", "dpkg-deb", "-x", d, to); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program and returns what it printed; an error holds what it
// complained of.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
