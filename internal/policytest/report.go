package policytest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Failed reports whether the assertion does not hold.
func (r Result) Failed() bool { return len(r.Failures) > 0 }

// place says where the assertion stands: "shop.yaml: document 2: PolicyTest shop: spec.assertions[3]".
func (r Result) place() string {
	wrong := r.Document.Errors(v3.FieldErrors{{Path: fmt.Sprintf("spec.assertions[%d]", r.Index)}})
	return strings.TrimSuffix(wrong[0].Error(), ": ")
}

// suite names the document for reports: its own name, else its file.
func (r Result) suite() string {
	if name := r.Document.Object.Meta().Name; name != "" {
		return name
	}
	return r.Document.File
}

// message tells every failure of the assertion, one a line.
func (r Result) message() string {
	var lines []string
	for _, f := range r.Failures {
		lines = append(lines, f.Text())
	}
	return strings.Join(lines, "\n")
}

// Text tells the failure on one line.
func (f Failure) Text() string {
	if !f.Verdict.Flow.Source.IsValid() {
		return f.Reason
	}
	return fmt.Sprintf("%s → %s (%v → %v) %s", f.From, f.To, f.Verdict.Flow.Source, f.Verdict.Flow.Dest, f.Reason)
}

// Text writes results for people: what failed and how, then the count.
func Text(results []Result) string {
	var b strings.Builder
	failed, flows := 0, 0
	for _, r := range results {
		flows += r.Flows
		if !r.Failed() {
			continue
		}
		failed++
		fmt.Fprintf(&b, "FAIL %s: %s\n", r.place(), r.Title())
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "     %s\n", f.Text())
		}
	}
	fmt.Fprintf(&b, "%d of %d assertions hold, %d connections judged\n", len(results)-failed, len(results), flows)
	return b.String()
}

// The parts of a JUnit report that its readers agree on.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	File     string      `xml:"file,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	ClassName string        `xml:"classname,attr"`
	File      string        `xml:"file,attr"`
	Line      int           `xml:"line,attr"`
	Failure   *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes results as a JUnit report: a suite for each document, a case
// for each assertion.
func JUnit(results []Result) ([]byte, error) {
	all := junitSuites{Tests: len(results)}
	for i, r := range results {
		if i == 0 || r.Document.Object != results[i-1].Document.Object {
			all.Suites = append(all.Suites, junitSuite{Name: printable(r.suite()), File: r.Document.File})
		}
		s := &all.Suites[len(all.Suites)-1]
		c := junitCase{
			Name: printable(r.Title()), ClassName: printable(r.suite()), File: r.Document.File, Line: r.Document.Line,
		}
		s.Tests++
		if r.Failed() {
			s.Failures++
			all.Failures++
			c.Failure = &junitFailure{Message: printable(r.Failures[0].Text()), Text: printable(r.message())}
		}
		s.Cases = append(s.Cases, c)
	}
	out, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JUnit: %w", err)
	}
	return append([]byte(xml.Header), append(out, '\n')...), nil
}

// printable replaces what a terminal might obey and XML cannot hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return '�'
		}
		return r
	}, s)
}

// The parts of SARIF 2.1.0 (OASIS) that are needed to say where something is
// wrong.
type sarif struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string       `json:"id"`
	ShortDescription sarifMessage `json:"shortDescription"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"`
	Message   sarifMessage    `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	Physical sarifPhysical `json:"physicalLocation"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   sarifRegion   `json:"region"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

// assertionRule is the one rule of our SARIF reports.
const assertionRule = "policy-assertion"

// SARIF writes the assertions that do not hold as a SARIF 2.1.0 log, as code
// hosts read it. version is that of this program.
func SARIF(results []Result, version string) ([]byte, error) {
	run := sarifRun{Results: []sarifResult{}, Tool: sarifTool{sarifDriver{
		Name: "brindle", Version: version,
		Rules: []sarifRule{{assertionRule, sarifMessage{"A connection is not allowed or denied as a PolicyTest says"}}},
	}}}
	for _, r := range results {
		if !r.Failed() {
			continue
		}
		run.Results = append(run.Results, sarifResult{
			RuleID: assertionRule, Level: "error", Message: sarifMessage{r.Title() + "\n" + r.message()},
			Locations: []sarifLocation{{sarifPhysical{sarifArtifact{(&url.URL{Path: filepath.ToSlash(r.Document.File)}).String()}, sarifRegion{max(1, r.Document.Line)}}}},
		})
	}
	out, err := json.MarshalIndent(sarif{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write SARIF: %w", err)
	}
	return append(out, '\n'), nil
}

// Summary is what -o json prints of a run.
type Summary struct {
	Assertions int       `json:"assertions"`
	Failed     int       `json:"failed"`
	Flows      int       `json:"flows"` // connections judged
	Results    []Outcome `json:"results"`
}

// Outcome is one assertion in a Summary.
type Outcome struct {
	Test     string   `json:"test"`
	Title    string   `json:"title"`
	Place    string   `json:"place"`
	File     string   `json:"file"`
	Line     int      `json:"line"` // of the document
	Holds    bool     `json:"holds"`
	Flows    int      `json:"flows"`
	Failures []string `json:"failures,omitempty"`
}

// Summarize gathers results for programs.
func Summarize(results []Result) Summary {
	s := Summary{Assertions: len(results), Results: []Outcome{}}
	for _, r := range results {
		o := Outcome{
			Test: r.suite(), Title: r.Title(), Place: r.place(), File: r.Document.File, Line: r.Document.Line,
			Holds: !r.Failed(), Flows: r.Flows,
		}
		for _, f := range r.Failures {
			o.Failures = append(o.Failures, f.Text())
		}
		s.Flows += r.Flows
		if r.Failed() {
			s.Failed++
		}
		s.Results = append(s.Results, o)
	}
	return s
}
