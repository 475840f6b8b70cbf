// Package doctest finds the shell blocks of the documents, so that every
// command that a reader is told to type is one that a test has run.
//
// A block is fenced with ```sh. The line before it, an HTML comment that no
// reader sees, says how it is kept true:
//
//	<!-- test: test/docs/docs_test.go -->   a Go test reads this document and runs the block
//	<!-- test: test/scenarios/x.txtar -->   a story holds every command of the block
//	<!-- not run: it installs packages -->  the reason why it cannot be run
package doctest

import (
	"fmt"
	"strings"
)

// Block is one fenced shell block of a document.
type Block struct {
	File     string
	Line     int    // of the fence, from 1
	Test     string // the file that runs it; "" if NotRun
	NotRun   string // the reason why nothing does
	Commands []string
}

// Script is the block's commands as one script.
func (b Block) Script() string { return strings.Join(b.Commands, "\n") + "\n" }

// Blocks returns the shell blocks of a document. A block that does not say
// how it is kept true, or a fence that is never closed, is an error with its
// file and line.
func Blocks(file, src string) ([]Block, error) {
	var blocks []Block
	var open *Block
	var fence, mark string
	for i, line := range strings.Split(src, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case open != nil && trimmed == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.add(trimmed)
		case fence != "" && trimmed == "```":
			fence = ""
		case fence != "":
		case trimmed == "```sh":
			b, err := start(file, i+1, mark)
			if err != nil {
				return nil, err
			}
			open = &b
		case strings.HasPrefix(trimmed, "```"):
			fence = trimmed
		}
		if trimmed != "" {
			mark = trimmed
		}
	}
	if open != nil || fence != "" {
		return nil, fmt.Errorf("%s: a fence is never closed", file)
	}
	return blocks, nil
}

// start reads the mark above a block.
func start(file string, line int, mark string) (Block, error) {
	b := Block{File: file, Line: line}
	body, ok := strings.CutPrefix(mark, "<!--")
	body, ok2 := strings.CutSuffix(body, "-->")
	key, value, ok3 := strings.Cut(strings.TrimSpace(body), ":")
	value = strings.TrimSpace(value)
	if !ok || !ok2 || !ok3 || value == "" {
		return b, fmt.Errorf("%s:%d: a shell block without a line `<!-- test: FILE -->` or `<!-- not run: REASON -->` before it", file, line)
	}
	switch key {
	case "test":
		b.Test = value
	case "not run":
		b.NotRun = value
	default:
		return b, fmt.Errorf("%s:%d: %q says neither test nor not run", file, line, key)
	}
	return b, nil
}

// add takes one line of a block. A line that goes on with a backslash is one
// command with the next.
func (b *Block) add(line string) {
	if n := len(b.Commands); n > 0 && strings.HasSuffix(b.Commands[n-1], `\`) {
		b.Commands[n-1] = strings.TrimSpace(strings.TrimSuffix(b.Commands[n-1], `\`)) + " " + line
		return
	}
	if line != "" && !strings.HasPrefix(line, "#") {
		b.Commands = append(b.Commands, line)
	}
}

// Covers reports whether a script or story holds the command. What differs
// between a page and a story is dropped on both sides: sudo, the folder bin/,
// the words exec and ! or ?, and a trailing comment.
func Covers(script, command string) bool {
	want := plain(command)
	for line := range strings.Lines(script) {
		if plain(line) == want {
			return true
		}
	}
	return false
}

func plain(line string) string {
	line, _, _ = strings.Cut(line, " #")
	var words []string
	for i, w := range strings.Fields(line) {
		leading := i == 0 || len(words) == 0
		if leading && (w == "exec" || w == "sudo" || w == "!" || w == "?" || w == "-E") {
			continue
		}
		if leading {
			w = strings.TrimPrefix(strings.TrimPrefix(w, "./"), "bin/")
		}
		words = append(words, strings.Trim(w, `'"`))
	}
	return strings.Join(words, " ")
}
