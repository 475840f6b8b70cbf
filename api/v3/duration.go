package v3

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// DurationPattern is what a written duration matches, as documented for
// Calico's API.
const DurationPattern = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))*$`

var durationRegexp = regexp.MustCompile(DurationPattern)

// Duration is a length of time, written as "1h30m", "15m0s" or "500ms".
type Duration struct{ time.Duration }

// NewDuration returns d as a field holds it.
func NewDuration(d time.Duration) *Duration { return &Duration{d} }

// ParseDuration reads a written duration. The empty string is none.
func ParseDuration(s string) (Duration, error) {
	if s == "" || !durationRegexp.MatchString(s) {
		return Duration{}, errors.New(`must be a duration in h, m, s and ms, such as "90s" or "1h30m"`)
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return Duration{}, errors.New("must be a duration of at most 2540400h")
	}
	return Duration{d}, nil
}

// String writes the duration so that ParseDuration reads the same back: as
// Calico stores it, with fractions of a millisecond written as such.
func (d Duration) String() string {
	if d.Duration == 0 || d.Duration >= time.Millisecond {
		return d.Duration.String()
	}
	s := strconv.FormatFloat(math.Abs(float64(d.Duration))/1e6, 'f', 6, 64)
	return strings.TrimRight(s, "0") + "ms"
}

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a duration from a string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`must be a duration in quotes or with a unit, such as 90s or 1h30m`)
	}
	v, err := ParseDuration(s)
	if err != nil {
		return err
	}
	*d = v
	return nil
}
