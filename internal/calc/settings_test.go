package calc

import (
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// TestBrokenSettings: what is wrong with a BGPConfiguration is said for as long
// as it is, and sessions stay as what is kept of it has them. It has nothing to
// do with addresses.
func TestBrokenSettings(t *testing.T) {
	id := model.ID{Kind: model.KindBGPConfig, Name: "default"}
	key := desired.NoticeKey{Condition: desired.ConditionSettings, Object: "BGPConfiguration default"}
	c := New(model.Settings{Node: "h1"})
	for _, s := range []struct {
		name string
		in   model.Value
		want string
	}{
		{"sound", &model.BGPConfig{Name: "default", AS: 64777}, ""},
		{"kept", &model.BGPConfig{Name: "default", AS: 64777, Broken: "m; apply it anew"}, "m; apply it anew"},
		{"for another reason", &model.BGPConfig{Name: "default", AS: 64777, Broken: "n"}, "n"},
		{"sound again", &model.BGPConfig{Name: "default", AS: 64777}, ""},
		{"never read", &model.Invalid{Message: "m"}, "m"},
		{"deleted", nil, ""},
	} {
		c.Apply([]model.Event{{ID: id, Value: s.in}})
		n, ok := c.State().Notices[key]
		if n.Message != s.want || ok != (s.want != "") || ok && (!n.Blocking || n.Reason != "InvalidSettings") {
			t.Errorf("%s: %+v", s.name, c.State().Notices)
		}
	}
}
