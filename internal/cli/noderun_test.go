package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// What node run prints is a command that the agent takes, with the same
// meaning.
func TestNodeRunIsTranslated(t *testing.T) {
	for in, want := range map[string]string{
		"": "brindle agent --etcd-endpoints=http://192.0.2.1:2379",
		"--name h1 --ip 192.0.2.1/24 --ip6=autodetect --as 64513 --backend none --no-default-ippools": "brindle agent --etcd-endpoints=http://192.0.2.1:2379 --node=h1 --ip=192.0.2.1/24 --ip6=autodetect --as=64513 --bgp=none --no-default-pools",
		"--ip-autodetection-method interface=eth.* --ip6-autodetection-method can-reach=2001:db8::1":  "brindle agent --etcd-endpoints=http://192.0.2.1:2379 '--ip-autodetection-method=interface=eth.*' --ip6-autodetection-method=can-reach=2001:db8::1",
		"--felix-config /etc/calico/felix.cfg --backend=bird --name it's --etcd-prefix=/x":            `brindle agent --etcd-endpoints=http://192.0.2.1:2379 --etcd-prefix=/x '--node=it'\''s' --config-file=/etc/calico/felix.cfg`,
	} {
		w := newWorld(t)
		got := w.ok(append(line("node run --dryrun"), line(in)...)...)
		if got != "Use the following command to start the agent:\n\n"+want+"\n" {
			t.Errorf("%s: %s", in, got)
		}
		agent := newAgent(quietEnv())
		if err := agent.ParseFlags(shellWords(want)[2:]); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if err := w.fails("nothing was started", append(line("node run"), line(in)...)...); !strings.Contains(err, "  "+want+"\n") {
			t.Errorf("%s: %s", in, err)
		}
	}
	w := newWorld(t)
	w.fails("must be bird or none", line("node run --backend gobgp")...)
	w.env["ETCD_USERNAME"], w.env["ETCD_PASSWORD"] = "u", "canary-1"
	got := w.run(line("node run --dryrun --log-dir /x --node-image calico/node:v3.31.0")...)
	if got.status != 0 || strings.Contains(got.stdout+got.stderr, "canary") || strings.Count(got.stderr, "warning: ") != 3 {
		t.Errorf("%+v", got)
	}
}

// In the foreground the agent gets the flags, and all that calicoctl's file
// says of the datastore.
func TestNodeRunInTheForeground(t *testing.T) {
	w := newWorld(t)
	delete(w.env, "ETCD_ENDPOINTS")
	file := w.file("calicoctl.cfg", "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec: {etcdEndpoints: 'http://192.0.2.7:2379', etcdUsername: u, etcdPassword: canary-1, etcdKey: canary-2}\n")
	e := w.environment(t.Output(), t.Output())
	c := newNodeRun(e)
	n := &nodeRun{e: e, values: map[string]*string{}, backend: "bird", foreground: true}
	for _, name := range []string{"node", "ip", "ip6", "as", "ip-autodetection-method", "ip6-autodetection-method", "config-file"} {
		n.values[name] = new(string)
	}
	*n.values["node"] = "h1"
	n.ds.user, n.ds.file = true, file
	done := errors.New("done")
	n.start = func(_ context.Context, e *Env, args []string) error {
		agent := newAgent(e)
		if err := agent.ParseFlags(args); err != nil || !slices.Equal(args, []string{"--node=h1"}) {
			t.Errorf("%q: %v", args, err)
		}
		cfg, err := new(datastoreFlags).config(e)
		if err != nil || cfg.Endpoints[0] != "http://192.0.2.7:2379" || cfg.Username != "u" || cfg.Password.Reveal() != "canary-1" || cfg.Key.Reveal() != "canary-2" {
			t.Errorf("%+v, %v", cfg, err)
		}
		return done
	}
	if err := n.run(t.Context(), c); !errors.Is(err, done) {
		t.Error(err)
	}
	// And it is the agent that is started.
	if err := runAgent(t.Context(), e, []string{"--set=x"}); err == nil || !strings.Contains(err.Error(), "must be NAME=VALUE") {
		t.Error(err)
	}
}
