package mem_test

import (
	"testing"

	"github.com/brindle-net/brindle/internal/store/mem"
	"github.com/brindle-net/brindle/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Fixture {
		s := mem.New()
		return storetest.Fixture{Driver: s, Compact: s.Compact}
	})
}
