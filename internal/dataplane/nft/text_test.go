package nft

import (
	"errors"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

func TestText(t *testing.T) {
	ns := testenv.NetNS(t)
	if text, err := Text(ns); err != nil || text != "" {
		t.Fatalf("of nothing: %q, %v", text, err)
	}
	c, err := dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	b.addTable(inet)
	features()[7].ask(&b, inet) // a verdict map
	if err := errors.Join(c.commit(&b, 0), c.close()); err != nil {
		t.Fatal(err)
	}
	got, err := Text(ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"table inet brindle\n", "  chain c at forward, priority 0\n", " lookup{set:s ", "  set s, flags 0x8, 1 elements\n    00000001: goto other\n",
		"  counter counted: 0 packets, 0 bytes\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
