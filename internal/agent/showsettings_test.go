package agent

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
)

func TestSettingsAreToldWithTheirSources(t *testing.T) {
	res, err := config.Resolve(config.Sources{
		Node: "h1", File: map[string]string{"HealthPort": "1"},
		Env: []string{"FELIX_HEALTHPORT=2", "FELIX_WIREGUARDMTU=1", "FELIX_ETCDPASSWORD=hush", "ETCD_PASSWORD=hush"},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: Config{Node: "h1", Outcome: res}}
	w := httptest.NewRecorder()
	a.serveSettings(w, nil)
	var got agentapi.Settings
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	file := agentapi.Setting{Name: "healthPort", Value: "1", Source: "configuration file, HealthPort"}
	env := agentapi.Setting{Name: "healthPort", Value: "2", Source: "environment, FELIX_HEALTHPORT"}
	if got.Node != "h1" || !slices.Contains(got.Values, env) || !slices.Equal(got.Said, []agentapi.Setting{file, env}) ||
		len(got.Ignored) != 1 || len(got.Warnings) != 1 || len(got.Values) != len(config.Params()) {
		t.Errorf("got %+v", got)
	}
	if slices.ContainsFunc(slices.Concat(got.Values, got.Said, got.Ignored), func(s agentapi.Setting) bool { return s.Value == "hush" }) {
		t.Error("a password is told")
	}
}
