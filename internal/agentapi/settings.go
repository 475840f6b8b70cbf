package agentapi

// PathSettings (GET -> Settings) says which settings the agent runs with, and
// who said so.
const PathSettings = "/v1/settings"

// Settings is what an agent runs with. The datastore's password and keys are
// no settings, and are never in it.
type Settings struct {
	Node string `json:"node"`
	// Values are all settings that there are, each with the source that holds.
	Values []Setting `json:"values"`
	// Said is all that sources say of them, of each setting the strongest last.
	Said []Setting `json:"said"`
	// Ignored is what sources say that is known of Calico and not honoured.
	Ignored  []Setting `json:"ignored"`
	Warnings []string  `json:"warnings"` // for people
}

// Setting is what one source says of one setting.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // "default", "FelixConfiguration node.h1", "environment, FELIX_HEALTHPORT", …
}
