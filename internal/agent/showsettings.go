package agent

import (
	"net/http"
	"slices"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
)

// settings is what this agent runs with, and who said so.
func (a *agent) settings() agentapi.Settings {
	r := a.cfg.outcome()
	warnings := append([]string{}, r.Warnings...)
	for _, text := range a.cfg.refused.texts() {
		if !slices.Contains(warnings, text) {
			warnings = append(warnings, text) // since the start
		}
	}
	return agentapi.Settings{
		Node: a.cfg.Node, Values: told(r.Values), Said: told(r.Said), Ignored: told(r.Ignored), Warnings: warnings,
	}
}

func told(values []config.Value) []agentapi.Setting {
	out := []agentapi.Setting{}
	for _, v := range values {
		out = append(out, agentapi.Setting{Name: v.Name, Value: v.Value, Source: v.Source})
	}
	return out
}

func (a *agent) serveSettings(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.settings()) }
