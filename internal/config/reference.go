package config

import (
	"fmt"
	"strings"
)

// Reference writes the page of the reference that lists every parameter.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Parameters of the agent

Generated from the table in internal/config; a test keeps it true. Precedence, weakest first: the default; FelixConfiguration ` +
		"`default`, one that selects the host, `node.<name>`" + `; the configuration file; the environment; flags.

In the environment a parameter is ` + "`BRINDLE_NAME` or `FELIX_NAME`" + `, in any letter case, with or without underscores between words. The value ` +
		"`none`" + ` stands for the zero value. A bad value gives way to the default with a warning, or stops the agent where marked.

| parameter | default | allowed | where | what and why |
|---|---|---|---|---|
`)
	for _, p := range Params() {
		where := "everywhere"
		if p.Local {
			where = "host only"
		}
		for _, e := range p.Env {
			where += ", `" + e + "`"
		}
		if p.Fatal {
			where += "; a bad value stops the agent"
		}
		def := ""
		if p.Default != "" {
			def = "`" + strings.ReplaceAll(p.Default, "|", `\|`) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s %s |\n", p.Name, def, p.Rule, where, p.Doc, p.Why)
	}
	return b.String()
}
