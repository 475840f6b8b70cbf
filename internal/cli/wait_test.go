package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
)

// answering makes the hosts of a datastore answer those who wait.
func (w *world) answering(says map[string]client.Answer) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = store.Follow(ctx, w.db, store.AskRoot, func(u store.Update) {
			for _, e := range u.Events {
				id, _, err := client.ParseAsk(e.Key, e.Value)
				if err != nil || e.Value == nil {
					continue
				}
				for host, a := range says {
					value, _ := json.Marshal(client.Answers{Answers: map[string]client.Answer{id: a}})
					if _, err := w.db.Update(ctx, store.KV{Key: store.AnswerKey(host), Value: value}); err != nil {
						_, _ = w.db.Create(ctx, store.AnswerKey(host), value)
					}
				}
			}
		}, store.FollowConfig{})
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

const twoHosts = `apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h1, annotations: {brindle.net/accepts: direct}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h2, annotations: {brindle.net/accepts: direct}}
`

// The commands that write can wait, and say who is late.
func TestWaitFlag(t *testing.T) {
	good, bad := client.Answer{Enforced: true}, client.Answer{Reason: client.ReasonFailing, Message: "table routes: \x1b[31mno\nsuch device"}
	never := client.Answer{Reason: client.ReasonNotHonoured, Message: "GlobalNetworkPolicy a selects 1 host endpoint", Final: true}
	policy := "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: a}\nspec: {selector: all()}\n"
	for _, c := range []struct {
		name   string
		says   map[string]client.Answer
		in     []string
		status int
		stdout string
		stderr []string
	}{
		{"apply", map[string]client.Answer{"h1": good, "h2": good}, line("apply -f P --wait"), 0, "Successfully applied 1 'GlobalNetworkPolicy' resource(s)\nEnforced on 2 of 2 hosts\n", nil},
		{"create", map[string]client.Answer{"h1": good, "h2": good}, line("create -f P --wait"), 0, "Successfully created 1 'GlobalNetworkPolicy' resource(s)\nEnforced on 2 of 2 hosts\n", nil},
		{"label", map[string]client.Answer{"h1": good, "h2": good}, line("label node h1 a=b --wait"), 0, "Successfully set label a on node h1\nEnforced on 2 of 2 hosts\n", nil},
		{"patch", map[string]client.Answer{"h1": good, "h2": good}, line("patch node h1 -p {} --wait"), 0, "Successfully patched 1 'Node' resource\nEnforced on 2 of 2 hosts\n", nil},
		{"delete, and the host that is gone with it", map[string]client.Answer{"h1": good}, line("delete node h2 --wait"), 0, "Successfully deleted 1 'Node' resource(s)\nEnforced on 1 of 1 hosts\n", nil},
		{"nothing to write, nothing to wait for", nil, line("delete networkset x --ignore-not-found --wait"), 0, "Successfully deleted 1 'NetworkSet' resource(s)\n", nil},
		{"output", map[string]client.Answer{"h1": good, "h2": good}, line("apply -f P --wait -o name"), 0, "globalnetworkpolicy.projectcalico.org/a\n", nil},
		{"late", map[string]client.Answer{"h1": good, "h2": bad}, line("apply -f P --wait --timeout 300ms"), 3, "Successfully applied 1 'GlobalNetworkPolicy' resource(s)\n",
			[]string{"late are 1 of 2 hosts\n", "\n  h2: Failing: table routes: ", "\n  such device"}},
		{"never", map[string]client.Answer{"h1": good, "h2": never}, line("apply -f P --wait"), 3, "Successfully applied 1 'GlobalNetworkPolicy' resource(s)\n",
			[]string{"written, but 1 of 2 hosts cannot enforce it\n", "\n  h2: NotHonoured: "}},
		{"nobody answers", nil, line("label node h1 a=b --wait --timeout 50ms"), 3, "Successfully set label a on node h1\n", []string{"late are 2 of 2 hosts", "h1: NoAnswer: its agent does not run"}},
		{"dry run", nil, line("apply -f P --wait --dry-run"), 1, "", []string{"never enforced"}},
		{"timeout alone", nil, line("apply -f P --timeout 3s"), 1, "", []string{"--wait is not given"}},
		{"no time", nil, line("apply -f P --wait --timeout 0s"), 1, "", []string{"more than nothing"}},
		{"what cannot be written is not waited for", nil, line("delete networkset x --wait"), 1, "", []string{"does not exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ok("apply", "-f", w.file("hosts.yaml", twoHosts))
			w.answering(c.says)
			for i, a := range c.in {
				if a == "P" {
					c.in[i] = w.file("p.yaml", policy)
				}
			}
			got := w.run(c.in...)
			if got.status != c.status || got.stdout != c.stdout || (got.stderr == "") != (len(c.stderr) == 0) {
				t.Errorf("%+v", got)
			}
			for _, want := range c.stderr {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("%q is not in %q", want, got.stderr)
				}
			}
			if strings.Contains(got.stderr, "\x1b") {
				t.Errorf("a host steers the terminal: %q", got.stderr)
			}
			if keys := w.keys(store.AskRoot); len(keys) != 0 {
				t.Errorf("left: %q", keys)
			}
		})
	}
}

// In JSON every late host is an object, and standard output has the data alone.
func TestWaitJSON(t *testing.T) {
	w := newWorld(t)
	w.ok("apply", "-f", w.file("hosts.yaml", twoHosts))
	w.answering(map[string]client.Answer{"h1": {Enforced: true}})
	got := w.run(line("label node h1 a=b --wait --timeout 300ms -o json")...)
	var f fault
	if err := json.Unmarshal([]byte(got.stderr), &f); err != nil || got.status != 3 || f.Status != 3 || !json.Valid([]byte(got.stdout)) {
		t.Fatalf("%v: %+v", err, got)
	}
	want := client.HostState{Host: "h2", Answer: client.Answer{Reason: client.ReasonNoAnswer, Message: "its agent does not run, does not reach the datastore, or is older than --wait"}}
	if len(f.Late) != 1 || f.Late[0] != want {
		t.Errorf("late: %+v", f.Late)
	}
}

// A terminal shows who is waited for, and an interrupt ends it.
func TestWaitOnATerminal(t *testing.T) {
	w := newWorld(t)
	w.ok("apply", "-f", w.file("hosts.yaml", twoHosts))
	w.answering(map[string]client.Answer{"h1": {Enforced: true}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout bytes.Buffer
	stderr := &interrupting{at: "enforced on 1 of 2 hosts; not yet: h2", cancel: cancel}
	e := w.environment(&stdout, stderr)
	e.ErrTerminal = true
	status := Run(ctx, e, line("label node h1 a=b --wait"))
	if said := stderr.String(); status != 3 || !strings.Contains(said, "(interrupted)") || !strings.Contains(said, "h2: NoAnswer") {
		t.Errorf("exit status %d: %q", status, said)
	}
	if keys := w.keys(store.AskRoot); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
}

// interrupting is standard error that ends the command when a text comes.
type interrupting struct {
	bytes.Buffer
	at     string
	cancel func()
}

func (i *interrupting) Write(p []byte) (int, error) {
	n, err := i.Buffer.Write(p)
	if strings.Contains(i.String(), i.at) {
		i.cancel()
	}
	return n, err
}
