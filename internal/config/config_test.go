package config

import (
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
)

var update = flag.Bool("update", false, "write the reference page")

func felix(name, selector string, age int64, spec v3.FelixConfigurationSpec) *v3.FelixConfiguration {
	o := &v3.FelixConfiguration{ObjectMeta: v3.ObjectMeta{Name: name}, Spec: spec}
	o.Spec.NodeSelector = selector
	o.CreationTimestamp = v3.NewTime(time.Unix(2_000_000_000-age, 0))
	return o
}

func ptr[T any](v T) *T { return &v }

// port is the parameter that the precedence tests set everywhere.
func port(n int) v3.FelixConfigurationSpec { return v3.FelixConfigurationSpec{HealthPort: &n} }

func TestPrecedence(t *testing.T) {
	labels := map[string]string{"rack": "a"}
	all := Sources{
		Node: "n", Labels: labels,
		Objects: []*v3.FelixConfiguration{
			felix("node.n", "", 0, port(4)), felix("default", "", 0, port(1)), felix("node.other", "", 0, port(9)),
			felix("young", "rack == 'a'", 1, port(3)), felix("old", "rack == 'a'", 2, port(2)),
			felix("elsewhere", "rack == 'b'", 3, port(9)),
		},
		File:  map[string]string{"HealthPort": "5"},
		Env:   []string{"HOME=/", "FELIX_HEALTHPORT=6", "BRINDLE_HEALTH_PORT=7"},
		Flags: map[string]string{"healthPort": "8"},
	}
	tests := []struct {
		name   string
		with   func(*Sources)
		want   int
		source string
	}{
		{"everything", func(*Sources) {}, 8, "flag --healthPort"},
		{"no flags", func(s *Sources) { s.Flags = nil }, 7, "environment, BRINDLE_HEALTH_PORT"},
		{"no variable of ours", func(s *Sources) { s.Flags, s.Env = nil, []string{"felix_HealthPort=6"} }, 6, "environment, felix_HealthPort"},
		{"no environment", func(s *Sources) { s.Flags, s.Env = nil, nil }, 5, "configuration file, HealthPort"},
		{"objects", func(s *Sources) { s.Flags, s.Env, s.File = nil, nil, nil }, 4, "FelixConfiguration node.n"},
		{"no object of the node", func(s *Sources) { s.Flags, s.Env, s.File, s.Objects = nil, nil, nil, s.Objects[1:] }, 2, "FelixConfiguration old"},
		{"labels select none", func(s *Sources) {
			s.Flags, s.Env, s.File, s.Objects, s.Labels = nil, nil, nil, s.Objects[1:], nil
		}, 1, "FelixConfiguration default"},
		{"nothing", func(s *Sources) { *s = Sources{} }, 9099, "default"},
		{"empty values say nothing", func(s *Sources) {
			*s = Sources{Env: []string{"FELIX_HEALTHPORT="}, File: map[string]string{"HealthPort": ""}}
		}, 9099, "default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := all
			tt.with(&s)
			r, err := Resolve(s)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(r.Values, func(v Value) bool { return v.Name == "healthPort" })
			if r.Agent.Health.Port != tt.want || r.Values[i].Source != tt.source {
				t.Errorf("got %d from %q, want %d from %q", r.Agent.Health.Port, r.Values[i].Source, tt.want, tt.source)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	r, err := Resolve(Sources{})
	if err != nil || len(r.Warnings) > 0 || len(r.Ignored) > 0 {
		t.Fatalf("%v, %+v", err, r)
	}
	pool := func(size int, nat bool) DefaultPool {
		return DefaultPool{BlockSize: size, IPIP: "Never", VXLAN: "Never", NATOutgoing: nat, NodeSelector: "all()"}
	}
	want := Agent{
		LogLevel: slog.LevelInfo, IPv6: true, Forwarding: true,
		Health:     Listener{true, "localhost", 9099},
		Metrics:    Metrics{Listener{true, "localhost", 9091}, true, true},
		Interfaces: Interfaces{Prefixes: []string{"cali"}, Refresh: 90 * time.Second},
		Routes:     Routes{90 * time.Second, 1024, 1024},
		Startup: Startup{IPMethod: "first-found", IP6Method: "first-found", PollInterval: time.Minute,
			Pool4: pool(26, true), Pool6: pool(122, false)},
		Policy: Policy{EndpointToHost: "Drop", Deny: "Drop", MarkMask: 0xffff0000, FlowMark: 0x10000,
			Refresh: 90 * time.Second, VXLANPort: 4789, LogPrefix: "calico-packet", LogBurst: 5},
		Overlay: Overlay{Backend: BackendBGP, VNI: 4096, Routes: "EnabledIPIPOnly"},
		Probes:  Probes{Port: 4797},
		Paths:   Paths{"/run/brindle/agent.sock", "/var/lib/brindle"},
	}
	want.Startup.Pool6.IPIP = ""
	got := r.Agent
	for name, match := range map[string]bool{"eth0": true, "enp3s0": true, "enc1": true, "wlan0": true, "cali12": false, "docker0": false} {
		if got.Interfaces.MTUPattern.MatchString(name) != match {
			t.Errorf("MTU pattern and %s: not %v", name, match)
		}
	}
	got.Interfaces.MTUPattern = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestValues(t *testing.T) {
	tests := []struct {
		env  string
		got  func(Agent) any
		want any
	}{
		{"FELIX_LOGSEVERITYSCREEN=WARNING", func(a Agent) any { return a.LogLevel }, slog.LevelWarn},
		{"FELIX_LOGSEVERITYSCREEN=trace", func(a Agent) any { return a.LogLevel }, LevelTrace},
		{"FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT", func(a Agent) any { return a.Policy.EndpointToHost }, "Accept"},
		{"FELIX_IPTABLESFILTERDENYACTION=reject", func(a Agent) any { return a.Policy.Deny }, "Reject"},
		{"FELIX_IPTABLESMARKMASK=0xff000000", func(a Agent) any { return a.Policy.MarkMask }, uint32(0xff000000)},
		{"BRINDLE_FLOW_MARK=0x4", func(a Agent) any { return a.Policy.FlowMark }, uint32(4)},
		{"BRINDLE_ON_POLICY_CHANGE=keep", func(a Agent) any { return a.Policy.KeepFlows }, true},
		{"FELIX_WORKLOADSOURCESPOOFING=Any", func(a Agent) any { return a.Policy.Spoofing }, true},
		{"FELIX_LOGACTIONRATELIMIT=10/second", func(a Agent) any { return a.Policy.LogRate }, "10/second"},
		{"FELIX_LOGPREFIX=deny me", func(a Agent) any { return a.Policy.LogPrefix }, "deny me"},
		{"FELIX_IPV6SUPPORT=no", func(a Agent) any { return a.IPv6 }, false},
		{"FELIX_IPFORWARDING=disabled", func(a Agent) any { return a.Forwarding }, false},
		{"FELIX_ROUTEREFRESHINTERVAL=45", func(a Agent) any { return a.Routes.Refresh }, 45 * time.Second},
		{"FELIX_ROUTEREFRESHINTERVALSECS=0.5", func(a Agent) any { return a.Routes.Refresh }, 500 * time.Millisecond},
		{"FELIX_ROUTEREFRESHINTERVAL=2m", func(a Agent) any { return a.Routes.Refresh }, 2 * time.Minute},
		{"FELIX_ROUTEREFRESHINTERVAL=none", func(a Agent) any { return a.Routes.Refresh }, time.Duration(0)},
		{"FELIX_PROMETHEUSMETRICSHOST=None", func(a Agent) any { return a.Metrics.Host }, ""},
		{"FELIX_INTERFACEPREFIX=tap, cali", func(a Agent) any { return a.Interfaces.Prefixes }, []string{"tap", "cali"}},
		{"FELIX_FELIXHOSTNAME=n1", func(a Agent) any { return a.Node }, "n1"},
		{"NODENAME=n2", func(a Agent) any { return a.Node }, "n2"},
		{"IP=autodetect", func(a Agent) any { return a.Startup.IP }, "autodetect"},
		{"IP6=none", func(a Agent) any { return a.Startup.IP6 }, "none"},
		{"IP=10.0.0.1/24", func(a Agent) any { return a.Startup.IP }, "10.0.0.1/24"},
		{"IP6=fd00::1", func(a Agent) any { return a.Startup.IP6 }, "fd00::1"},
		{"AS=1.10", func(a Agent) any { return a.Startup.AS }, uint32(65546)},
		{"CALICO_ROUTER_ID=1.2.3.4", func(a Agent) any { return a.Startup.Router("n") }, netip.MustParseAddr("1.2.3.4")},
		{"CALICO_ROUTER_ID=hash", func(a Agent) any { return a.Startup.Router("node-18") }, netip.MustParseAddr("213.194.139.227")},
		{"IP_AUTODETECTION_METHOD=interface=eth.*,en.*", func(a Agent) any { return a.Startup.IPMethod }, "interface=eth.*,en.*"},
		{"IP6_AUTODETECTION_METHOD=cidr=fd00::/8", func(a Agent) any { return a.Startup.IP6Method }, "cidr=fd00::/8"},
		{"CALICO_IPV4POOL_CIDR=10.1.0.0/16", func(a Agent) any { return a.Startup.Pool4.CIDR }, "10.1.0.0/16"},
		{"CALICO_IPV6POOL_CIDR=none", func(a Agent) any { return a.Startup.Pool6.CIDR }, "none"},
		{"CALICO_IPV6POOL_BLOCK_SIZE=120", func(a Agent) any { return a.Startup.Pool6.BlockSize }, 120},
		{"CALICO_IPV4POOL_IPIP=Off", func(a Agent) any { return a.Startup.Pool4.IPIP }, "Never"},
		{"CALICO_IPV6POOL_VXLAN=crosssubnet", func(a Agent) any { return a.Startup.Pool6.VXLAN }, "CrossSubnet"},
		{"NO_DEFAULT_POOLS=true", func(a Agent) any { return a.Startup.NoDefaultPools }, true},
		{"CALICO_NETWORKING_BACKEND=bird", func(a Agent) any { return a.Overlay.Backend }, BackendBGP},
		{"CALICO_NETWORKING_BACKEND=vxlan", func(a Agent) any { return a.Overlay.Backend }, BackendVXLAN},
		{"CALICO_NETWORKING_BACKEND=none", func(a Agent) any { return a.Overlay.Backend }, BackendNone},
		{"BRINDLE_BGP=Off", func(a Agent) any { return a.Overlay.Backend }, BackendVXLAN},
		{"FELIX_IPINIPENABLED=true", func(a Agent) any { return *a.Overlay.IPIP }, true},
		{"FELIX_VXLANENABLED=no", func(a Agent) any { return *a.Overlay.VXLAN }, false},
		{"FELIX_VXLANENABLED=none", func(a Agent) any { return a.Overlay.VXLAN == nil }, true},
		{"FELIX_IPINIPMTU=1400", func(a Agent) any { return a.Overlay.IPIPMTU }, 1400},
		{"FELIX_VXLANMTU=1410", func(a Agent) any { return a.Overlay.VXLANMTU }, 1410},
		{"FELIX_VXLANMTUV6=1420", func(a Agent) any { return a.Overlay.VXLANMTU6 }, 1420},
		{"FELIX_VXLANVNI=4097", func(a Agent) any { return a.Overlay.VNI }, 4097},
		{"FELIX_PROGRAMCLUSTERROUTES=enablednoencaponly", func(a Agent) any { return a.Overlay.Routes }, "EnabledNoEncapOnly"},
		{"FELIX_ROUTESYNCDISABLED=true", func(a Agent) any { return a.Overlay.NoRoutes }, true},
		{"FELIX_EXTERNALNODESLIST=10.9.0.1, 10.8.7.0/16, fd00::1, fd01::7/64", func(a Agent) any { return a.Overlay.ExternalNodes },
			[]netip.Prefix{netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("10.8.0.0/16"),
				netip.MustParsePrefix("fd00::1/128"), netip.MustParsePrefix("fd01::/64")}},
		{"FELIX_NATOUTGOINGADDRESS=192.0.2.7", func(a Agent) any { return a.Overlay.NAT.Address }, netip.MustParseAddr("192.0.2.7")},
		{"FELIX_NATPORTRANGE=32768:65535", func(a Agent) any { return a.Overlay.NAT }, NAT{FirstPort: 32768, LastPort: 65535}},
		{"FELIX_NATPORTRANGE=99", func(a Agent) any { return a.Overlay.NAT }, NAT{FirstPort: 99, LastPort: 99}},
		{"FELIX_NATOUTGOINGEXCLUSIONS=IPPoolsAndHostIPs", func(a Agent) any { return a.Overlay.NAT.KeepToHosts }, true},
		{"FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER=eth+", func(a Agent) any { return a.Overlay.NAT.Interface }, "eth+"},
		{"BRINDLE_STATEDIR=/tmp/x", func(a Agent) any { return a.Paths.StateDir }, "/tmp/x"},
	}
	for _, tt := range tests {
		t.Run(tt.env, func(t *testing.T) {
			r, err := Resolve(Sources{Env: []string{tt.env}})
			if err != nil || len(r.Warnings) > 0 {
				t.Fatalf("%v, %q", err, r.Warnings)
			}
			if got := tt.got(r.Agent); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBadValues(t *testing.T) {
	tests := []struct {
		env   string
		fatal bool
		want  string // in the error or the one warning
	}{
		{"FELIX_HEALTHPORT=65536", false, `environment, FELIX_HEALTHPORT: healthPort: "65536": must be 0 to 65535; the default "9099" is used`},
		{"FELIX_IPV6SUPPORT=perhaps", false, `must be true or false; the default "true" is used`},
		{"FELIX_IPFORWARDING=on", false, "must be Enabled or Disabled"},
		{"FELIX_ROUTEREFRESHINTERVAL=-1", false, "must be a duration"},
		{"FELIX_LOGSEVERITYSCREEN=loud", false, "must be Trace, Debug"},
		{"FELIX_MTUIFACEPATTERN=(", false, "missing closing )"},
		{"FELIX_INTERFACEPREFIX=a/b", true, `interfacePrefix: "a/b"`},
		{"FELIX_INTERFACEPREFIX=none", true, `interfacePrefix: "none"`},
		{"FELIX_INTERFACEPREFIX=toolongprefix", true, "up to 11 characters"},
		{"FELIX_NFTABLESMARKMASK=0xffffffff", true, "without 0x4000 and 0x8000"},
		{"FELIX_IPTABLESMARKMASK=0x10000", true, "at least 8 bits"},
		{"BRINDLE_FLOW_MARK=3", true, "must be one bit"},
		{"BRINDLE_ON_POLICY_CHANGE=perhaps", false, "must be Cut or Keep"},
		{"FELIX_DEFAULTENDPOINTTOHOSTACTION=Deny", false, "must be Drop, Reject, Return or Accept"},
		{"FELIX_LOGACTIONRATELIMIT=10", false, "10/second"},
		{"FELIX_VXLANPORT=0", false, "must be 1 to 65535"},
		{"CALICO_NETWORKING_BACKEND=gobgp", true, "must be on, off or none"},
		{"FELIX_VXLANENABLED=perhaps", false, "must be true, false or empty"},
		{"FELIX_VXLANVNI=16777216", false, "must be 1 to 16777215"},
		{"FELIX_PROGRAMCLUSTERROUTES=All", false, "must be Enabled, Disabled"},
		{"FELIX_EXTERNALNODESLIST=fd00::1%eth0", false, "must be addresses and networks"},
		{"FELIX_EXTERNALNODESLIST=10.0.0.0/33", false, "must be addresses and networks"},
		{"FELIX_NATOUTGOINGADDRESS=fd00::1", false, "must be an IPv4 address"},
		{"FELIX_NATPORTRANGE=5:4", false, "must be a port"},
		{"FELIX_NATPORTRANGE=0:4", false, "must be a port"},
		{"FELIX_NATOUTGOINGEXCLUSIONS=Hosts", false, "must be IPPoolsOnly or"},
		{"FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER=a b", false, "must be the name of an interface"},
		{"NODENAME=Upper", true, `nodename: "Upper"`},
		{"IP=fd00::1", true, `ip: "fd00::1"`},
		{"IP6=10.0.0.1", true, `ip6: "10.0.0.1"`},
		{"IP=10.0.0.1/33", true, "must be an address"},
		{"AS=0.65536", true, "asNumber"},
		{"CALICO_ROUTER_ID=fd00::1", true, "must be a dotted quad"},
		{"IP_AUTODETECTION_METHOD=magic", true, "must be first-found"},
		{"IP_AUTODETECTION_METHOD=interface=(", true, "missing closing )"},
		{"IP_AUTODETECTION_METHOD=cidr=10.0.0.0", true, "no '/'"},
		{"CALICO_IPV4POOL_CIDR=10.0.0.1/16", true, "must be a network"},
		{"CALICO_IPV4POOL_NODE_SELECTOR=a=", true, "must be a selector"},
		{"BRINDLE_SOCKET=relative", true, "must be an absolute path"},
		{"FELIX_HEALTHPROT=1", false, "environment, FELIX_HEALTHPROT: is not known"},
		{"FELIX_WIREGUARDMTU=1400", false, "environment, FELIX_WIREGUARDMTU: is known and not honoured"},
		{"FELIX_REPORTINGINTERVALSECS=1", false, "is known and not honoured"},
		{"FELIX_TYPHAADDR=x:1", false, "is known and not honoured"},
		{"FELIX_TYPHAADDR=x", false, "is known and not honoured"},
	}
	for _, tt := range tests {
		t.Run(tt.env, func(t *testing.T) {
			r, err := Resolve(Sources{Env: []string{tt.env, "FELIX_ETCDENDPOINTS=x", "FELIX_DATASTORETYPE=etcdv3", "BRINDLE_OTHER=1"}})
			said := strings.Join(r.Warnings, "\n")
			if tt.fatal != (err != nil) {
				t.Fatalf("error: %v", err)
			}
			if err != nil {
				said += err.Error()
			}
			if !strings.Contains(said, tt.want) || strings.Contains(said, "\n") {
				t.Errorf("got %q, want %q", said, tt.want)
			}
		})
	}
}

// TestWhatWasInForceStays: an object that says what is not allowed, or that
// nobody can read, changes nothing, and is named with what holds.
func TestWhatWasInForceStays(t *testing.T) {
	running := []Value{
		{"healthPort", "77", "FelixConfiguration default"}, {"interfacePrefix", "tap", "FelixConfiguration default"},
		{"logSeverityScreen", "Debug", "FelixConfiguration edge, annotation config.projectcalico.org/LogSeverityScreen"},
	}
	severity := v3.FelixConfigurationSpec{LogSeverityScreen: "Error"}
	for _, tt := range []struct {
		name    string
		in      Sources
		port    int
		level   slog.Level
		prefix  string
		refused []Refusal
	}{
		{"what is allowed", Sources{Objects: []*v3.FelixConfiguration{felix("default", "", 0, port(78))}}, 78, slog.LevelInfo, "cali", nil},
		{"what is not", Sources{Objects: []*v3.FelixConfiguration{felix("default", "", 0, port(70000))}}, 77, slog.LevelInfo, "cali",
			[]Refusal{{"FelixConfiguration default", `FelixConfiguration default: healthPort: "70000": must be 0 to 65535; "77", which was in force, stays`}}},
		{"what would stop the agent", Sources{Objects: []*v3.FelixConfiguration{felix("default", "", 0, v3.FelixConfigurationSpec{InterfacePrefix: "a/b"})}}, 9099, slog.LevelInfo, "tap",
			[]Refusal{{"FelixConfiguration default", `FelixConfiguration default: interfacePrefix: "a/b": must be interface name prefixes of up to 11 characters, separated by commas; "tap", which was in force, stays`}}},
		{"what the host says itself", Sources{Env: []string{"FELIX_HEALTHPORT=70000"}}, 9099, slog.LevelInfo, "cali",
			[]Refusal{{"", `environment, FELIX_HEALTHPORT: healthPort: "70000": must be 0 to 65535; the default "9099" is used`}}},
		{"an object that has gone", Sources{}, 9099, slog.LevelInfo, "cali", nil},
		{"objects that cannot be read", Sources{Unread: true}, 77, slog.LevelDebug, "tap", nil},
		{"another one, beside one that was deleted", Sources{Unread: true, Broken: []string{"edge"}}, 9099, slog.LevelDebug, "cali", nil},
		{"one of them", Sources{Unread: true, Objects: []*v3.FelixConfiguration{felix("default", "", 0, severity)}}, 9099, slog.LevelDebug, "cali", nil},
		{"one that is weaker", Sources{Unread: true, Node: "n", Objects: []*v3.FelixConfiguration{felix("node.n", "", 0, severity)}}, 77, slog.LevelError, "tap", nil},
		{"a selector that is none", Sources{Objects: []*v3.FelixConfiguration{felix("edge", "a =", 0, severity)}}, 9099, slog.LevelError, "cali",
			[]Refusal{{"FelixConfiguration edge", ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Running = running
			r, err := Resolve(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if a := r.Agent; a.Health.Port != tt.port || a.LogLevel != tt.level || a.Interfaces.Prefixes[0] != tt.prefix {
				t.Errorf("got %d, %v, %q", a.Health.Port, a.LogLevel, a.Interfaces.Prefixes)
			}
			for i, is := range r.Refused {
				if i < len(tt.refused) && tt.refused[i].Text == "" && strings.Contains(is.Text, "nodeSelector") && strings.Contains(is.Text, "goes on to hold") {
					r.Refused[i].Text = ""
				}
			}
			if !slices.Equal(r.Refused, tt.refused) || len(r.Warnings) != len(tt.refused) {
				t.Errorf("refused %q, warned %q", r.Refused, r.Warnings)
			}
		})
	}
}

func TestObjects(t *testing.T) {
	o := felix("default", "", 0, v3.FelixConfigurationSpec{
		IPv6Support: ptr(false), WireguardMTU: ptr(1400), LogSeverityScreen: "Debug",
	})
	o.Annotations = map[string]string{
		"config.projectcalico.org/HealthPort": "77", "config.projectcalico.org/NoSuch": "1",
		"config.projectcalico.org/nodename": "x", "else": "y",
	}
	r, err := Resolve(Sources{Node: "n", Objects: []*v3.FelixConfiguration{
		o, felix("everywhere", "", 0, port(1)), felix("broken", "a =", 0, port(2)),
		felix("a", "all()", 5, v3.FelixConfigurationSpec{}), felix("b", "all()", 5, v3.FelixConfigurationSpec{}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Agent; a.IPv6 || a.LogLevel != slog.LevelDebug || a.Health.Port != 77 || a.Node != "" {
		t.Errorf("got %+v", a)
	}
	if want := []Value{{"wireguardMTU", "1400", "FelixConfiguration default"}}; !slices.Equal(r.Ignored, want) {
		t.Errorf("ignored: %q", r.Ignored)
	}
	for _, want := range []string{
		"everywhere: nodeSelector: is empty", "broken: nodeSelector:", "FelixConfigurations a and b both select this host",
		"annotation config.projectcalico.org/NoSuch: is not known", "nodename can only be set on the host itself",
	} {
		if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("no warning %q in %q", want, r.Warnings)
		}
	}
	if len(r.Warnings) != 5 {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

func TestUnknownFlag(t *testing.T) {
	if _, err := Resolve(Sources{Flags: map[string]string{"no-such": "1"}}); err == nil || !strings.Contains(err.Error(), "--no-such") {
		t.Errorf("got %v", err)
	}
}

func TestParseFile(t *testing.T) {
	got, err := ParseFile([]byte("# comment\n[global]\nHealthPort = 5\nLogFilePath=/a=b\n\n[other]\nHealthPort = 6\n"))
	want := map[string]string{"HealthPort": "5", "LogFilePath": "/a=b"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseFile([]byte("x\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}

// TestParamsAreWhole checks the table itself: every row has all it needs, no
// two rows share a name, and what FelixConfiguration calls a parameter exists
// there.
func TestParamsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Params() {
		if p.Doc == "" || p.Why == "" || p.Rule == "" || p.set == nil {
			t.Errorf("%s: something is missing", p.Name)
		}
		if p.Local == calicoParam(p.Name) {
			t.Errorf("%s: local %v, a field of FelixConfiguration %v", p.Name, p.Local, calicoParam(p.Name))
		}
		for _, name := range append(p.Env, normal(p.Name)) {
			if seen[name] {
				t.Errorf("%s: %s is somebody else's too", p.Name, name)
			}
			seen[name] = true
		}
		var a Agent
		if err := p.set(&a, p.Default); err != nil {
			t.Errorf("%s: default: %v", p.Name, err)
		}
		if err := p.set(&a, "\x00"); !errors.Is(err, errRule) && err == nil && !strings.HasSuffix(p.Name, "Host") && !strings.HasSuffix(p.Name, "IfacePattern") {
			t.Errorf("%s: takes anything", p.Name)
		}
	}
}

func TestReference(t *testing.T) {
	const page = "../../docs/reference/parameters.md"
	if *update {
		if err := os.WriteFile(page, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || string(got) != Reference() {
		t.Errorf("%s is not what the table says (%v): run go test ./internal/config -update", page, err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("FELIX_HEALTHPORT", "1")
	f.Fuzz(func(t *testing.T, name, value string) {
		r, _ := Resolve(Sources{Env: []string{name + "=" + value}, File: map[string]string{name: value}})
		if len(r.Values) != len(Params()) {
			t.Errorf("%d values", len(r.Values))
		}
	})
}

// TestFieldsSayWhatStartsAnew: the reference of the API marks those fields for
// which the agent replaces its program, and no others.
func TestFieldsSayWhatStartsAnew(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/fields.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## FelixConfiguration\n")
	part, _, _ = strings.Cut(part, "\n## ")
	for _, p := range Params() {
		_, row, found := strings.Cut(part, "\n| `spec."+p.Name+"` |")
		row, _, _ = strings.Cut(row, "\n")
		marked := strings.HasSuffix(row, "*the agent replaces its program* |")
		if !p.Local && !found || found && marked == p.Live {
			t.Errorf("%s: live %v, and the page says %q", p.Name, p.Live, row)
		}
	}
}
