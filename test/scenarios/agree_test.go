package scenarios

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/test/labtest"
)

// kernelsAgree [--bgp=off]: routes, tunnels, addresses, neighbours and
// forwarding entries of all hosts are what the oracle says, in the families of
// the run.
func (c call) kernelsAgree(args []string) outcome {
	st, err := c.state()
	if err != nil {
		return failf("%v", err)
	}
	cluster := labtest.Cluster{Endpoint: strings.Trim(c.ts.Getenv("ETCD_ENDPOINTS"), "'"), Netns: map[string]string{}}
	for _, h := range st.Hosts {
		cluster.Netns[h.Name] = h.Netns
	}
	for _, a := range args {
		cluster.BGP = strings.TrimPrefix(a, "--bgp=")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := cluster.Agree(ctx); err != nil {
		return failf("%v", err)
	}
	return outcome{}
}

// TestStoriesAsk makes sure that every story with encapsulation asks whether
// the kernels agree with the oracle.
func TestStoriesAsk(t *testing.T) {
	files, err := filepath.Glob("*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(data), "\n-- ")
		tunnels := strings.HasPrefix(f, "encapsulation-") || strings.Contains(script, "lab up subnets")
		if asks := strings.Contains(script, "kernels-agree"); asks {
			asked++
		} else if tunnels {
			t.Errorf("%s has encapsulation and does not ask: eventually 10s kernels-agree", f)
		}
	}
	if asked < 8 {
		t.Errorf("%d stories ask", asked)
	}
}
