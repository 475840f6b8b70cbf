package v3

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Document is one object of a file.
type Document struct {
	File   string
	Index  int // of the document in the file, from 1
	Item   int // of the object in a list, from 1; 0 when it stands alone
	Line   int // on which the document starts, from 1
	Object Object
}

// DocumentError is one thing wrong with one document of a file.
type DocumentError struct {
	File  string
	Index int    // of the document in the file, from 1; 0 when the file as a whole is meant
	Item  int    // of the object in a list, from 1; 0 when it stands alone
	Kind  string // "" when it is not known
	Name  string // "namespace/name" or "name", "" when it is not known
	Field FieldError
}

// Error tells it on one line, safe for a terminal.
func (e DocumentError) Error() string {
	var b strings.Builder
	b.WriteString(printable(e.File) + ": ")
	if e.Index > 0 {
		b.WriteString("document " + strconv.Itoa(e.Index))
		if e.Item > 0 {
			b.WriteString(", item " + strconv.Itoa(e.Item))
		}
		b.WriteString(": ")
	}
	if e.Kind != "" {
		b.WriteString(printable(e.Kind))
		if e.Name != "" {
			b.WriteString(" " + printable(e.Name))
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Field.Error())
	return b.String()
}

// DocumentErrors is everything wrong with a file, in its order.
type DocumentErrors []DocumentError

// Error tells one thing a line.
func (e DocumentErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns e as an error, nil when there is nothing wrong.
func (e DocumentErrors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Errors says where the things wrong with the document's object stand, so that
// what validation finds is told as what decoding finds.
func (d Document) Errors(wrong FieldErrors) DocumentErrors {
	all := make(DocumentErrors, 0, len(wrong))
	for _, f := range wrong {
		all = append(all, DocumentError{d.File, d.Index, d.Item, d.Object.Type().Kind, nameOf(d.Object.Meta()), f})
	}
	return all
}

// nameOf returns an object's name as users know it.
func nameOf(m *ObjectMeta) string {
	if m.Namespace != "" && m.Name != "" {
		return m.Namespace + "/" + m.Name
	}
	return m.Name
}

// printable returns s as it is, or quoted when a terminal might obey a part of
// it.
func printable(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// DecodeAll reads every object of a file: YAML documents, JSON values one after
// another, "...List" kinds and JSON arrays of objects. It is strict: what no
// field of the kind takes is an error, and case counts. It reads to the end
// whatever it finds; the error is DocumentErrors with all that is wrong, and
// the documents are those without a fault. Nothing is defaulted or validated.
func DecodeAll(name string, data []byte) ([]Document, error) {
	return decode(&reader{file: name}, data)
}

// decode reads a file with a reader that has read nothing yet.
func decode(r *reader, data []byte) ([]Document, error) {
	name := r.file
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	first := bytes.TrimLeft(data, " \t\r\n")
	looksJSON := len(first) > 0 && (first[0] == '{' || first[0] == '[')
	if !looksJSON && !strings.HasSuffix(name, ".json") {
		r.readYAML(data)
		return r.docs, r.errs.Err()
	}
	trees, lines, err := jsonTrees(data)
	if err != nil && looksJSON && !strings.HasSuffix(name, ".json") {
		y := &reader{file: name, extra: r.extra}
		if y.readYAML(data); !y.broken {
			return y.docs, y.errs.Err()
		}
	}
	for i, t := range trees {
		r.index++
		r.readRoot(t, t, lines[i])
	}
	if err != nil {
		r.index++
		r.fail("", "bad JSON: "+err.Error())
	}
	return r.docs, r.errs.Err()
}

// reader gathers the objects of a file and what is wrong with them.
type reader struct {
	file   string
	extra  []ExtraKind
	index  int
	docs   []Document
	errs   DocumentErrors
	broken bool    // a document was no YAML at all
	walker *walker // to use; nil: none yet
}

// fail notes that a document cannot be read.
func (r *reader) fail(path, rule string) {
	r.errs = append(r.errs, DocumentError{File: r.file, Index: r.index, Field: FieldError{Path: path, Rule: rule}})
}

// readYAML reads the documents between the markers. Empty ones don't count.
func (r *reader) readYAML(data []byte) {
	chunks := splitYAML(data)
	documents := parseChunks(chunks)
	parts := make([]reader, len(chunks)) // what comes of each
	for i, p := range documents {
		if p.err != nil || p.value != nil {
			r.index++
		}
		parts[i] = reader{file: r.file, extra: r.extra, index: r.index}
	}
	share(len(chunks), func(i int, w *walker) {
		part, p := &parts[i], documents[i]
		part.walker = w
		switch {
		case p.err != nil:
			part.badYAML(chunks[i], p.err)
		case p.value != nil:
			part.readRoot(p.value, p.written, chunks[i].line)
		}
	})
	for i := range parts {
		r.docs, r.errs = append(r.docs, parts[i].docs...), append(r.errs, parts[i].errs...)
		r.broken = r.broken || parts[i].broken
	}
}

// badYAML tells why a document is no YAML.
func (r *reader) badYAML(c chunk, err error) {
	r.broken = true
	// Read again with the lines before it, for the number in the message.
	padded := append(bytes.Repeat([]byte{'\n'}, c.line-1), c.data...)
	if _, _, again := yamlTree(padded); again != nil {
		err = again
	}
	r.fail("", "bad YAML: "+printable(strings.ReplaceAll(err.Error(), "\n", " ")))
}

// parsed is a document of YAML as a tree.
type parsed struct {
	value, written *tree
	err            error
}

func parseChunks(chunks []chunk) []parsed {
	out := make([]parsed, len(chunks))
	share(len(chunks), func(i int, _ *walker) {
		out[i].value, out[i].written, out[i].err = yamlTree(chunks[i].data)
	})
	return out
}

// share does n things on as many processors as there are. Each of them has a
// walker of its own.
func share(n int, do func(i int, w *walker)) {
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), n)
	for first := range workers {
		wg.Go(func() {
			w := &walker{}
			for i := first; i < n; i += workers {
				do(i, w)
			}
		})
	}
	wg.Wait()
}

// chunk is the text of one YAML document.
type chunk struct {
	data []byte
	line int // of its first line with something on it
}

// splitYAML cuts a stream at its markers: "---" starts a document and "..."
// ends one, at the start of a line and nowhere else (YAML 1.2, section 9.1).
// Parts with nothing but comments and directives are left out.
func splitYAML(data []byte) []chunk {
	var all []chunk
	current := chunk{}
	end := func() {
		if current.line > 0 {
			all = append(all, current)
		}
		current = chunk{}
	}
	for i, line := range bytes.SplitAfter(data, []byte("\n")) {
		marker := ""
		if len(line) >= 3 && (len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0) {
			marker = string(line[:3])
		}
		if marker == "---" || marker == "..." {
			end()
		}
		if marker == "..." {
			continue
		}
		body := line
		if marker == "---" {
			body = line[3:]
		}
		bare := bytes.TrimSpace(body)
		if current.line == 0 && (len(bare) == 0 || bare[0] == '#' || bare[0] == '%' && marker == "") {
			continue
		}
		if current.line == 0 {
			current.line = i + 1
		}
		current.data = append(current.data, body...)
	}
	end()
	return all
}

// readRoot takes a document apart: an object, a list kind or an array.
func (r *reader) readRoot(t, written *tree, line int) {
	doc := Document{File: r.file, Index: r.index, Line: line}
	if t.shape == list {
		r.readItems(doc, t, written, "", TypeMeta{})
		return
	}
	if t.shape != object {
		r.fail("", "must be an object with kind, apiVersion, metadata and spec")
		return
	}
	items := t.get("items")
	kind := t.get("kind")
	if items == nil || kind == nil || !strings.HasSuffix(kind.scalar, "List") {
		r.readObject(doc, t, written)
		return
	}
	of := TypeMeta{Kind: strings.TrimSuffix(kind.scalar, "List"), APIVersion: Group}
	for _, key := range t.keys {
		if !slices.Contains([]string{"kind", "apiVersion", "metadata", "items"}, key) {
			r.fail(dotted("", key), "unknown field of a list")
		}
	}
	if v := t.get("apiVersion"); v == nil || v.scalar != Group && (of.Kind != "" || v.scalar != "v1") {
		r.fail("apiVersion", "must be "+Group)
	}
	r.readItems(doc, items, written.get("items"), "items", of)
}

// readItems reads the objects of a list. Where an item does not say its type,
// it is that of the list.
func (r *reader) readItems(doc Document, items, written *tree, path string, of TypeMeta) {
	if items.shape != list {
		r.fail(path, "must be a list")
		return
	}
	for i, item := range items.items {
		doc.Item = i + 1
		if item.shape != object {
			r.fail(indexed(path, i), "must be an object with kind, apiVersion, metadata and spec")
			continue
		}
		w := item
		if written != nil && i < len(written.items) {
			w = written.items[i]
		}
		if of.Kind != "" && item.get("kind") == nil {
			item = item.with("kind", of.Kind)
		}
		if of.Kind != "" && item.get("apiVersion") == nil {
			item = item.with("apiVersion", of.APIVersion)
		}
		r.readObject(doc, item, w)
	}
}

// with returns an object that has one more key.
func (t *tree) with(key, value string) *tree {
	return &tree{
		shape: object,
		keys:  append(slices.Clone(t.keys), key),
		items: append(slices.Clone(t.items), &tree{shape: text, scalar: value}),
	}
}

// readObject reads one object of a kind.
func (r *reader) readObject(doc Document, t, written *tree) {
	wrong := written.duplicates("")
	var name, kind string
	if m := t.get("metadata"); m != nil {
		name = m.nameIn()
	}
	info, errs := r.typeOf(t)
	wrong = append(wrong, errs...)
	if info.New != nil {
		kind = info.Kind
		doc.Object = info.New()
		if r.walker == nil {
			r.walker = &walker{}
		}
		wrong = append(wrong, r.walker.read(t, doc.Object)...)
	} else if k := t.get("kind"); k != nil {
		kind = k.scalar
	}
	if len(wrong) == 0 {
		r.docs = append(r.docs, doc)
	}
	for _, f := range wrong {
		r.errs = append(r.errs, DocumentError{doc.File, doc.Index, doc.Item, kind, name, f})
	}
}

// nameIn returns the name that a metadata block gives, as users know it.
func (t *tree) nameIn() string {
	var m ObjectMeta
	for _, at := range []struct {
		key string
		to  *string
	}{{"name", &m.Name}, {"namespace", &m.Namespace}} {
		if v := t.get(at.key); v != nil && v.shape == text {
			*at.to = v.scalar
		}
	}
	return nameOf(&m)
}

// typeOf finds the kind of a document. Its New is nil when there is none.
func typeOf(t *tree) (KindInfo, FieldErrors) {
	var wrong FieldErrors
	var info KindInfo
	if k := t.get("kind"); k == nil || k.shape != text || k.scalar == "" {
		wrong = append(wrong, FieldError{Path: "kind", Rule: "must be given"})
	} else if known, ok := kindNamed(k.scalar); ok {
		info = known
	} else {
		e := FieldError{Path: "kind", Value: k.scalar, Rule: "unknown kind"}
		if s := SuggestKind(k.scalar); s != "" {
			e.Hint = "did you mean " + strconv.Quote(s) + "?"
		}
		wrong = append(wrong, e)
	}
	switch v := t.get("apiVersion"); {
	case v == nil:
		wrong = append(wrong, FieldError{Path: "apiVersion", Rule: "must be given", Hint: "write " + Group})
	case v.scalar != Group:
		wrong = append(wrong, FieldError{Path: "apiVersion", Value: v.scalar, Rule: "must be " + Group})
	}
	return info, wrong
}
