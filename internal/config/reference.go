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
		"`none`" + ` stands for the zero value.

An agent notices a change of FelixConfiguration objects, and of the labels that choose among them, by itself. What is marked "live" takes effect at once, in step with policy that is written before or after it; for the rest, and for all that changes together with it, the agent replaces its own program, while the kernel keeps routes and policy and peers keep their routes. A port for health or metrics that cannot be had is tried again and again and told of by the condition ` + "`Settings`" + `; the one before stays until then. The file, the environment and flags are read when it starts: a change of these needs a restart (` + "`systemctl restart brindle-agent`" + `), also of what is marked "host only".

A bad value in an object changes nothing: what was in force stays, also when the agent starts anew, and so does all that an object says that cannot be read. The condition ` + "`Settings`" + ` of the host, in ` + "`brindle node status`" + `, names the object, the field, the value and what is allowed until it is mended. Where nothing was in force, and in the file, the environment and flags, it gives way to the default with a warning, or stops the agent where marked.

| parameter | default | allowed | where | what and why |
|---|---|---|---|---|
`)
	for _, p := range Params() {
		where := "everywhere"
		if p.Local {
			where = "host only"
		}
		if p.Live {
			where += ", live"
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
