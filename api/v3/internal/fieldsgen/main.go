// Command fieldsgen writes the reference of every field of the API, with what
// is honoured and the test that proves it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

func main() {
	out := flag.String("o", "", "the file to write")
	flag.Parse()
	if err := os.WriteFile(*out, render(v3.Kinds(), v3.Fields()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "write the reference of fields:", err)
		os.Exit(1)
	}
}

// render returns the reference as Markdown.
func render(kinds []v3.KindInfo, fields []v3.FieldInfo) []byte {
	var b bytes.Buffer
	b.WriteString("# Fields of the API\n\n" +
		"<!-- Written by `go generate ./api/v3`. Do not edit. -->\n\n" +
		"Every field of every kind of `projectcalico.org/v3`. All of them are read, checked and stored.\n\n" +
		"- **honoured**: the field does what it says, and the test beside it proves that.\n" +
		"- *accepted, not honoured yet*: the field is stored and nothing comes of it yet. `brindle apply` warns about each such field by name.\n\n" +
		"The default is what holds when the field is not set; where it is in words, it depends on something else.\n\n" +
		"No field needs a restart by hand: a change is taken up by itself, by most fields while the agent goes on as it is. For the few fields of FelixConfiguration that say so the agent replaces its own program when what it runs with would differ, while the kernel keeps routes and policy and peers keep their routes; other fields that change together with one of these wait for it. Every field of BGPConfiguration that is honoured takes effect while the agent goes on; only another AS number makes sessions begin anew for good, while for another port or address to listen on peers keep their routes. A workload keeps the MTU and the name of its interface for life.\n\n" +
		summary(kinds, fields) +
		"\n## Metadata of every kind\n\n")
	table(&b, fields, "")
	for _, k := range kinds {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", k.Kind, about(k))
		table(&b, fields, k.Kind)
	}
	return b.Bytes()
}

// summary counts the fields of each kind.
func summary(kinds []v3.KindInfo, fields []v3.FieldInfo) string {
	var b strings.Builder
	b.WriteString("| kind | fields | honoured |\n|---|---|---|\n")
	for _, k := range kinds {
		all, proven := 0, 0
		for _, f := range fields {
			if f.Kind != k.Kind || f.Block {
				continue
			}
			all++
			if f.Test != "" {
				proven++
			}
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %d | %d |\n", k.Kind, strings.ToLower(k.Kind), all, proven)
	}
	return b.String()
}

// about says in a line what a kind is called and where it lives.
func about(k v3.KindInfo) string {
	s := "Of the cluster"
	if k.Namespaced {
		s = "Of a namespace"
	}
	s += "; plural `" + k.Plural + "`"
	if len(k.Aliases) > 0 {
		s += "; also `" + strings.Join(k.Aliases, "`, `") + "`"
	}
	if k.ReadOnly {
		s += "; written by components only"
	}
	return s + "."
}

// table writes the fields of one kind.
func table(b *bytes.Buffer, fields []v3.FieldInfo, kind string) {
	b.WriteString("| field | type | default | status |\n|---|---|---|---|\n")
	for _, f := range fields {
		if f.Kind == kind {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.Path, f.Type, code(f.Default), status(f))
		}
	}
}

// status says whether a field is honoured. A block has none of its own, unless
// a test proves the block as a whole.
func status(f v3.FieldInfo) string {
	switch {
	case f.Test != "" && f.Kind == "FelixConfiguration" && slices.Contains(renewing(), f.Path):
		return "**honoured**: `" + f.Test + "`; *the agent replaces its program*"
	case f.Test != "":
		return "**honoured**: `" + f.Test + "`"
	case f.Block:
		return "see its fields"
	}
	return "*accepted, not honoured yet*"
}

// renewing are the fields of FelixConfiguration for which the agent replaces its
// program. A test in internal/config holds the page against what the agent does.
func renewing() []string {
	return []string{
		"spec.interfacePrefix", "spec.ipv6Support", "spec.ipv4NormalRoutePriority", "spec.ipv6NormalRoutePriority", "spec.nftablesMarkMask",
		"spec.vxlanPort", "spec.vxlanVNI", "spec.routeSyncDisabled", "spec.featureDetectOverride",
	}
}

// code marks a value as such; a bar in it would end the table's cell.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}
