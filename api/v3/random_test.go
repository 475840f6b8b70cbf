package v3

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nasty is text that one of the notations might take for something else.
var nasty = []string{
	"a", "10.0.0.0/8", "fd00::/64", "all()", "a == 'b' && has(c)", "yes", "n", "null", "~", "true", "1", "0x1f", "1e3", ".5", "1_000", "010", "12:30:45",
	"2026-01-31", "<<", "=", "-", "---", "...", "- a", "a: b", "a #b", "#a", "&a", "*a", "!a", "!!int 1", "%a", "@a", "`a`", "|", ">", "{a", "[a", "'", `"`, `\`, "?",
	" a", "a ", "a\nb", "a\n", "\n", "\t", "a\tb", "\r", "\x00", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\ufeff", "a\u202eb\u00ad", "\x0100000041\x02", "ä", "日本", "🙂", "<>&",
}

// fill puts random values into everything below v.
func fill(r *rand.Rand, v reflect.Value) {
	if r.IntN(3) == 0 {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *Port:
		*p = []Port{{}, PortNumber(uint16(r.Uint32())), {Min: 1, Max: 65535}, {Name: "a-b"}, {Name: "1.5"}}[r.IntN(5)]
		return
	case *Protocol:
		*p = []Protocol{{}, {Name: "TCP"}, {Number: uint8(r.Uint32())}}[r.IntN(3)]
		return
	case *Duration:
		p.Duration = time.Duration(r.Int64() >> r.IntN(63))
		return
	case *Time:
		p.Time = time.Unix(r.Int64N(1<<37), 0).UTC()
		return
	case *IntOrString:
		*p = []IntOrString{{Int: int32(r.Uint32())}, {Str: nasty[r.IntN(len(nasty))], Is: true}}[r.IntN(2)]
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		if e := v.Elem(); e.Kind() == reflect.Slice {
			e.Set(reflect.MakeSlice(e.Type(), 0, 0))
		}
		if at, ok := v.Interface().(*Time); ok {
			at.Time = time.Unix(r.Int64N(1<<37), 0).UTC() // no time at all is written as none
			return
		}
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Slice:
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(3) {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(r, e)
			key := nasty[r.IntN(len(nasty))]
			if key == "<<" {
				key = "<" // a merge key is refused
			}
			v.SetMapIndex(reflect.ValueOf(key), e)
		}
	default:
		fillScalar(r, v)
	}
}

func fillScalar(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(nasty[r.IntN(len(nasty))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, -1.5, 1e6, 1e21, 1e-9, 1000000.5, 5e-324, 1.7976931348623157e308}[r.IntN(9)])
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(r.Int64() >> (64 - v.Type().Bits()) >> r.IntN(32))
	default:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()) >> r.IntN(32))
	}
}

func TestRandomObjectsAreReadAsWritten(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(k.Kind, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(40) {
				r := rand.New(rand.NewPCG(seed, 7))
				o := k.New()
				v := reflect.ValueOf(o).Elem()
				for i := 1; i < v.NumField(); i++ { // the first is the type
					fill(r, v.Field(i))
				}
				stored, err := Encode(o)
				if err != nil {
					t.Fatal(err)
				}
				printed, err := EncodeYAML(o)
				if err != nil {
					t.Fatal(err)
				}
				for name, text := range map[string][]byte{"a.json": stored, "a.yaml": printed} {
					docs, err := DecodeAll(name, text)
					if err != nil || len(docs) != 1 {
						t.Fatalf("seed %d: %d documents, %v, from\n%s", seed, len(docs), err, text)
					}
					if !reflect.DeepEqual(docs[0].Object, o) {
						t.Fatalf("seed %d, %s: -want +got:\n%s", seed, name, cmp.Diff(o, docs[0].Object))
					}
				}
				again, err := DecodeStored(stored)
				if err != nil {
					t.Fatal(err)
				}
				if second, err := Encode(again); err != nil || string(second) != string(stored) {
					t.Fatalf("seed %d: stored again differently (%v)\n%s\n%s", seed, err, stored, second)
				}
			}
		})
	}
}
