package rules

// mostKnown is how many verdicts a tracer keeps.
const mostKnown = 1 << 12

// Accepts is whether Trace accepts a packet, and no more. Of packets that
// differ in the source port alone one is traced, unless a rule on its way asks
// for that port: clients have many connections to one server.
func (t *Tracer) Accepts(pkt Packet) (bool, error) {
	whatever := pkt
	whatever.SourcePort = 0
	if yes, ok := t.known[whatever]; ok {
		return yes, nil
	}
	w := &walk{program: t.program, tracer: t, pkt: pkt, brief: true}
	trace, err := w.through()
	if err != nil {
		return false, err
	}
	if !w.asked {
		if t.known == nil || len(t.known) >= mostKnown {
			t.known = map[Packet]bool{}
		}
		t.known[whatever] = trace.Accepted
	}
	return trace.Accepted, nil
}
