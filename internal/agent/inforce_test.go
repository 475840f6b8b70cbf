package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestInvalidSettings writes what is not allowed beside the API's rules: the
// agent stays as it is, its condition names it, and clears when it is mended.
func TestInvalidSettings(t *testing.T) {
	stored := func(name, spec string) string {
		return `{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"` + name + `"},"spec":` + spec + `}`
	}
	for _, tt := range []struct {
		name, object, value string
		want                []string // in the message
	}{
		{"a value", "default", stored("default", `{"vxlanMTU":70000,"nftablesMarkMask":4294901760}`), []string{`FelixConfiguration default: vxlanMTU: "70000": must be 0 to 65535`, `"1400", which was in force, stays`}},
		{"one that would stop an agent", "default", stored("default", `{"vxlanMTU":1400,"nftablesMarkMask":1}`), []string{`FelixConfiguration default: nftablesMarkMask: "1": must be a mask`, "stays"}},
		{"of this node alone", "node.h1", stored("node.h1", `{"vxlanMTU":-1}`), []string{`FelixConfiguration node.h1: vxlanMTU: "-1"`}},
		{"of the wrong type", "default", stored("default", `{"vxlanMTU":"wide"}`), []string{"default", "vxlanMTU", "write it anew, or delete it"}},
		{"no JSON", "default", `{"spec":`, []string{"default", "write it anew, or delete it"}},
		{"of another object", "other", `{"spec":`, []string{"other"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := mem.New()
				key := func(name string) string {
					return store.ResourceID{Plural: "felixconfigurations", Name: name}.Key()
				}
				good := stored("default", `{"vxlanMTU":1400,"nftablesMarkMask":4294901760}`)
				if _, err := db.Create(t.Context(), key("default"), []byte(good)); err != nil {
					t.Fatal(err)
				}
				done, a := watchedAgent(t, db)
				write := func(name, value string) {
					t.Helper()
					_, err := db.Update(t.Context(), store.KV{Key: key(name), Value: []byte(value)})
					if errors.Is(err, store.ErrNotFound) {
						_, err = db.Create(t.Context(), key(name), []byte(value))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				write(tt.object, tt.value)
				time.Sleep(time.Minute)
				v := a.checkSettings()
				if v.OK || v.Reason != "InvalidSettings" {
					t.Errorf("%+v", v)
				}
				for _, want := range tt.want {
					if !strings.Contains(v.Message, want) {
						t.Errorf("%q is not in %q", want, v.Message)
					}
				}
				select {
				case err := <-done:
					t.Fatalf("ended: %v", err)
				default:
				}
				if tt.object == "default" {
					write("default", good)
				} else if err := db.Delete(t.Context(), key(tt.object), ""); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if v := a.checkSettings(); !v.OK {
					t.Errorf("mended: %+v", v)
				}
				write("default", stored("default", `{"vxlanPort":4790}`))
				if err := <-done; !errors.Is(err, ErrReconfigured) {
					t.Error(err)
				}
			})
		})
	}
}

// watchedAgent is as much of an agent as watches settings.
func watchedAgent(t *testing.T, db store.Driver) (<-chan error, *agent) {
	t.Helper()
	a := &agent{notices: newNotices()}
	done, run := watchedSettings(t, db, Config{Driver: db, Log: slog.New(slog.DiscardHandler), refused: &refusals{}})
	a.cfg = run
	return done, a
}

// TestSettingsAreKept: what objects said is known at the next start, and only
// written when it is new.
func TestSettingsAreKept(t *testing.T) {
	dir := t.TempDir() + "/state"
	const settingsFile = "/settings.json"
	recallSettings := func(dir string) ([]config.Value, error) { return settingKeeper().recall(dir, "") }
	keepSettings := func(dir string, values []config.Value) error { return keepSettings(dir, "", values) }
	values := []config.Value{{Name: "vxlanMTU", Value: "1400", Source: "FelixConfiguration default"}}
	if was, err := recallSettings(dir); was != nil || err != nil {
		t.Errorf("%v, %v", was, err)
	}
	if err := keepSettings(dir, values); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(dir + settingsFile)
	if err != nil || first.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", first, err)
	}
	if err := keepSettings(dir, values); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(dir + settingsFile)
	if err != nil || !os.SameFile(first, second) {
		t.Errorf("written again for nothing: %v", err)
	}
	if was, err := recallSettings(dir); !slices.Equal(was, values) || err != nil {
		t.Errorf("%v, %v", was, err)
	}
	if err := os.WriteFile(dir+settingsFile, []byte(`[{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if was, err := recallSettings(dir); was != nil || err == nil {
		t.Errorf("broken: %v, %v", was, err)
	}
	if err := keepSettings(dir, values); err != nil {
		t.Error(err)
	}
}

// TestSettingsOfAnotherCluster: a host that has moved does not take what it knew of
// the cluster before, and knows it where an agent wrote it that named no cluster.
func TestSettingsOfAnotherCluster(t *testing.T) {
	values := []config.Value{{Name: "vxlanMTU", Value: "1400", Source: "FelixConfiguration default"}}
	for _, tt := range []struct {
		name  string
		write func(dir string) error
		want  map[string]int
	}{
		{"of one", func(dir string) error { return keepSettings(dir, "one", values) }, map[string]int{"one": 1, "two": 0, "": 1}},
		{"of one, kept again while nobody knows of which", func(dir string) error {
			return errors.Join(keepSettings(dir, "one", values), keepSettings(dir, "", values))
		}, map[string]int{"one": 1, "two": 0, "": 1}},
		{"of nobody knows which", func(dir string) error { return keepSettings(dir, "", values) }, map[string]int{"one": 1, "": 1}},
		{"as it was written before", func(dir string) error {
			return os.WriteFile(dir+"/settings.json", []byte(`[{"Name":"vxlanMTU","Value":"1400","Source":"FelixConfiguration default"}]`), 0o600)
		}, map[string]int{"one": 1, "": 1}},
	} {
		dir := t.TempDir()
		if err := tt.write(dir); err != nil {
			t.Fatal(err)
		}
		for cluster, want := range tt.want {
			if got, err := settingKeeper().recall(dir, cluster); err != nil || len(got) != want {
				t.Errorf("%s: of %q: %+v, %v", tt.name, cluster, got, err)
			}
		}
	}
}

// TestHonoured: what a host cannot do is told to those who wrote it, and to
// nobody else.
func TestHonoured(t *testing.T) {
	host, policy, own := desired.Notices{}, desired.Notices{}, desired.Notices{}
	host.HostEndpointNotEnforced("HostEndpoint e")
	policy.PolicyNotEnforced("GlobalNetworkPolicy all", 1)
	policy.HostEndpointNotEnforced("HostEndpoint e")
	own.NoBGPAddress("Node h1")
	settings := desired.Notices{}
	settings.InvalidSettings("BGPConfiguration default", "spec.x is wrong")
	refused := []config.Refusal{{Object: "FelixConfiguration default", Text: "vxlanMTU is wrong"}}
	unread := []config.Refusal{{Text: "something cannot be read"}}
	for _, tt := range []struct {
		name    string
		notices desired.Notices
		refused []config.Refusal
		objects []string
		want    string
	}{
		{"nothing is wrong", nil, nil, []string{"GlobalNetworkPolicy a"}, "enforced"},
		{"the host endpoint itself", host, nil, []string{"HostEndpoint e"}, "never NotHonoured"},
		{"a policy that selects none", host, nil, []string{"GlobalNetworkPolicy a"}, "enforced"},
		{"another policy than that which selects one", policy, nil, []string{"GlobalNetworkPolicy a"}, "enforced"},
		{"the one that does", policy, nil, []string{"GlobalNetworkPolicy all"}, "never NotHonoured"},
		{"the same, with its tier", policy, nil, []string{"GlobalNetworkPolicy default.all"}, "never NotHonoured"},
		{"a new host endpoint below such a policy", policy, nil, []string{"HostEndpoint f"}, "never NotHonoured"},
		{"a new one below none", host, nil, []string{"HostEndpoint f"}, "enforced"},
		{"something was deleted", policy, nil, []string{}, "enforced"},
		{"nobody knows what was written", host, nil, nil, "never NotHonoured"},
		{"a pool, where there is no routing", own, nil, []string{"IPPool p"}, "late NotHonoured"},
		{"a policy there", own, nil, []string{"GlobalNetworkPolicy a", "NetworkSet ns/s"}, "enforced"},
		{"settings", nil, refused, []string{"FelixConfiguration default"}, "never SettingsChange"},
		{"others", nil, refused, []string{"FelixConfiguration node.h1"}, "enforced"},
		{"settings beside those that cannot be read", nil, unread, []string{"FelixConfiguration node.h1"}, "never SettingsChange"},
		{"a policy beside those", nil, unread, []string{"GlobalNetworkPolicy a"}, "enforced"},
		{"settings of BGP", settings, nil, []string{"BGPConfiguration default"}, "never NotHonoured"},
		{"a policy beside those of BGP", settings, nil, []string{"GlobalNetworkPolicy a"}, "enforced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &agent{notices: newNotices(), cfg: Config{refused: &refusals{list: tt.refused}}}
			a.notices.all = tt.notices
			got := a.honoured(client.Ask{Objects: tt.objects})
			text := fmt.Sprintf("%s %s", map[bool]string{true: "never", false: "late"}[got.Final], got.Reason)
			if got.Enforced {
				text = "enforced"
			}
			if text != tt.want || got.Enforced != (got.Message == "") {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		})
	}
}
