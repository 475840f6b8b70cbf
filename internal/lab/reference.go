package lab

import (
	"fmt"
	"strings"
)

// FileReference writes the page of the reference on topology files.
func FileReference() string {
	var b strings.Builder
	b.WriteString(`# Topology files

Generated from internal/lab; a test keeps it true. A topology file says what ` + "`brindle lab up -f FILE`" + ` builds: YAML (or JSON), every field optional. Flags win over the file, the file over its preset. A field that is not listed here, a value that is not allowed, or a field given twice is an error that names the file, the field, the value and the nearest spelling; nothing is built then.

` + "`brindle lab presets`" + ` lists the presets, ` + "`brindle lab presets NAME`" + ` prints one as such a file, in full: the easiest way to begin.

## Fields

| field | type | default | |
|---|---|---|---|
`)
	for _, f := range FileFields() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Path, f.Type, f.Default, f.Doc)
	}
	b.WriteString("\n## The presets as files\n")
	for _, p := range Presets {
		fmt.Fprintf(&b, "\n```yaml\n%s```\n", Example(p))
	}
	return b.String()
}
