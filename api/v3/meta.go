// Package v3 is the projectcalico.org/v3 API: every kind with its fields,
// defaults and validation rules. It is Brindle's only public package.
package v3

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// Group is the API group and version of every kind here.
const Group = "projectcalico.org/v3"

// TypeMeta says what an object is. Kind stands before APIVersion, as stored.
type TypeMeta struct {
	Kind       string `json:"kind,omitempty"`
	APIVersion string `json:"apiVersion,omitempty"`
}

// ObjectMeta is the metadata of an object, as Kubernetes shapes it.
type ObjectMeta struct {
	Name                       string            `json:"name,omitempty"`
	GenerateName               string            `json:"generateName,omitempty"`
	Namespace                  string            `json:"namespace,omitempty"`
	SelfLink                   string            `json:"selfLink,omitempty"`
	UID                        string            `json:"uid,omitempty"`
	ResourceVersion            string            `json:"resourceVersion,omitempty"`
	Generation                 int64             `json:"generation,omitempty"`
	CreationTimestamp          *Time             `json:"creationTimestamp,omitempty"`
	DeletionTimestamp          *Time             `json:"deletionTimestamp,omitempty"`
	DeletionGracePeriodSeconds *int64            `json:"deletionGracePeriodSeconds,omitempty"`
	Labels                     map[string]string `json:"labels,omitempty"`
	Annotations                map[string]string `json:"annotations,omitempty"`
	OwnerReferences            []OwnerReference  `json:"ownerReferences,omitempty"`
	Finalizers                 []string          `json:"finalizers,omitempty"`
}

// OwnerReference names an object that owns this one.
type OwnerReference struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	Name               string `json:"name"`
	UID                string `json:"uid"`
	Controller         *bool  `json:"controller,omitempty"`
	BlockOwnerDeletion *bool  `json:"blockOwnerDeletion,omitempty"`
}

// Time is a moment to the second, in UTC, written as RFC 3339 has it.
type Time struct{ time.Time }

// NewTime cuts t to what is stored.
func NewTime(t time.Time) *Time { return &Time{t.UTC().Truncate(time.Second)} }

// MarshalJSON writes the moment, or null for the zero time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(time.RFC3339) + `"`), nil
}

// UnmarshalJSON reads a moment as RFC 3339 writes it, and cuts it to the second.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(ruleTime)
	}
	if string(b) == "null" {
		return nil
	}
	v, err := time.Parse(time.RFC3339, s)
	v = v.UTC().Truncate(time.Second)
	if err != nil || v.IsZero() || v.Year() < 0 || v.Year() > 9999 {
		return errors.New(ruleTime)
	}
	t.Time = v
	return nil
}

// ruleTime says how a moment is written.
const ruleTime = "must be a time such as 2026-01-31T12:00:00Z"

// Object is any kind of this API.
type Object interface {
	Type() *TypeMeta
	Meta() *ObjectMeta
}

// Type returns the type part of an object, to read or change.
func (t *TypeMeta) Type() *TypeMeta { return t }

// Meta returns the metadata of an object, to read or change.
func (m *ObjectMeta) Meta() *ObjectMeta { return m }

// FieldError is one thing wrong with one field.
type FieldError struct {
	Path  string // "spec.ingress[0].source.ports[1]"
	Value string // what stands there, as text; "" if nothing does
	Rule  string // what is allowed: "must be one of Never, Always, CrossSubnet"
	Hint  string // the nearest valid spelling or the fix; "" if none is known
}

// FieldErrors is everything wrong with an object, in the order of its fields.
type FieldErrors []FieldError

func (e FieldError) Error() string {
	var s string
	if e.Path != "" {
		s = e.Path + ": "
	}
	if e.Value != "" {
		s += quote(e.Value) + ": "
	}
	s += e.Rule
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e FieldErrors) Error() string {
	var s string
	for i, f := range e {
		if i > 0 {
			s += "; "
		}
		s += f.Error()
	}
	return s
}

// Err returns e as an error, nil when there is nothing wrong.
func (e FieldErrors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// quote makes a stored value safe to print: control characters escaped.
func quote(s string) string { return strconv.Quote(s) }
