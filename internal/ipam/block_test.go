package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// golden returns a datastore as Calico's own programs wrote it.
func golden(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	raw, err := os.ReadFile("testdata/calico-etcd.json")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func parsed(t testing.TB, raw []byte) any {
	t.Helper()
	var v any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

func TestGoldenRecordsSurvive(t *testing.T) {
	n := 0
	for key, raw := range golden(t) {
		var out []byte
		switch {
		case strings.HasPrefix(key, store.BlockRoot):
			b, err := DecodeBlock(raw)
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			if got := store.BlockKey(b.CIDR); got != key {
				t.Errorf("key %s, want %s", got, key)
			}
			if p := b.problems(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); len(p) > 0 {
				t.Errorf("%s: %v", key, p)
			}
			out = b.encode()
		case strings.HasPrefix(key, store.HandleRoot):
			h, err := decodeHandle(raw)
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			out = h.encode()
		case strings.HasPrefix(key, store.HostRoot):
			a, err := decodeAffinity(raw)
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			out = a.encode()
		default:
			continue
		}
		n++
		if got, want := parsed(t, out), parsed(t, raw); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", key, got, want)
		}
	}
	if n != 6 {
		t.Errorf("%d records, want 6", n)
	}
}

func TestUnknownFieldsSurvive(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		encode   func(in []byte) ([]byte, error)
	}{
		{"block", `{"cidr":"10.0.0.0/30","affinity":"host:a","allocations":[0,null,null,null],"unallocated":[1,2,3],
			"attributes":[{"handle_id":"h","secondary":{"node":"a"},"colour":{"x":[1]}}],"sequenceNumber":18446744073709551615,
			"sequenceNumberForAllocation":{"0":7},"deleted":false,"future":"yes","another":[null]}`,
			func(in []byte) ([]byte, error) {
				b, err := DecodeBlock(in)
				if err != nil {
					return nil, err
				}
				return b.clone().encode(), nil
			}},
		{"affinity", `{"state":"confirmed","deleted":false,"type":"host","n":1e3}`,
			func(in []byte) ([]byte, error) { a, err := decodeAffinity(in); return a.encode(), err }},
		{"handle", `{"block":{"10.0.0.0/30":1,"fd00::/126":2},"deleted":false,"handleID":"x"}`,
			func(in []byte) ([]byte, error) {
				h, err := decodeHandle(in)
				if err != nil {
					return nil, err
				}
				return h.copy().encode(), nil
			}},
		{"configuration", `{"strict_affinity":true,"maxBlocksPerHost":3,"ipCooldownSeconds":30,"later":{"a":1}}`,
			func(in []byte) ([]byte, error) { c, err := DecodeConfiguration(in); return c.Encode(), err }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := tc.encode([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := parsed(t, out), parsed(t, []byte(tc.in)); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestDecodeBlockRefusesDamage(t *testing.T) {
	for name, in := range map[string]string{
		"not JSON":              `{`,
		"no CIDR":               `{"allocations":[]}`,
		"host bits":             `{"cidr":"10.0.0.1/30","allocations":[null,null,null,null]}`,
		"too few allocations":   `{"cidr":"10.0.0.0/30","allocations":[null,null,null]}`,
		"negative index":        `{"cidr":"10.0.0.0/30","allocations":[-1,null,null,null]}`,
		"text for a number":     `{"cidr":"10.0.0.0/30","allocations":["x",null,null,null]}`,
		"index out of range":    `{"cidr":"10.0.0.0/31","allocations":[1,null],"attributes":[{"handle_id":"h"}]}`,
		"huge block":            `{"cidr":"10.0.0.0/8","allocations":[null]}`,
		"list for an object":    `[]`,
		"number for a list":     `{"cidr":"10.0.0.0/32","allocations":7}`,
		"list for a map":        `{"cidr":"10.0.0.0/32","allocations":[0],"attributes":[{"secondary":[]}]}`,
		"number for text":       `{"cidr":10}`,
		"empty":                 ``,
		"fraction":              `{"cidr":"10.0.0.0/32","allocations":[null],"unallocated":[0.5]}`,
		"sequence of no number": `{"cidr":"10.0.0.0/32","allocations":[null],"sequenceNumberForAllocation":{"x":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := DecodeBlock([]byte(in)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt", err)
			}
		})
	}
}

func TestOldAffinityIsRead(t *testing.T) {
	b, err := DecodeBlock([]byte(`{"cidr":"10.0.0.0/32","affinity":null,"hostAffinity":"n1","allocations":[null],"unallocated":[0]}`))
	if err != nil {
		t.Fatal(err)
	}
	if b.Host() != "n1" {
		t.Errorf("host %q, want n1", b.Host())
	}
}

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func who(handle string) owner {
	return owner{handle: handle, attrs: map[string]string{AttrNode: "n1", "for": handle}}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestLongestFreeIsUsedFirst(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "host:n1", start)
	if got := b.assign(3, who("h1"), nil); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("assigned %v", got)
	}
	b.release([]int{1}, start, 0)
	b.release([]int{0}, start, 0)
	if got := b.assign(9, who("h2"), nil); !slices.Equal(got, []int{3, 1, 0}) {
		t.Errorf("assigned %v, want 3 1 0", got)
	}
	if got := b.assign(1, who("h3"), nil); len(got) != 0 {
		t.Errorf("assigned %v of a full block", got)
	}
}

func TestAttributesAreShared(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/29"), "host:n1", start)
	b.assign(2, who("h1"), nil)
	b.assign(1, who("h2"), nil)
	b.assign(1, who("h1"), nil)
	if len(b.attrs) != 2 {
		t.Fatalf("%d attributes, want 2", len(b.attrs))
	}
	b.release(b.ordinalsOf("h1"), start, 0)
	if len(b.attrs) != 1 || b.handle(2) != "h2" {
		t.Errorf("after release: %v, ordinal 2 is %q", b.attrs, b.handle(2))
	}
	if p := b.problems(start); len(p) > 0 {
		t.Error(p)
	}
}

func TestCoolDown(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/31"), "host:n1", start)
	b.assign(2, who("h"), nil)
	b.release([]int{1}, start, time.Minute)
	b.release([]int{0}, start.Add(10*time.Second), time.Minute)
	if b.empty() {
		t.Error("a block with addresses that cool down counts as empty")
	}
	back, err := DecodeBlock(b.encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		at   time.Duration
		free []int
	}{
		{"too early", 59 * time.Second, []int{}},
		{"first", time.Minute, []int{1}},
		{"second", 70 * time.Second, []int{1, 0}},
	} {
		back.expire(start.Add(step.at), time.Minute)
		if !slices.Equal(back.queue, step.free) {
			t.Errorf("%s: free %v, want %v", step.name, back.queue, step.free)
		}
	}
	if !back.empty() || len(back.attrs) != 0 {
		t.Errorf("attributes %v left", back.attrs)
	}
}

func TestCoolDownSurvivesClockSteps(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/32"), "host:n1", start)
	b.assign(1, who("h"), nil)
	b.release([]int{0}, start.Add(24*time.Hour), time.Minute) // clock a day ahead
	b.expire(start, time.Minute)
	if b.expire(start.Add(59*time.Second), time.Minute); len(b.queue) != 0 {
		t.Error("free before the cool-down since the clock was set right")
	}
	if b.expire(start.Add(60*time.Second), time.Minute); len(b.queue) != 1 {
		t.Error("still not free")
	}
}

func TestReservedAreSkipped(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "host:n1", start)
	r := NewReserved([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("10.0.0.1/32")})
	if n := b.available(r); n != 2 {
		t.Errorf("%d available, want 2", n)
	}
	if got := b.assign(4, who("h"), r); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("assigned %v, want 2 3", got)
	}
	if err := b.assignOne(netip.MustParseAddr("10.0.0.1"), who("h")); err != nil {
		t.Errorf("a reserved address cannot be had by name: %v", err)
	}
}

func TestCheckRelease(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/29"), "host:n1", start)
	b.Sequence = 8
	b.assign(1, who("old"), nil)
	b.release([]int{0}, start, 0)
	b.Sequence = 10
	for range 8 {
		b.assign(1, who("new"), nil)
	}
	a := netip.MustParseAddr("10.0.0.0")
	for _, tc := range []struct {
		name string
		in   ReleaseOptions
		want error
	}{
		{"address only", ReleaseOptions{Addr: a}, nil},
		{"right", ReleaseOptions{Addr: a, Handle: "new", Sequence: 10}, nil},
		{"older sequence number", ReleaseOptions{Addr: a, Sequence: 8}, ErrStale},
		{"older handle", ReleaseOptions{Addr: a, Handle: "old"}, ErrStale},
		{"elsewhere", ReleaseOptions{Addr: netip.MustParseAddr("10.0.1.0")}, ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := b.checkRelease(tc.in); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	delete(b.seqs, 0) // data from before sequence numbers
	if _, err := b.checkRelease(ReleaseOptions{Addr: a, Sequence: 8}); err != nil {
		t.Errorf("without a stored number: %v", err)
	}
	b.release([]int{0}, start, time.Hour)
	if _, err := b.checkRelease(ReleaseOptions{Addr: a}); !errors.Is(err, ErrNotAssigned) {
		t.Errorf("cooling down: %v", err)
	}
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name, block, want string
	}{
		{"unused attribute", `"allocations":[null,null],"unallocated":[0,1],"attributes":[{"handle_id":"h"}]`, "not used"},
		{"twice in the queue", `"allocations":[null,null],"unallocated":[0,1,1],"attributes":[]`, "twice"},
		{"free and assigned", `"allocations":[0,null],"unallocated":[0,1],"attributes":[{"handle_id":"h"}]`, "both"},
		{"lost", `"allocations":[null,null],"unallocated":[0],"attributes":[]`, "neither"},
		{"outside", `"allocations":[null,null],"unallocated":[0,1,2],"attributes":[]`, "outside"},
		{"future", `"allocations":[0,null],"unallocated":[1],"attributes":[{"releasedAt":"2026-11-22T12:00:00Z"}]`, "future"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := DecodeBlock([]byte(`{"cidr":"10.0.0.0/31",` + tc.block + `}`))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(b.problems(start), "; ")
			if !strings.Contains(got, tc.want) {
				t.Errorf("problems %q, want one with %q", got, tc.want)
			}
			// Whatever is wrong, nothing is assigned twice.
			seen := map[int]bool{}
			for _, ord := range b.assign(9, who("x"), nil) {
				if seen[ord] || ord < 0 || ord > 1 || tc.name == "free and assigned" && ord == 0 {
					t.Errorf("assigned %d", ord)
				}
				seen[ord] = true
			}
		})
	}
}

// FuzzDecodeBlock checks that whatever is stored is refused or survives.
func FuzzDecodeBlock(f *testing.F) {
	for _, raw := range golden(f) {
		f.Add([]byte(raw))
	}
	f.Add([]byte(` { "cidr" : "10.0.0.0/31" , "allocations":[ 0 , null ],"unallocated":[1] , "attributes":[{"secondary":{"\u0061":"\"\\"},"x":[{}]}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := DecodeBlock(in)
		if err != nil {
			return
		}
		out := b.encode()
		back, err := DecodeBlock(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if again := back.encode(); string(again) != string(out) {
			t.Errorf("got  %s\nwant %s", again, out)
		}
		b.assign(1, who("x"), nil)
		b.release(b.ordinalsOf("x"), start, 0)
		_ = b.problems(start)
	})
}

func TestAppendStringIsJSON(t *testing.T) {
	for _, s := range []string{"", "plain", "a b", `quo"te`, `back\slash`, "<&>", "tab\t", "é", "\u2028", "\xff", "~", "\x7f", "line\n"} {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, s); string(got) != string(want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// What a block remembers of how it was stored is forgotten when it changes.
func TestRememberedTextIsCurrent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := newBlock(netip.MustParsePrefix("10.0.0.0/28"), "host:n1", start)
	now, coolDown := start, 20*time.Second
	for i := range 2000 {
		switch rnd.IntN(4) {
		case 0:
			now = now.Add(time.Duration(rnd.IntN(20)-6) * time.Second)
			b.expire(now, coolDown)
		case 1:
			b.release([]int{rnd.IntN(len(b.slots))}, now, coolDown)
		default:
			b.assign(1, owner{handle: fmt.Sprint("h", i), attrs: map[string]string{"pod": fmt.Sprint(i)}}, nil)
		}
		got := string(b.encode())
		fresh := b.clone()
		for i := range fresh.attrs {
			fresh.attrs[i].text = nil
		}
		if want := string(fresh.encode()); got != want {
			t.Fatalf("after step %d stored as\n%s\nwant\n%s", i, got, want)
		}
	}
}
