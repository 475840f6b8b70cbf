package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/lab"
)

// printLab shows a lab as tables: its hosts, its routers, its workloads, and
// how packets travel if that was asked for.
func printLab(w io.Writer, st lab.State) {
	hosts := table{header: []string{"HOST", "ADDRESSES", "AS", "SESSIONS", "READY"}}
	for _, h := range st.Hosts {
		ready := "yes"
		if !h.Ready {
			ready = "no: " + strings.TrimSuffix(strings.TrimSpace(h.NotReady), ";")
		}
		hosts.add(h.Name, strings.Join(h.Addresses, " "), fmt.Sprint(h.ASNumber), fmt.Sprintf("%d of %d", h.Sessions, h.MaxSession), ready)
	}
	hosts.print(w)
	if len(st.Routers) > 0 {
		fmt.Fprintln(w)
		routers := table{header: []string{"ROUTER", "ADDRESSES"}}
		for _, r := range st.Routers {
			routers.add(r.Name, strings.Join(r.Addresses, " "))
		}
		routers.print(w)
	}
	printWorkloads(w, st.Workloads)
	printPaths(w, st.Paths)
	if !st.Datastore.Running {
		fmt.Fprintln(w, "\nThe datastore is stopped: `brindle lab datastore start` starts it again.")
	}
}

func printWorkloads(w io.Writer, list []lab.Workload) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w)
	workloads := table{header: []string{"WORKLOAD", "HOST", "ADDRESSES", "INTERFACE"}}
	for _, wl := range list {
		workloads.add(wl.Name, wl.Host, strings.Join(wl.Addresses, " "), wl.HostInterface)
	}
	workloads.print(w)
}

// printPaths draws how packets travel between hosts, one matrix for all pools
// for which it is the same.
func printPaths(w io.Writer, paths []lab.Path) {
	var order []string // of what the matrices look like
	pools := map[string][]string{}
	for _, one := range byPool(paths) {
		var b strings.Builder
		pathMatrix(one).print(&b)
		if pools[b.String()] == nil {
			order = append(order, b.String())
		}
		pools[b.String()] = append(pools[b.String()], poolTitle(one[0]))
	}
	for _, m := range order {
		fmt.Fprintf(w, "\nHow packets travel to workloads in %s:\n%s", strings.Join(pools[m], " and "), m)
	}
}

// byPool parts paths by family and pool, in that order.
func byPool(paths []lab.Path) [][]lab.Path {
	parts := map[string][]lab.Path{}
	for _, p := range paths {
		parts[p.Family+" "+p.Pool] = append(parts[p.Family+" "+p.Pool], p)
	}
	var out [][]lab.Path
	for _, k := range slices.Sorted(maps.Keys(parts)) {
		out = append(out, parts[k])
	}
	return out
}

func poolTitle(p lab.Path) string {
	if p.Pool == "" {
		return "no known pool (IP" + p.Family + ")"
	}
	return p.Pool
}

// pathMatrix has a row for each host that sends, a column for each that
// receives.
func pathMatrix(paths []lab.Path) *table {
	t := &table{header: []string{"FROM \\ TO"}}
	cells, rows := map[[2]string]string{}, []string{}
	for _, p := range paths {
		if !slices.Contains(t.header, p.To) {
			t.header = append(t.header, p.To)
		}
		if !slices.Contains(rows, p.From) {
			rows = append(rows, p.From)
		}
		cells[[2]string{p.From, p.To}] = p.Form
		if p.Through != "" {
			cells[[2]string{p.From, p.To}] += " via " + p.Through
		}
	}
	slices.SortFunc(t.header[1:], lab.CompareNames)
	for _, from := range rows {
		row := []string{from}
		for _, to := range t.header[1:] {
			row = append(row, cmp.Or(cells[[2]string{from, to}], "·"))
		}
		t.add(row...)
	}
	return t
}

// printMatrix draws who reaches whom.
func printMatrix(w io.Writer, m lab.Matrix) {
	t := table{header: []string{"FROM \\ TO"}}
	for _, member := range m.Members {
		t.header = append(t.header, member.Name)
	}
	marks := map[lab.Cell]string{lab.Self: "·", lab.Reached: "✓", lab.Silent: "✗", lab.Unmeasured: "?"}
	for i, member := range m.Members {
		row := []string{member.Name}
		for _, c := range m.Cells[i] {
			row = append(row, marks[c])
		}
		t.add(row...)
	}
	t.print(w)
}
