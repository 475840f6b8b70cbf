package agent

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func TestPoolsAreTold(t *testing.T) {
	var p pools
	id := func(name string) model.ID { return model.ID{Kind: model.KindPool, Name: name} }
	if got := p.list(); got == nil || len(got) > 0 {
		t.Errorf("of nothing: %v", got)
	}
	p.note([]model.Event{
		{ID: id("b"), Value: &model.Pool{Name: "b", CIDR: netip.MustParsePrefix("10.1.0.0/16"), Encap: model.VXLAN, CrossSubnet: true, NATOutgoing: true}},
		{ID: id("a"), Value: &model.Pool{Name: "a", CIDR: netip.MustParsePrefix("10.0.0.0/16"), Disabled: true}},
		{ID: id("c"), Value: &model.Pool{Name: "c", CIDR: netip.MustParsePrefix("10.2.0.0/16"), Encap: model.IPIP}},
		{ID: model.ID{Kind: model.KindNode, Name: "a"}},
	})
	p.note([]model.Event{{ID: id("c")}})
	want := []agentapi.Pool{
		{Name: "a", CIDR: "10.0.0.0/16", Form: "direct", Disabled: true},
		{Name: "b", CIDR: "10.1.0.0/16", Form: "vxlan", CrossSubnet: true, NATOutgoing: true},
	}
	if got := p.list(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestAddressesAreExplained(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")
	for _, tt := range []struct {
		name string
		env  []string
		in   wantedAddress
		of   netip.Prefix
		want string
	}{
		{"none", nil, wantedAddress{family: 6}, netip.Prefix{}, ""},
		{"of the Node", nil, wantedAddress{family: 4, have: v4.String()}, v4, "the Node had it already"},
		{"given", []string{"IP=192.0.2.1"}, wantedAddress{family: 4, said: "192.0.2.1"}, v4, "given (environment, IP)"},
		{"IPv6 given", []string{"IP6=2001:db8::1"}, wantedAddress{family: 6, said: "2001:db8::1"}, v6, "given (environment, IP6)"},
		{"given for the other family", []string{"IP6=2001:db8::1"}, wantedAddress{family: 4, have: v4.String()}, v4, "the Node had it already"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := config.Resolve(config.Sources{Env: tt.env})
			if err != nil {
				t.Fatal(err)
			}
			a := hostOf(t, mem.New(), "h1", "192.0.2.1/24")
			a.cfg.Outcome = res
			if got := a.whyAddress(tt.in, tt.of); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	// What was found once stays so when the Node says it too.
	a := hostOf(t, mem.New(), "h1", "192.0.2.1/24")
	for range 2 {
		if err := a.registerOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.registered.Load().why4; got != "given" {
			t.Errorf("got %q", got)
		}
		a.cfg.Settings.Startup.IP = "" // as if it had been found
	}
	r := &registered{v4: v4, why4: "given"}
	if got := a.choices(r); len(got) != 1 || got[0] != (agentapi.AddressChoice{Address: "192.0.2.1/24", Why: "given"}) {
		t.Errorf("got %+v", got)
	}
}
