package selector

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestPolicySelectors(t *testing.T) {
	for _, c := range []struct {
		name        string
		global      bool
		namespace   string
		sel, ns, sa string
		want        string
	}{
		{name: "NP", namespace: "ns1", sel: `r == 'x'`,
			want: `(r == "x" && projectcalico.org/namespace == "ns1")`},
		{name: "NP, empty selector", namespace: "ns1",
			want: `projectcalico.org/namespace == "ns1"`},
		{name: "NP, or does not escape the namespace", namespace: "ns1", sel: `r == 'x' || has(s)`,
			want: `((r == "x" || has(s)) && projectcalico.org/namespace == "ns1")`},
		{name: "NP with service accounts", namespace: "ns1", sel: `has(r)`, sa: `role == 'z'`,
			want: `(has(r) && projectcalico.org/namespace == "ns1" && pcsa.role == "z")`},
		{name: "NP rewrites no all()", namespace: "ns1", sel: `all()`, sa: `all()`,
			want: `(all() && projectcalico.org/namespace == "ns1" && all())`},
		{name: "GNP, nothing", global: true, want: `all()`},
		{name: "GNP, all()", global: true, sel: `all()`, want: `all()`},
		{name: "GNP with namespaces", global: true, sel: `r == 'x'`, ns: `env == 'prod'`,
			want: `(r == "x" && pcns.env == "prod")`},
		{name: "GNP, all namespaces", global: true, ns: `all()`,
			want: `has(projectcalico.org/namespace)`},
		{name: "GNP, all namespaces, spaced", global: true, ns: `all( )`,
			want: `has(projectcalico.org/namespace)`},
		{name: "GNP, blank namespaceSelector", global: true, ns: ` `,
			want: `has(projectcalico.org/namespace)`},
		{name: "GNP, quirk: all() in selector is rewritten too", global: true, sel: `all()`, ns: `!has(x)`,
			want: `(has(projectcalico.org/namespace) && !has(pcns.x))`},
		{name: "GNP, quirk: without a selector there is nothing to rewrite", global: true, ns: `!has(x)`,
			want: `!has(pcns.x)`},
		{name: "GNP, quirk: inside a selector", global: true, sel: `has(a) && !all()`, ns: `has(x)`,
			want: `((has(a) && !has(projectcalico.org/namespace)) && has(pcns.x))`},
		{name: "GNP, quirk: the rewrite is textual", global: true, sel: `all( )`, ns: `!has(x)`,
			want: `(all() && !has(pcns.x))`},
		{name: "GNP with service accounts", global: true, sel: `r == 'x'`, sa: `role == 'z'`,
			want: `(r == "x" && pcsa.role == "z")`},
		{name: "GNP, all service accounts", global: true, sa: `all()`,
			want: `has(projectcalico.org/serviceaccount)`},
		{name: "GNP, quirk: by service accounts", global: true, sel: `all()`, sa: `has(y)`,
			want: `(has(projectcalico.org/serviceaccount) && has(pcsa.y))`},
		{name: "GNP, both: namespaces rewrite first", global: true, sel: `all()`, ns: `all()`, sa: `all()`,
			want: `(has(projectcalico.org/namespace) && has(projectcalico.org/namespace) && has(projectcalico.org/serviceaccount))`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ForNetworkPolicy(c.namespace, c.sel, c.sa)
			if c.global {
				got, err = ForGlobalNetworkPolicy(c.sel, c.ns, c.sa)
			}
			if err != nil || got.String() != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestEntities(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Entity
		want string // "any" when not restricted
		not  string // "" when nothing is excluded
	}{
		{"NP, nothing", Entity{Namespace: "ns1"}, "any", ""},
		{"GNP, nothing", Entity{}, "any", ""},
		{"NP, selector", Entity{Namespace: "ns1", Selector: `r == 'y'`},
			`(projectcalico.org/namespace == "ns1" && r == "y")`, ""},
		{"GNP, selector", Entity{Selector: `r == 'y'`}, `r == "y"`, ""},
		{"NP, namespaceSelector and selector", Entity{Namespace: "ns1", NamespaceSelector: `env == 'a'`, Selector: `r == 'y'`},
			`(pcns.env == "a" && r == "y")`, ""},
		{"NP, namespaceSelector", Entity{Namespace: "ns1", NamespaceSelector: `env == 'a'`}, `pcns.env == "a"`, ""},
		{"NP, all namespaces", Entity{Namespace: "ns1", NamespaceSelector: `all()`}, `has(projectcalico.org/namespace)`, ""},
		{"NP, global", Entity{Namespace: "ns1", NamespaceSelector: `global()`}, `!has(projectcalico.org/namespace)`, ""},
		{"GNP, global and selector", Entity{NamespaceSelector: `global()`, Selector: `r == 'y'`},
			`(!has(projectcalico.org/namespace) && r == "y")`, ""},
		{"NP, notSelector", Entity{Namespace: "ns1", NotSelector: `r == 'y'`},
			`projectcalico.org/namespace == "ns1"`, `r == "y"`},
		{"GNP, notSelector", Entity{NotSelector: `r == 'y'`}, "any", `r == "y"`},
		{"NP, service account names", Entity{Namespace: "ns1", ServiceAccountNames: []string{"b", "a"}},
			`(projectcalico.org/namespace == "ns1" && projectcalico.org/serviceaccount in {"a", "b"})`, ""},
		{"GNP, service account names and selector",
			Entity{ServiceAccountNames: []string{"a"}, ServiceAccountSelector: `role == 'z'`, Selector: `has(r) || has(s)`},
			`((pcsa.role == "z" && projectcalico.org/serviceaccount in {"a"}) && (has(r) || has(s)))`, ""},
		{"an entity rewrites all() in namespaceSelector only",
			Entity{Selector: `all()`, NamespaceSelector: `has(x) || all()`, ServiceAccountSelector: `all()`},
			`((has(pcns.x) || has(projectcalico.org/namespace)) && all() && all())`, ""},
		{"all() as selector restricts to what is known", Entity{Selector: `all()`}, `all()`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.in.Compose()
			if err != nil {
				t.Fatal(err)
			}
			got, not := "any", ""
			if p.Restricted {
				got = p.Selector.String()
			}
			if p.Excluding {
				not = p.Not.String()
			}
			if got != c.want || not != c.not {
				t.Errorf("%s not %s; want %s not %s", got, not, c.want, c.not)
			}
		})
	}
}

func TestCompositionErrors(t *testing.T) {
	long := strings.Repeat("k", MaxKey)
	for name, c := range map[string]struct {
		err  func() error
		want string
	}{
		"selector":       {func() error { _, err := ForNetworkPolicy("n", "b", ""); return err }, "selector: "},
		"namespace":      {func() error { _, err := ForNetworkPolicy(`'"`, "", ""); return err }, "both kinds of quote"},
		"serviceAccount": {func() error { _, err := ForNetworkPolicy("n", "", "b"); return err }, "serviceAccountSelector: "},
		"GNP selector":   {func() error { _, err := ForGlobalNetworkPolicy("all() x", "", ""); return err }, "column 7"},
		"GNP namespaces": {func() error { _, err := ForGlobalNetworkPolicy("", "b", ""); return err }, "namespaceSelector: "},
		"GNP accounts":   {func() error { _, err := ForGlobalNetworkPolicy("", "", "b"); return err }, "serviceAccountSelector: "},
		"key too long":   {func() error { _, err := ForGlobalNetworkPolicy("", "has("+long+")", ""); return err }, "longer than 512"},
		"parentheses do not leak": {func() error {
			_, err := ForNetworkPolicy("n", "has(a)) || (has(b)", "")
			return err
		}, "never opened"},
		"entity":       {func() error { _, err := Entity{Selector: "b"}.Compose(); return err }, "selector: "},
		"notSelector":  {func() error { _, err := Entity{NotSelector: "b"}.Compose(); return err }, "notSelector: "},
		"entity names": {func() error { _, err := Entity{ServiceAccountNames: []string{`'"`}}.Compose(); return err }, "both kinds"},
		"entity sa":    {func() error { _, err := Entity{ServiceAccountSelector: `b`}.Compose(); return err }, "serviceAccounts.selector: "},
		"entity ns":    {func() error { _, err := Entity{NamespaceSelector: `b`}.Compose(); return err }, "namespaceSelector: "},
		"entity own":   {func() error { _, err := Entity{Namespace: `'"`, Selector: `has(a)`}.Compose(); return err }, "both kinds"},
	} {
		if err := c.err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	if _, err := ForNetworkPolicy(`'"`, "", ""); !errors.Is(err, ErrUnquotable) {
		t.Error("ErrUnquotable is not in the chain")
	}
	s, err := Parse(`has(a) && b == "x"`)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.WithPrefix("pcns."); err != nil || p.String() != `(has(pcns.a) && pcns.b == "x")` {
		t.Errorf("with prefix: %s, %v", p, err)
	}
	if _, err := s.WithPrefix(long); err == nil {
		t.Error("a prefix that makes keys too long is accepted")
	}
	if p, err := s.And(Selector{}); err != nil || !p.Equal(s) {
		t.Errorf("and everything: %s, %v", p, err)
	}
	if g, _ := Parse("(global( ))"); !g.IsGlobal() || !g.HasGlobal() {
		t.Error("global() is not recognised")
	}
	if g, _ := Parse(`has(a) || !global()`); g.IsGlobal() || !g.HasGlobal() {
		t.Error("global() is not found in a combination")
	}
}

// twinKey finds the label keys of a canonical text outside its values, so
// that the twin of composition can prefix them by editing text.
var twinKey = regexp.MustCompile(`"[^"]*"|'[^']*'|has\([^)]*\)|(?:all|global)\(\)|[A-Za-z0-9_./-]+ (?:==|!=|in|not in|contains|starts with|ends with) `)

func twinPrefix(t *testing.T, text, prefix string) string {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return twinKey.ReplaceAllStringFunc(s.String(), func(m string) string {
		switch {
		case strings.HasPrefix(m, `"`), strings.HasPrefix(m, `'`), m == "all()", m == "global()":
			return m
		case strings.HasPrefix(m, "has("):
			return "has(" + prefix + m[4:]
		}
		return prefix + m
	})
}

// twinPolicy composes as the documentation words it: by joining texts.
func twinPolicy(t *testing.T, global bool, namespace, sel, ns, sa string) string {
	var text string
	add := func(more string) {
		if text != "" {
			text = "(" + text + ") && "
		}
		text += "(" + more + ")"
	}
	if sel != "" {
		text = sel
	}
	if !global {
		add(NamespaceLabel + " == '" + namespace + "'")
	}
	if ns != "" {
		add(twinPrefix(t, ns, NamespacePrefix))
		text = strings.ReplaceAll(text, "all()", "has("+NamespaceLabel+")")
	}
	if sa != "" {
		add(twinPrefix(t, sa, ServiceAccountPrefix))
		if global {
			text = strings.ReplaceAll(text, "all()", "has("+ServiceAccountLabel+")")
		}
	}
	return text
}

func TestCompositionAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	field := func() string {
		switch r.IntN(4) {
		case 0:
			return ""
		case 1:
			return "all()"
		}
		return randomSelector(r, 3)
	}
	for range 400 {
		global, sel, ns, sa := r.IntN(2) == 0, field(), field(), field()
		fast, err := ForGlobalNetworkPolicy(sel, ns, sa)
		if !global {
			ns = ""
			fast, err = ForNetworkPolicy("ns1", sel, sa)
		}
		text := twinPolicy(t, global, "ns1", sel, ns, sa)
		slow, ok := twinParse(text)
		if err != nil || !ok {
			t.Fatalf("%q: %v", text, err)
		}
		e := Entity{Namespace: "ns1", Selector: sel, NamespaceSelector: ns, ServiceAccountSelector: sa}
		peers, err := e.Compose()
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			labels := randomLabels(r)
			if got, want := fast.Matches(Map(labels)), slow.matches(labels); got != want {
				t.Fatalf("sel %q ns %q sa %q on %v: %v, want %v\n%s\n%s", sel, ns, sa, labels, got, want, fast, text)
			}
			checkEntity(t, e, peers, labels)
		}
	}
}

// checkEntity decides for one set of labels, field by field, what the entity
// means, and compares.
func checkEntity(t *testing.T, e Entity, p Peers, labels map[string]string) {
	t.Helper()
	says := func(text, prefix string) bool {
		s, ok := twinParse(twinPrefix(t, text, prefix))
		if !ok {
			t.Fatalf("the twin refuses %q", text)
		}
		return s.matches(labels)
	}
	want := true
	if e.Selector != "" {
		want = want && says(e.Selector, "")
	}
	if e.ServiceAccountSelector != "" {
		want = want && says(e.ServiceAccountSelector, ServiceAccountPrefix)
	}
	_, inNS := labels[NamespaceLabel]
	switch {
	case e.NamespaceSelector != "":
		text := twinPrefix(t, e.NamespaceSelector, NamespacePrefix)
		text = strings.ReplaceAll(text, "all()", "has("+NamespaceLabel+")")
		s, _ := twinParse(strings.ReplaceAll(text, "global()", "!has("+NamespaceLabel+")"))
		want = want && s.matches(labels)
	case e.Selector != "" || e.ServiceAccountSelector != "":
		want = want && inNS && labels[NamespaceLabel] == e.Namespace
	}
	if got := !p.Restricted || p.Selector.Matches(Map(labels)); got != want {
		t.Fatalf("%+v on %v: %v, want %v (%s)", e, labels, got, want, p.Selector)
	}
}
