package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// fakeAgent answers on a socket as an agent would; it returns the socket.
func fakeAgent(t *testing.T, st agentapi.Status, routes agentapi.Routes) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "a")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	answer(agentapi.PathStatus, st)
	answer(agentapi.PathRoutes, routes)
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return socket
}

func exampleStatus() agentapi.Status {
	return agentapi.Status{
		Version: agentapi.Version, Build: "v1", Node: "h1\x1b", Ready: true, Addresses: []string{"192.0.2.1", "2001:db8::1"}, ASNumber: 64512, MTU: 1500, Workloads: 2,
		Conditions: []agentapi.Condition{{Type: "Datastore", Status: true, Reason: "Connected", Since: "2026-01-01T00:00:00Z"}},
		Sessions: []agentapi.Session{{
			Peer: "192.0.2.2", Name: "h2", AS: 64512, State: "Established", Since: "2026-01-01T00:00:00Z", GracefulRestart: true, EndOfRIB: true,
			Capabilities: []string{"route-refresh", "4-octet-as\x1b"}, Received: 3, Accepted: 2, Advertised: 1,
		}},
	}
}

func TestNodeStatus(t *testing.T) {
	w := newWorld(t)
	st := exampleStatus()
	socket := fakeAgent(t, st, agentapi.Routes{})
	got := w.ok("node", "status", "--socket", socket)
	for _, want := range []string{
		"Node h1\\x1b: ready\n", "  addresses  192.0.2.1 2001:db8::1\n", "  AS number  64512\n",
		"Datastore   yes     Connected", "192.0.2.2   h2     64512   Established   2026-01-01T00:00:00Z   yes                yes          3          2          1\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	var back agentapi.Status
	if err := json.Unmarshal([]byte(w.ok("node", "status", "--socket", socket, "-o", "json")), &back); err != nil || back.Node != st.Node {
		t.Errorf("%v: %+v", err, back)
	}
	st.Choices, st.HostMTU = []agentapi.AddressChoice{{Address: "192.0.2.1/24", Why: "found on eth0 by first-found, because the Node had none\x1b"}}, 1500
	st.Pools = []agentapi.Pool{{Name: "a", CIDR: "10.0.0.0/16", Form: "direct"}, {Name: "b", CIDR: "10.1.0.0/16", Form: "vxlan", CrossSubnet: true, NATOutgoing: true, Disabled: true}}
	wantRows(t, w.ok("node", "status", "--socket", fakeAgent(t, st, agentapi.Routes{})), `address 192.0.2.1/24: found on eth0 by first-found, because the Node had none\x1b`,
		"MTU 1500 for workloads, of the host's 1500", "POOL NETWORK FORM NAT STATE", "a 10.0.0.0/16 direct no in use", "b 10.1.0.0/16 vxlan to other subnets yes disabled")
	st.Ready, st.Sessions = false, nil
	w.env["BRINDLE_SOCKET"] = fakeAgent(t, st, agentapi.Routes{})
	got2 := w.run("node", "status")
	if got2.status != 1 || got2.stderr != "" || !strings.Contains(got2.stdout, ": not ready\n") || !strings.HasSuffix(got2.stdout, "No BGP peers.\n") {
		t.Errorf("%+v", got2)
	}
	st.BGPOff, st.Accepts = true, []string{"direct", "vxlan"}
	st.Tunnels = []agentapi.Tunnel{
		{Device: "vxlan.calico", Form: "vxlan", Family: 4, Address: "10.65.0.1", Local: "192.0.2.1", MTU: 1450, Carrier: "kernel", Ready: true},
		{Device: "tunl0", Form: "ipip", Family: 4, Local: "192.0.2.1", MTU: 1480, Carrier: "programs", KeptUntil: "2026-01-01T00:10:00Z"},
	}
	st.UnknownSenders = agentapi.UnknownSenders{IPIP: 2, VXLAN: 3, Last: []agentapi.UnknownSender{{Address: "203.0.113.9", Form: "vxlan", Seen: "2026-01-01T00:00:00Z"}}}
	w.env["BRINDLE_SOCKET"] = fakeAgent(t, st, agentapi.Routes{})
	got2 = w.run("node", "status")
	for _, want := range []string{
		"Packets accepted: direct, vxlan\n", "vxlan.calico   vxlan   IPv4     10.65.0.1   192.0.2.1   1450   kernel     yes",
		"192.0.2.1   1480   programs   no      2026-01-01T00:10:00Z\n", "BGP is off.\n",
		"Dropped from unknown senders: 2 packets of IP in IP, 3 of VXLAN\n", "203.0.113.9      vxlan   2026-01-01T00:00:00Z\n",
	} {
		if !strings.Contains(got2.stdout, want) {
			t.Errorf("%q is not in\n%s", want, got2.stdout)
		}
	}
	if got := w.run("node", "status", "-o", "json"); got.status != 1 || !json.Valid([]byte(got.stdout)) {
		t.Errorf("%+v", got)
	}
	w.fails("output format", "node", "status", "-o", "yaml")
	w.fails("start it with `brindle agent`", "node", "status", "--socket", "/nonexistent")
	w.fails("start it with `brindle agent`", "bgp", "status", "--socket", "/nonexistent")
	w.fails("start it with `brindle agent`", "bgp", "routes", "--socket", "/nonexistent")
}

func TestBGP(t *testing.T) {
	w := newWorld(t)
	routes := agentapi.Routes{
		Learned: []agentapi.BGPRoute{
			{Prefix: "10.0.1.0/26", Peer: "192.0.2.2", NextHop: "192.0.2.2", Best: true},
			{Prefix: "10.9.0.0/16", Peer: "192.0.2.2", NextHop: "192.0.2.2", Refused: "in no pool\x1b"},
			{Prefix: "10.0.2.0/26", Peer: "192.0.2.3", NextHop: "192.0.2.3", Stale: true},
		},
		Announced: []agentapi.BGPRoute{{Prefix: "10.0.0.0/26", Peer: "192.0.2.2", NextHop: "192.0.2.1"}},
	}
	w.env["BRINDLE_SOCKET"] = fakeAgent(t, exampleStatus(), routes)
	got := w.ok(line("bgp routes")...)
	want := `DIRECTION   PREFIX        NEXT HOP    PEER        NOTE
in          10.0.1.0/26   192.0.2.2   192.0.2.2
in          10.9.0.0/16   192.0.2.2   192.0.2.2   refused: in no pool\x1b
in          10.0.2.0/26   192.0.2.3   192.0.2.3   stale: the peer restarts
out         10.0.0.0/26   192.0.2.1   192.0.2.2
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var back agentapi.Routes
	if err := json.Unmarshal([]byte(w.ok(line("bgp routes -o json")...)), &back); err != nil || len(back.Learned) != 3 {
		t.Errorf("%v: %+v", err, back)
	}
	w.fails("output format", line("bgp routes -o yaml")...)
	if got := w.ok(line("bgp status --capabilities")...); !strings.HasSuffix(got, "\nh2 negotiated: route-refresh, 4-octet-as\\x1b\n") || !strings.HasPrefix(got, "PEER ") {
		t.Errorf("%s", got)
	}
	if got := w.ok(line("bgp status -o json")...); !json.Valid([]byte(got)) {
		t.Errorf("%s", got)
	}
}
