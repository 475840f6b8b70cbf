// Package kubernetes holds what NetworkPolicy of Kubernetes promises as truth
// tables, and holds real packets between nine pods to them.
package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// The pods are x/a … z/c: three in each of three namespaces, over two hosts.
// Namespaces have the labels team and kubernetes.io/metadata.name, pods the
// label pod, and those named c have tail as well. The port named serve is 80 of
// TCP on those named a, 8080 on those named b.
var (
	namespaces = []string{"x", "y", "z"}
	pods       = []string{"a", "b", "c"}
)

// truth is one case: what is applied, and who then reaches whom.
type truth struct {
	name   string
	policy string // specs of policies, "---" between them; the first line of each is its namespace
	// want: all connections are allowed but as these lines say, of which the
	// last that matches decides: "deny FROM TO [TARGET…]" or "allow …". FROM
	// and TO are NAMESPACE/POD, patterns as of path.Match; a target is as
	// tcp/80, udp/*, icmp/, and all of them where none is given. With v4 or v6
	// in front a line is about that family alone.
	want string
}

// cell is one connection.
type cell struct{ from, to, family, target string }

// expect says what the lines of a case make of a connection.
func (c truth) expect(t *testing.T, x cell) bool {
	t.Helper()
	allowed := true
	for line := range strings.Lines(c.want) {
		words := strings.Fields(line)
		if len(words) > 0 && (words[0] == "v4" || words[0] == "v6") {
			if words[0] != x.family {
				continue
			}
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 || words[0] != "allow" && words[0] != "deny" {
			t.Fatalf("%s: cannot be understood: %q", c.name, line)
		}
		if match(t, words[1], x.from) && match(t, words[2], x.to) &&
			(len(words) == 3 || slices.ContainsFunc(words[3:], func(p string) bool { return match(t, p, x.target) })) {
			allowed = words[0] == "allow"
		}
	}
	return allowed
}

func match(t *testing.T, pattern, name string) bool {
	t.Helper()
	ok, err := path.Match(pattern, name)
	if err != nil {
		t.Fatalf("%q: %v", pattern, err)
	}
	return ok
}

// world is the lab with the nine pods.
type world struct{ *labtest.World }

func up(t *testing.T) world {
	w := world{labtest.Up(t, "truth", "--workloads", "0", "--family", "dual")}
	for i, ns := range namespaces {
		w.Apply(fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.%[1]s}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
  labelsToApply: {pcns.projectcalico.org/name: "%[1]s", pcns.kubernetes.io/metadata.name: "%[1]s", pcns.team: team-%[1]s}
`, ns))
		for j, pod := range pods {
			args := []string{"lab", "workload", "add", ns + "-" + pod, "--host", fmt.Sprintf("h%d", 1+(i+j)%2), "-n", ns, "-l", "pod=" + pod}
			if pod == "c" {
				args = append(args, "-l", "tail=yes")
			}
			w.Run(args...)
		}
	}
	w.Learn()
	for _, x := range w.Work {
		ns, pod, _ := strings.Cut(x.Name, "-")
		if port := map[string]int{"a": 80, "b": 8080}[pod]; port != 0 {
			w.Run("patch", "workloadendpoint", fmt.Sprintf("%s-k8s-%s--%s-eth0", x.Host, ns, pod), "-n", ns,
				"-p", fmt.Sprintf(`{"spec":{"ports":[{"name":"serve","protocol":"TCP","port":%d}]}}`, port))
		}
	}
	return w
}

// documents makes objects of the specs of a case.
func (c truth) documents() string {
	var out []string
	for i, p := range strings.Split(c.policy, "---\n") {
		ns, spec, _ := strings.Cut(strings.TrimLeft(p, "\n"), "\n")
		out = append(out, fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: %q}\nspec:\n%s", i, strings.TrimSpace(ns), spec))
	}
	return strings.Join(out, "\n---\n")
}

// measure sends packets between all pods.
func (w world) measure() (map[cell]bool, error) {
	out, err := w.Try("", "lab", "verify", "--all", "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("lab verify: %w\n%s", err, out)
	}
	var v struct {
		Rows []struct{ From, To, Address, Target, Measured string }
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return nil, err
	}
	got := map[cell]bool{}
	for _, r := range v.Rows {
		family := "v4"
		if strings.Contains(r.Address, ":") {
			family = "v6"
		}
		port, protocol, _ := strings.Cut(r.Target, "/")
		if protocol == "" {
			port, protocol = "", port
		}
		x := cell{strings.ReplaceAll(r.From, "-", "/"), strings.ReplaceAll(r.To, "-", "/"), family, protocol + "/" + port}
		got[x] = r.Measured == "answered"
	}
	return got, nil
}

// holds compares what was measured with what a case says.
func (w world) holds(c truth) error {
	got, err := w.measure()
	if err != nil {
		return err
	}
	if want := 9 * 8 * 2 * 9; len(got) != want {
		return fmt.Errorf("%d connections were tried, want %d: %v", len(got), want, slices.Collect(maps.Keys(got))[:4])
	}
	var wrong []string
	for x, answered := range got {
		if want := c.expect(w.T, x); answered != want {
			wrong = append(wrong, fmt.Sprintf("%s to %s %s %s: answered %v, want %v", x.from, x.to, x.family, x.target, answered, want))
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 12 {
		wrong = append(wrong[:12], fmt.Sprintf("and %d more", len(wrong)-12))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// TestTruth holds packets of both families to each table, and each table again
// to be different from that of no policy at all.
func TestTruth(t *testing.T) {
	testenv.NeedRoot(t)
	w := up(t)
	nothing := truth{name: "no policy"}
	if err := w.holds(nothing); err != nil {
		t.Fatal(err)
	}
	for _, c := range truths() {
		t.Run(c.name, func(t *testing.T) {
			w := world{w.With(t)}
			docs := c.documents()
			docs = w.addresses(docs)
			c.want = w.addresses(c.want)
			w.Apply(docs)
			testenv.Until(t, labtest.Patience, func() error { return w.holds(c) })
			w.Remove(docs)
		})
	}
	t.Run("no policy again", func(t *testing.T) {
		w := world{w.With(t)}
		testenv.Until(t, labtest.Patience, func() error { return w.holds(nothing) })
	})
}

// addresses puts addresses in place of @x-a/v4 and the like.
func (w world) addresses(text string) string {
	for name := range w.Work {
		text = strings.ReplaceAll(text, "@"+name+"/v4", w.Addr(name, 4))
		text = strings.ReplaceAll(text, "@"+name+"/v6", w.Addr(name, 6))
	}
	return text
}
