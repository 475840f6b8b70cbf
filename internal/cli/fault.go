package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// fault is an error as -o json prints it.
type fault struct {
	Error  string       `json:"error"`
	Status int          `json:"exitStatus"`
	Fields []fieldFault `json:"fields,omitempty"`

	// Late are the hosts that do not enforce what was written.
	Late []client.HostState `json:"late,omitempty"`
}

// fieldFault is one thing wrong with one field of one document.
type fieldFault struct {
	File     string `json:"file,omitempty"`
	Document int    `json:"document,omitempty"`
	Item     int    `json:"item,omitempty"`
	Kind     string `json:"kind,omitempty"`
	Name     string `json:"name,omitempty"`
	Field    string `json:"field,omitempty"`
	Value    string `json:"value,omitempty"`
	Rule     string `json:"rule"`
	Hint     string `json:"hint,omitempty"`
}

// tell prints an error: as text, or as a line of JSON.
func tell(e *Env, exit *ExitError) {
	if e.jsonErrors {
		f := fault{Error: exit.Err.Error(), Status: exit.Status}
		eachError(exit.Err, func(err error) {
			switch x := err.(type) {
			case *lateError:
				f.Late = x.state.Late()
			case v3.DocumentErrors:
				for _, d := range x {
					f.Fields = append(f.Fields, fieldFault{d.File, d.Index, d.Item, d.Kind, d.Name, d.Field.Path, d.Field.Value, d.Field.Rule, d.Field.Hint})
				}
			case v3.FieldErrors:
				for _, x := range x {
					f.Fields = append(f.Fields, fieldFault{Field: x.Path, Value: x.Value, Rule: x.Rule, Hint: x.Hint})
				}
			}
		})
		writeJSONLine(e.Stderr, f)
		return
	}
	// Lines after the first are set in, so that none of them, whoever wrote
	// it, can pretend to be another message.
	fmt.Fprintf(e.Stderr, "brindle: %s\n", strings.ReplaceAll(clean(exit.Err.Error()), "\n", "\n  "))
}

// eachError visits an error and all that it wraps.
func eachError(err error, visit func(error)) {
	visit(err)
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		if inner := x.Unwrap(); inner != nil {
			eachError(inner, visit)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range x.Unwrap() {
			eachError(inner, visit)
		}
	}
}

// writeJSONLine prints a value as one line of JSON, in which nothing steers a
// terminal.
func writeJSONLine(w io.Writer, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return // texts and numbers always can be
	}
	_, _ = w.Write(escapeJSON(b.Bytes())) // nobody to tell that standard error is gone
}

// warn prints warnings, each on its line.
func warn(e *Env, warnings []string) {
	for _, w := range warnings {
		if e.jsonErrors {
			writeJSONLine(e.Stderr, map[string]string{"warning": w})
		} else {
			fmt.Fprintln(e.Stderr, "warning:", word(w))
		}
	}
}

// asksJSON reports whether a command line asks for JSON: then what goes wrong
// is told in JSON too. c is nil, or its flags are not read, when the command
// line is what is wrong.
func asksJSON(c *cobra.Command, args []string) bool {
	if c != nil && !c.HasSubCommands() {
		f := c.Flags().Lookup("output")
		if f == nil {
			return false
		}
		if f.Changed {
			return f.Value.String() == "json"
		}
	}
	for i, a := range args {
		switch {
		case a == "--":
			return false
		case slices.Contains([]string{"-ojson", "-o=json", "--output=json"}, a):
			return true
		case (a == "-o" || a == "--output") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}
