package cli

import (
	"context"
	_ "embed" // of the shop's policies
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/lab"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// shopPolicies are what the demonstration applies.
//
//go:embed shop.yaml
var shopPolicies []byte

// shopSize is how many workloads the shop of the demonstration has: three
// roles of two tenants.
const shopSize = 6

// role is what a workload of the shop is.
type role struct{ tenant, app string }

// roleOf deals the roles: neighbours are of different tenants.
func roleOf(i int) role {
	return role{[]string{"red", "blue"}[i%2], []string{"web", "api", "db"}[i/2%3]}
}

// showPolicy turns the first workloads of a lab into the shops of two tenants,
// applies their policies, and shows what changes.
func showPolicy(ctx context.Context, e *Env, st lab.State) error {
	members := st.WorkloadMembers()
	members = members[:min(len(members), shopSize)]
	if len(members) < 2 {
		return nil
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "Policy: two tenants, each with a shop of three tiers"))
	for i, m := range members {
		r := roleOf(i)
		fmt.Fprintf(e.Stdout, "%-4s tenant=%-5s app=%s\n", m.Name, r.tenant, r.app)
	}
	if err := showPorts(ctx, e, members, "Before: which TCP ports answer"); err != nil {
		return err
	}
	applied, err := applyShop(ctx, st, len(members))
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n%s\n", heading(e, "Applied"), strings.Join(applied, "\n"))
	v, err := settled(ctx, st.Name, members)
	if err != nil {
		return err
	}
	if err := showPorts(ctx, e, members, "After"); err != nil {
		return err
	}
	if err := showWhy(ctx, e, st.Name, members); err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "Do packets and policies agree? Every pair, TCP, UDP and ICMP, real packets"))
	v.print(e)
	if len(v.Differ) > 0 {
		return fmt.Errorf("packets and policies differ: see the table above")
	}
	return nil
}

// enforcedWithin is how long the demonstration waits for the policies to be in
// every kernel.
const enforcedWithin = 10 * time.Second

// settled verifies until packets and policies agree, for as long as is
// reasonable.
func settled(ctx context.Context, name string, members []lab.Member) (*verification, error) {
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	until := time.Now().Add(enforcedWithin)
	for {
		v, err := verify(ctx, name, names)
		if err != nil || len(v.Differ) == 0 || time.Now().After(until) {
			return v, err
		}
	}
}

// applyShop labels the workloads and applies the shop's policies; it names
// what it applied.
func applyShop(ctx context.Context, st lab.State, size int) ([]string, error) {
	driver, err := etcd.New(etcd.Config{Endpoints: []string{lab.Endpoints(st.Name)}})
	if err != nil {
		return nil, fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer driver.Close()
	db := newSession(driver)
	if err := labelShop(ctx, db, st.Workloads[:size]); err != nil {
		return nil, err
	}
	docs, err := v3.DecodeAll("shop.yaml", shopPolicies)
	if err != nil {
		return nil, err
	}
	if err := check(ctx, db.Client, docs); err != nil {
		return nil, err
	}
	var applied []string
	for _, d := range docs {
		m := d.Object.Meta()
		if _, _, err := db.Apply(ctx, d.Object); err != nil {
			return nil, fmt.Errorf("apply %s %s: %w", d.Object.Type().Kind, m.Name, err)
		}
		name := d.Object.Type().Kind + " " + m.Name
		if s := selectorOf(d.Object); s != "" {
			name += ": for " + s
		}
		applied = append(applied, name)
	}
	return applied, nil
}

func selectorOf(o v3.Object) string {
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		return o.Spec.Selector
	case *v3.GlobalNetworkPolicy:
		return o.Spec.Selector
	}
	return ""
}

// labelShop gives the endpoints of the workloads the labels of their roles.
func labelShop(ctx context.Context, db *session, workloads []lab.Workload) error {
	endpoints, err := client.List[v3.WorkloadEndpoint](ctx, db.Client, "")
	if err != nil {
		return err
	}
	for i, w := range workloads {
		for _, x := range endpoints {
			if x.Spec.Node != w.Host || x.Spec.InterfaceName != w.HostInterface {
				continue
			}
			_, err := client.Modify(ctx, db.Client, x.Namespace, x.Name, func(x *v3.WorkloadEndpoint) error {
				r := roleOf(i)
				if x.Labels == nil {
					x.Labels = map[string]string{}
				}
				x.Labels["tenant"], x.Labels["app"] = r.tenant, r.app
				return nil
			})
			if err != nil {
				return fmt.Errorf("label workload %s: %w", w.Name, err)
			}
		}
	}
	return nil
}

// shopPorts are those that the matrix of the shop is about.
var shopPorts = []uint16{80, 8080, 5432}

// shopTimeout is how long a probe of the matrix waits. What should answer has
// been seen to answer.
const shopTimeout = 500 * time.Millisecond

// showPorts measures and draws which ports answer between whom.
func showPorts(ctx context.Context, e *Env, members []lab.Member, title string) error {
	family := lab.V4
	if !members[0].Addresses[0].Is4() {
		family = lab.V6
	}
	var all []lab.Matrix
	for _, port := range shopPorts {
		m, err := lab.Measure(ctx, members, family, lab.Probe{Protocol: "tcp", Port: port, Timeout: shopTimeout})
		if err != nil {
			return err
		}
		all = append(all, m)
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, title+" (of "+portList(shopPorts)+", IP"+family+")"))
	printPorts(e.Stdout, all)
	return nil
}

func portList(ports []uint16) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ", ")
}

// printPorts draws one matrix out of those of the ports.
func printPorts(w io.Writer, all []lab.Matrix) {
	t := table{header: []string{"FROM \\ TO"}}
	for i, m := range all[0].Members {
		t.header = append(t.header, m.Name)
		row := []string{m.Name}
		for j := range all[0].Members {
			row = append(row, portsCell(all, i, j))
		}
		t.add(row...)
	}
	t.print(w)
}

func portsCell(all []lab.Matrix, i, j int) string {
	if i == j {
		return "·"
	}
	var open []uint16
	for k, m := range all {
		if m.Cells[i][j] == lab.Reached {
			open = append(open, shopPorts[k])
		}
	}
	switch len(open) {
	case 0:
		return "✗"
	case len(all):
		return "✓"
	}
	return portList(open)
}

// showWhy explains one connection that is denied: from the first web to its
// own db, or to whoever is last.
func showWhy(ctx context.Context, e *Env, name string, members []lab.Member) error {
	from, to := members[0], members[len(members)-1]
	if len(members) > 4 {
		to = members[4]
	}
	driver, err := etcd.New(etcd.Config{Endpoints: []string{lab.Endpoints(name)}})
	if err != nil {
		return fmt.Errorf("open the lab's datastore: %w", err)
	}
	defer driver.Close()
	c, err := liveCluster(ctx, newSession(driver))
	if err != nil {
		return err
	}
	x := explaining{from: from.Name}
	answers, err := x.judge(c, to.Name, oracle.Flow{Protocol: model.ProtocolTCP, DestPort: 5432})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stdout, "\n%s\n\n", heading(e, "Why? brindle explain --from "+from.Name+" --to "+to.Name+":5432"))
	printAnswers(e, answers[:1], false)
	return nil
}
