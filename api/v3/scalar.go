package v3

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Rules of the scalar types, as they are told to whoever wrote a bad value.
const (
	rulePort     = `must be a port number from 0 to 65535, a range "min:max", or a port name`
	ruleProtocol = "must be the name of a protocol or a number from 0 to 255"
	ruleASNumber = `must be an AS number: a number from 0 to 4294967295, or "x.y" with both parts from 0 to 65535`
	ruleNumber   = "must be a number or a string"
)

// Port is a port number, a range of them or the name of a port. The zero value
// is port 0, which no rule accepts.
type Port struct {
	Min, Max uint16 // equal for a single port; both 0 when Name is set
	Name     string // "" for numbers
}

// PortNumber returns the single port n.
func PortNumber(n uint16) Port { return Port{Min: n, Max: n} }

// ParsePort reads "80", "8000:8010" or a name. Names are not checked further.
func ParsePort(s string) (Port, error) {
	lo, hi, ranged := strings.Cut(s, ":")
	if !ranged {
		hi = lo
	}
	if !ranged && !digits(s) {
		if s == "" {
			return Port{}, errors.New(rulePort)
		}
		return Port{Name: s}, nil
	}
	from, err := strconv.ParseUint(lo, 10, 16)
	if err != nil || !digits(lo) {
		return Port{}, errors.New(rulePort)
	}
	to, err := strconv.ParseUint(hi, 10, 16)
	if err != nil || !digits(hi) {
		return Port{}, errors.New(rulePort)
	}
	if from > to {
		return Port{}, errors.New("must be a range that ends at or after its start")
	}
	return Port{Min: uint16(from), Max: uint16(to)}, nil
}

// String returns the port as it is written in a rule.
func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Min == p.Max:
		return strconv.Itoa(int(p.Min))
	}
	return fmt.Sprintf("%d:%d", p.Min, p.Max)
}

// MarshalJSON writes a single port as a number, all else as a string.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name == "" && p.Min == p.Max {
		return strconv.AppendUint(nil, uint64(p.Min), 10), nil
	}
	return json.Marshal(p.String())
}

// UnmarshalJSON reads a number or a string.
func (p *Port) UnmarshalJSON(b []byte) error {
	s, err := numberOrString(b, rulePort)
	if err != nil {
		return err
	}
	v, err := ParsePort(s)
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// Protocol is an IP protocol by name or by number. Names are kept as written;
// which names are allowed is for validation to say.
type Protocol struct {
	Name   string // "" when given by number
	Number uint8  // 0 when given by name
}

// The protocols that rules know by name.
const (
	ProtocolTCP     = "TCP"
	ProtocolUDP     = "UDP"
	ProtocolICMP    = "ICMP"
	ProtocolICMPv6  = "ICMPv6"
	ProtocolSCTP    = "SCTP"
	ProtocolUDPLite = "UDPLite"
)

// ParseProtocol reads a name or a number.
func ParseProtocol(s string) (Protocol, error) {
	if !digits(s) {
		if s == "" {
			return Protocol{}, errors.New(ruleProtocol)
		}
		return Protocol{Name: s}, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return Protocol{}, errors.New(ruleProtocol)
	}
	return Protocol{Number: uint8(n)}, nil
}

// IP returns the number that stands in the IP header (IANA, Protocol Numbers),
// false for a name that is none of the six.
func (p Protocol) IP() (uint8, bool) {
	switch p.Name {
	case "":
		return p.Number, true
	case ProtocolTCP:
		return 6, true
	case ProtocolUDP:
		return 17, true
	case ProtocolICMP:
		return 1, true
	case ProtocolICMPv6:
		return 58, true
	case ProtocolSCTP:
		return 132, true
	case ProtocolUDPLite:
		return 136, true
	}
	return 0, false
}

// String returns the protocol as it was written.
func (p Protocol) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON writes a name as a string, a number as a number.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if p.Name == "" {
		return strconv.AppendUint(nil, uint64(p.Number), 10), nil
	}
	return json.Marshal(p.Name)
}

// UnmarshalJSON reads a number or a string.
func (p *Protocol) UnmarshalJSON(b []byte) error {
	s, err := numberOrString(b, ruleProtocol)
	if err != nil {
		return err
	}
	v, err := ParseProtocol(s)
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// ASNumber is the number of an autonomous system (RFC 6793), written as one
// number; "x.y" (RFC 5396) is read too.
type ASNumber uint32

// ParseASNumber reads "64512" or "1.10".
func ParseASNumber(s string) (ASNumber, error) {
	high, low, dotted := strings.Cut(s, ".")
	if !dotted {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || !digits(s) {
			return 0, errors.New(ruleASNumber)
		}
		return ASNumber(n), nil
	}
	h, err := strconv.ParseUint(high, 10, 16)
	if err != nil || !digits(high) {
		return 0, errors.New(ruleASNumber)
	}
	l, err := strconv.ParseUint(low, 10, 16)
	if err != nil || !digits(low) {
		return 0, errors.New(ruleASNumber)
	}
	return ASNumber(h<<16 | l), nil
}

// UnmarshalJSON reads a number or a string. A bare 1.10 is a fraction to JSON
// and has lost its last digit, so the dotted form must be a string.
func (a *ASNumber) UnmarshalJSON(b []byte) error {
	s, err := numberOrString(b, ruleASNumber)
	if err != nil {
		return errors.New(ruleASNumber + "; the dotted form needs quotes")
	}
	v, err := ParseASNumber(s)
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// IntOrString is a number or a string, kept as it was written.
type IntOrString struct {
	Str string
	Int int32
	Is  bool // true when it is Str
}

// String returns the value as text.
func (v IntOrString) String() string {
	if v.Is {
		return v.Str
	}
	return strconv.Itoa(int(v.Int))
}

// MarshalJSON writes a number or a string, as it was read.
func (v IntOrString) MarshalJSON() ([]byte, error) {
	if v.Is {
		return json.Marshal(v.Str)
	}
	return strconv.AppendInt(nil, int64(v.Int), 10), nil
}

// UnmarshalJSON reads a number or a string.
func (v *IntOrString) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return errors.New(ruleNumber)
		}
		*v = IntOrString{Str: s, Is: true}
		return nil
	}
	n, err := strconv.ParseInt(string(b), 10, 32)
	if err != nil {
		return errors.New(ruleNumber)
	}
	*v = IntOrString{Int: int32(n)}
	return nil
}

// numberOrString returns the text of a JSON string, or of a whole number that
// is not negative.
func numberOrString(b []byte, rule string) (string, error) {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return "", errors.New(rule)
		}
		return s, nil
	}
	if !digits(string(b)) {
		return "", errors.New(rule)
	}
	return string(b), nil
}

// digits says whether s is one or more decimal digits and nothing else.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
