package feed

import (
	"context"
	"errors"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func TestRead(t *testing.T) {
	d := mem.New()
	for _, o := range [][5]string{
		{"nodes", "Node", "", "n", "{}"},
		{"workloadendpoints", "WorkloadEndpoint", "ns", "w", `{"node":"elsewhere","interfaceName":"cali1","ipNetworks":["10.0.0.1/32"]}`},
		{"ippools", "IPPool", "", "bad", `{"cidr":"nonsense"}`},
		{"ipamconfigurations", "IPAMConfiguration", "", "default", "{}"},
	} {
		key, value := object(o[0], o[1], o[2], o[3], o[4])
		put(t, d, key, value)
	}
	got, err := Read(t.Context(), d)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, e := range got {
		if _, invalid := e.Value.(*model.Invalid); invalid != (e.ID.Name == "bad") {
			t.Errorf("%v is %+v", e.ID, e.Value)
		}
	}
	if _, err := Read(context.Background(), &flaky{Driver: d, down: true}); !errors.Is(err, errDown) {
		t.Errorf("out of reach: %v", err)
	}
}
