package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/kernel"
)

// logTail is how much of a log is included, bytes.
const logTail = 1 << 20

// system tells of the machine.
func (d *diags) system(context.Context) error {
	h := thisHost()
	release := settings(h.text("etc/os-release"))
	d.add("host/versions.json", map[string]any{
		"brindle": d.e.Build, "go": runtime.Version(), "architecture": runtime.GOARCH, "processors": runtime.NumCPU(),
		"kernel": strings.TrimSpace(h.text("proc/sys/kernel/osrelease")), "system": strings.Trim(release[".PRETTY_NAME"], `"`),
	})
	for _, name := range []string{"meminfo", "loadavg", "uptime", "modules", "net/dev", "net/snmp", "net/snmp6", "net/netstat", "net/sockstat", "net/sockstat6", "net/softnet_stat"} {
		if text := h.text("proc/" + name); text != "" {
			d.addText("host/"+strings.ReplaceAll(name, "/", "-")+".txt", []byte(text))
		}
	}
	var sysctls bytes.Buffer
	for _, pattern := range []string{"ipv4/ip_forward", "ipv4/conf/*/rp_filter", "ipv4/conf/*/forwarding", "ipv4/conf/*/proxy_arp", "ipv6/conf/*/forwarding",
		"ipv6/conf/*/disable_ipv6", "ipv6/conf/*/accept_ra", "ipv6/conf/*/proxy_ndp", "netfilter/nf_conntrack_max", "netfilter/nf_conntrack_count", "ipv4/neigh/default/gc_thresh?"} {
		names, err := filepath.Glob("/proc/sys/net/" + pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Fprintf(&sysctls, "%s = %s\n", strings.TrimPrefix(name, "/proc/sys/"), strings.TrimSpace(h.text(name[1:])))
		}
	}
	d.addText("host/sysctl.txt", sysctls.Bytes())
	r, err := checkSystem(h, kernelTrials(h))
	d.addUnless(err, "host/checksystem.json", r)
	return err
}

// kernel lists what the network stack holds.
func (d *diags) kernel(context.Context) error {
	k, err := kernel.ReadDump(nil)
	for name, list := range map[string]any{
		"links": k.Links, "addresses": k.Addresses, "routes": k.Routes, "rules": k.Rules, "neighbours": k.Neighbours,
	} {
		d.add("kernel/"+name+".json", list)
	}
	return err
}

// nftables lists everybody's chains, our tables as the kernel has them, and all
// tables as nft(8) tells them where it is installed.
func (d *diags) nftables(ctx context.Context) error {
	chains, err := nft.Chains(nil)
	d.addUnless(err, "nftables/chains.json", chains)
	text, err2 := nft.Text(nil)
	if err2 == nil {
		d.addText("nftables/brindle.txt", []byte(text))
	}
	out, err3 := runProgram(ctx, "nft", "-j", "list", "ruleset")
	if err3 == nil {
		d.addText("nftables/ruleset.json", out)
	}
	if errors.Is(err3, exec.ErrNotFound) {
		err3 = nil
	}
	return errors.Join(err, err2, err3)
}

// connections counts the entries of connection tracking, of which there are
// too many to list, and which say who talks to whom.
func (d *diags) connections(context.Context) error {
	t, err := conntrack.Open(nil)
	if err != nil {
		return err
	}
	list, err := t.List()
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	protocols, translated := map[string]int{}, 0
	for _, c := range list {
		family := 4
		if c.Orig.Src.Is6() {
			family = 6
		}
		protocols[fmt.Sprintf("IPv%d protocol %d", family, c.Orig.Protocol)]++
		if c.Orig.Src != c.Reply.Dst || c.Orig.Dst != c.Reply.Src {
			translated++
		}
	}
	d.add("connections.json", map[string]any{"entries": len(list), "protocols": protocols, "translated": translated})
	return nil
}

// gatherLogs includes the ends of the logs that are known: files that were
// named, the agent's standard error if that is a file, the journal.
func (d *diags) gatherLogs(ctx context.Context) error {
	names := slices.Clone(d.logs)
	more, err := filepath.Glob(filepath.Join(d.logDir, "*.log"))
	if err != nil {
		return fmt.Errorf("--log-dir %q: %w", d.logDir, err)
	}
	names = append(names, more...)
	if name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", d.pid)); d.pid != 0 && err == nil && filepath.IsAbs(name) {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var errs []error
	for _, name := range newest(slices.Compact(names), d.most) {
		data, err := tail(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if d.since > 0 {
			if data = younger(data, time.Now().Add(-d.since)); len(data) == 0 {
				continue
			}
		}
		d.addText("logs/"+strings.ReplaceAll(strings.TrimPrefix(filepath.Clean(name), "/"), "/", "-"), data)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		args := []string{"--no-pager", "--lines=5000", "--output=short-iso", "--unit=brindle-agent", "--unit=brindle-server"}
		if d.since > 0 {
			args = append(args, fmt.Sprintf("--since=-%ds", int(d.since.Seconds())))
		}
		out, err := runProgram(ctx, "journalctl", args...)
		if err == nil {
			d.addText("logs/journal.txt", out)
		} else if !errors.Is(err, exec.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// newest are the files of some that were written last, so many at most; 0 means
// all. Those that cannot be looked at are among them, so that they are told.
func newest(names []string, most int) []string {
	if most == 0 || len(names) <= most {
		return names
	}
	when := map[string]time.Time{}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			when[name] = info.ModTime()
		} else {
			when[name] = time.Now()
		}
	}
	out := slices.SortedStableFunc(slices.Values(names), func(a, b string) int { return when[b].Compare(when[a]) })[:most]
	slices.Sort(out)
	return out
}

// lineTime is the time that a line of a log begins with.
var lineTime = regexp.MustCompile(`^(?:time="?|\{"time":")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^" ,]*)`)

// younger are the lines of a log from the first on that is not older than a
// moment. Lines without a time belong to that before.
func younger(log []byte, than time.Time) []byte {
	for rest := log; len(rest) > 0; {
		if m := lineTime.FindSubmatch(rest); m != nil {
			if t, err := time.Parse(time.RFC3339, string(m[1])); err == nil && !t.Before(than) {
				return rest
			}
		}
		_, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			break
		}
		rest = after
	}
	if lineTime.Match(log) {
		return nil
	}
	return log // it says no times
}

// tail reads the end of a file, from the beginning of a line on.
func tail(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no file", name)
	}
	cut := info.Size() > logTail
	if cut {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, logTail))
	if _, rest, found := bytes.Cut(data, []byte("\n")); cut && found {
		data = rest
	}
	return data, err
}

// runProgram runs a program of the system and returns what it prints.
func runProgram(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gatherLimit)
	defer cancel()
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
