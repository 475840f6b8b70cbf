package calc

import (
	"errors"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// TestFilterThatCannotBeRead: nothing goes past it, as past one that can be.
func TestFilterThatCannotBeRead(t *testing.T) {
	id := model.ID{Kind: model.KindBGPFilter, Name: "f"}
	c := New(model.Settings{Node: "h1"})
	c.Apply([]model.Event{
		nodeEvent(&model.Node{Name: "h1", Addr4: pfx("10.0.0.1/24"), Addr6: pfx("fd00::1/64")}),
		peerEvent(&model.BGPPeer{Name: "a", Addr: ip("10.0.0.8"), AS: 1, Filters: []string{"f"}}),
		peerEvent(&model.BGPPeer{Name: "b", Addr: ip("fd00::8"), AS: 1, Filters: []string{"f"}}),
		model.Invalidate(id, errors.New("spec: is no object")),
	})
	if s := c.State(); len(s.Peers) != 0 {
		t.Errorf("sessions: %+v", s.Peers)
	}
	key := desired.NoticeKey{Condition: desired.ConditionSettings, Object: "BGPFilter f"}
	if n := c.State().Notices[key]; !strings.HasPrefix(n.Message, "spec: is no object: ") {
		t.Errorf("told: %+v", c.State().Notices)
	}
	c.Apply([]model.Event{{ID: id}})
	if s := c.State(); len(s.Peers) != 2 || s.Notices[key] != (desired.Notice{}) {
		t.Errorf("once it is deleted: %+v, %+v", s.Peers, s.Notices)
	}
}

// TestBrokenSettings: what is wrong with an object about BGP, or with a pool, is
// said for as long as it is. It has nothing to do with addresses.
func TestBrokenSettings(t *testing.T) {
	for _, of := range []struct {
		id   model.ID
		what func(broken string) model.Value
	}{
		{model.ID{Kind: model.KindBGPConfig, Name: "default"}, func(b string) model.Value { return &model.BGPConfig{Name: "default", AS: 64777, Broken: b} }},
		{model.ID{Kind: model.KindBGPPeer, Name: "p"}, func(b string) model.Value { return &model.BGPPeer{Name: "p", AS: 64777, Broken: b} }},
		{model.ID{Kind: model.KindPool, Name: "p"}, func(b string) model.Value {
			return &model.Pool{Name: "p", CIDR: pfx("10.65.0.0/16"), BlockSize: 26, Broken: b}
		}},
	} {
		key := desired.NoticeKey{Condition: desired.ConditionSettings, Object: of.id.String()}
		c := New(model.Settings{Node: "h1"})
		for _, s := range []struct {
			name string
			in   model.Value
			want string
		}{
			{"sound", of.what(""), ""},
			{"kept", of.what("m; apply it anew"), "m; apply it anew"},
			{"for another reason", of.what("n"), "n"},
			{"sound again", of.what(""), ""},
			{"never read", &model.Invalid{Message: "m"}, "m"},
			{"deleted", nil, ""},
		} {
			c.Apply([]model.Event{{ID: of.id, Value: s.in}})
			n, ok := c.State().Notices[key]
			if n.Message != s.want || ok != (s.want != "") || ok && (!n.Blocking || n.Reason != "InvalidSettings") {
				t.Errorf("%s, %s: %+v", of.id, s.name, c.State().Notices)
			}
		}
	}
}
