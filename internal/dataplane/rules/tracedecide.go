package rules

import "fmt"

// decide returns the element of the counter of what rows say of the packet, or
// the row if nothing is counted; nil if the rule ends.
func (w *walk) decide(s Decide) (*Element, error) {
	key := s.Group
	if s.Classes != "" {
		e, _, err := w.lookUp([]Field{s.Far}, s.Classes)
		if err != nil || e == nil {
			return nil, err
		}
		key |= e.Number
	}
	e, err := w.lookUpFrom(key, s.Fields, s.Rows)
	if err != nil || e == nil || e.Number&s.Mask != s.Is {
		return nil, err
	}
	if s.Counted == "" {
		return e, nil
	}
	return w.lookUpFrom(e.Number, nil, s.Counted)
}

// lookUpFrom is lookUp with a number ahead of the fields.
func (w *walk) lookUpFrom(number uint32, fields []Field, set string) (*Element, error) {
	s := w.program.Sets[set]
	if s == nil {
		return nil, fmt.Errorf("no set %s", set)
	}
	if len(fields)+1 != len(s.Key) || s.Key[0] != MarkType {
		return nil, fmt.Errorf("set %s is asked for a number and %d fields", set, len(fields))
	}
	key := markBytes(number)
	for i, f := range fields {
		v, ok := w.value(f)
		if !ok || f.Type() != s.Key[i+1] {
			return nil, nil
		}
		key += v
	}
	return w.tracer.find(s, key), nil
}
