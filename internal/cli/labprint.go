package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/brindle-net/brindle/internal/lab"
)

// printLab shows a lab as two tables: its hosts, its workloads.
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
	if len(st.Workloads) == 0 {
		return
	}
	fmt.Fprintln(w)
	workloads := table{header: []string{"WORKLOAD", "HOST", "ADDRESSES", "INTERFACE"}}
	for _, wl := range st.Workloads {
		workloads.add(wl.Name, wl.Host, strings.Join(wl.Addresses, " "), wl.HostInterface)
	}
	workloads.print(w)
	if !st.Datastore.Running {
		fmt.Fprintln(w, "\nThe datastore is stopped: `brindle lab datastore start` starts it again.")
	}
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
