package rules

// Flowtable is the name of the flowtable and of the chain that leads to it.
const Flowtable = "offload"

// priorityOffload is behind all that filters: who drops a packet of a connection
// there keeps it out of the flowtable.
const priorityOffload = 300

// Offload hands the packet's connection over to a flowtable: the kernel then
// carries its packets from the interface that they come by straight to the one
// that they leave by, past all chains. It is no verdict. If the kernel doesn't
// take the connection (yet), the rule ends here.
type Offload struct{ Flowtable string }

func (Offload) statement() {}

// String writes "flow add @offload".
func (s Offload) String() string { return "flow add @" + s.Flowtable }

// OffloadChains are the chains that hand connections over to the flowtable: in a
// table of their own, which only they and the flowtable are in, and no part of
// the program. What comes to them has passed all others. Nil, if the
// configuration asks for none.
func (c Config) OffloadChains() []*Chain {
	if c.Offload == 0 {
		return nil
	}
	young := state(StateEstablished)
	young.Not = true
	bit := markBytes(c.Offload)
	rules := []Rule{
		when(young).do(Accept{}),
		when(Match{Fields: []Field{ConnMark}, Mask: c.Offload, In: []Range{{bit, bit}}}).do(Accept{}),
	}
	// What is in a packet is asked of each that a workload sends, also in a
	// connection that began as something else.
	for _, e := range c.Encapsulations {
		if e.Port == 0 {
			continue // by protocol: never offloaded
		}
		for _, f := range []Field{SourcePort, DestinationPort} {
			rules = append(rules, when(bytesOf(Protocol, e.Protocol), is(f, portBytes(e.Port))).do(Accept{}))
		}
	}
	for _, p := range []byte{protoTCP, protoUDP} {
		rules = append(rules, when(bytesOf(Protocol, p)).do(Goto{Flowtable + "-add"}))
	}
	add := &Chain{Name: Flowtable + "-add"}
	for _, p := range c.Prefixes {
		for _, f := range []Field{InInterface, OutInterface} {
			add.Rules = append(add.Rules, when(stem(f, p)).do(Offload{Flowtable}, Accept{}))
		}
	}
	return []*Chain{base(Flowtable, Forward, priorityOffload, rules...), add}
}
