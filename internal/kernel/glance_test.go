package kernel

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// workloadFiles returns the settings of a workload's link that are of the
// families of f, by file.
func workloadFiles(t testing.TB, link string, f testenv.Family) map[string]string {
	t.Helper()
	files, err := linkSysctls(link, desired.SysctlLines(desired.WorkloadSysctls()))
	if err != nil {
		t.Fatal(err)
	}
	for file := range files {
		if v4 := strings.HasPrefix(file, "net/ipv4/"); v4 && !f.HasV4() || !v4 && !f.HasV6() {
			delete(files, file)
		}
	}
	return files
}

// spoil gives a setting another value than the wanted one.
//
// A proxy_delay of 1 reads as 0 where the kernel does not count in hundredths
// of a second. It is spoilt all the same, and must come back.
func spoil(t testing.TB, ns *netns.NS, file, want string) {
	t.Helper()
	n, err := strconv.Atoi(want)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Do(t, ns, func() error { return writeSysctl(file, strconv.Itoa(1-n)) })
}

// A glance sees each setting of a workload's link that is changed.
func TestGlanceSeesEverySettingOfALink(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		links(t, ns, "cali1", "cali2")
		table := k.Links()
		var p reconcile.Plan[string, desired.Link]
		for _, name := range []string{"cali1", "cali2"} {
			p.Set = append(p.Set, reconcile.Entry[string, desired.Link]{Key: name, Value: desired.Link{
				Up: true, Alias: desired.AliasWorkload, Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
			}})
		}
		if failed := table.Apply(t.Context(), p); len(failed) > 0 {
			t.Fatal(failed)
		}
		sees := func(what string, want ...string) {
			t.Helper()
			got, err := table.Glance(t.Context())
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: saw %v, %v, want %v", what, got, err, want)
			}
		}
		sees("as applied")
		for file, want := range workloadFiles(t, "cali2", f) {
			spoil(t, ns, file, want)
			sees(file, "cali2")
			testenv.Do(t, ns, func() error { return writeSysctl(file, want) })
			sees(file + " is back")
		}
		for file, want := range workloadFiles(t, "cali1p", f) { // no link of ours
			spoil(t, ns, file, want)
		}
		sees("another link")
		testenv.Run(t, ns, "ip", "link", "del", "cali2")
		sees("gone")
	})
}

func TestGlanceSeesGlobalSettings(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		table := k.Sysctls()
		want := map[string]string{}
		if f.HasV4() {
			want["net/ipv4/ip_forward"], want["net/ipv4/icmp_echo_ignore_all"] = "1", "0"
		}
		if f.HasV6() {
			want["net/ipv6/conf/all/forwarding"], want["net/ipv6/icmp/echo_ignore_all"] = "1", "0"
		}
		var p reconcile.Plan[string, string]
		for name, value := range want {
			p.Set = append(p.Set, reconcile.Entry[string, string]{Key: name, Value: value})
		}
		if failed := table.Apply(t.Context(), p); len(failed) > 0 {
			t.Fatal(failed)
		}
		for name, value := range want {
			if got, err := table.Glance(t.Context()); err != nil || len(got) > 0 {
				t.Errorf("as applied: %v, %v", got, err)
			}
			spoil(t, ns, name, value)
			if got, err := table.Glance(t.Context()); err != nil || !slices.Equal(got, []string{name}) {
				t.Errorf("%s: saw %v, %v", name, got, err)
			}
			testenv.Do(t, ns, func() error { return assertSysctl(name, value) })
		}
	})
}

// Settings come back although nobody tells of their change: no watcher runs.
func TestUnannouncedSettingsComeBack(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		k, ns := open(t)
		links(t, ns, "cali1")
		l, _ := run(t, k.Links(), cmp.Compare[string], same[desired.Link])
		l.Want(set("cali1", desired.Link{
			Up: true, Alias: desired.AliasWorkload, Sysctls: desired.SysctlLines(desired.WorkloadSysctls()),
		}))
		swept(t, l)
		files := workloadFiles(t, "cali1", f)
		for range 2 {
			for file, want := range files {
				spoil(t, ns, file, want)
			}
			testenv.Until(t, waitLimit, func() error { return hold(t, ns, files) })
		}
	})
}

// hold says which of the settings has another value.
func hold(t testing.TB, ns *netns.NS, files map[string]string) (wrong error) {
	t.Helper()
	testenv.Do(t, ns, func() error {
		for file, want := range files {
			got, err := readSysctl(file)
			if err != nil {
				return err
			}
			if got != want {
				wrong = fmt.Errorf("%s is still %s", file, got)
			}
		}
		return nil
	})
	return wrong
}
