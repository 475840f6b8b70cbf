package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/ipam"
)

// newIPAM builds `brindle ipam`.
func newIPAM(e *Env) *cobra.Command {
	c := &cobra.Command{Use: "ipam", Short: "Look after addresses", GroupID: "look"}
	c.AddCommand(newIPAMShow(e), newIPAMAudit(e), newIPAMCheck(e), newIPAMRelease(e), newIPAMConfigure(e),
		newIPAMSplit(e), newIPAMMigrate(e))
	return c
}

// newIPAMShow builds `brindle ipam show`.
func newIPAMShow(e *Env) *cobra.Command {
	var ds datastoreFlags
	var ip, output string
	var blocks, borrowed, configuration bool
	c := &cobra.Command{
		Use: "show", Short: "Show how full the pools are, or who has an address", Args: cobra.NoArgs,
		Example: `  brindle ipam show --show-blocks
  brindle ipam show --ip 192.168.7.9`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("output format %q: must be json, or nothing for a table", output)
			}
			var addr netip.Addr
			if c.Flags().Changed("ip") {
				var err error
				if addr, err = parseIP("--ip", ip); err != nil {
					return err
				}
			}
			db, err := ds.connect(e)
			if err != nil {
				return err
			}
			defer db.close()
			s := shower{e, db.addresses, output == "json"}
			switch ctx := c.Context(); {
			case addr.IsValid():
				return s.address(ctx, addr)
			case blocks || !borrowed && !configuration:
				return s.usage(ctx, blocks)
			case borrowed:
				return s.borrowed(ctx)
			default:
				return s.configuration(ctx, db)
			}
		},
	}
	ds.addClient(c)
	f := c.Flags()
	f.StringVar(&ip, "ip", "", "who has this address")
	f.BoolVar(&blocks, "show-blocks", false, "every block besides the pools")
	f.BoolVar(&borrowed, "show-borrowed", false, "addresses that are used on other hosts than their block's")
	f.BoolVar(&configuration, "show-configuration", false, "how hosts may take blocks")
	f.StringVarP(&output, "output", "o", "", "json, or nothing for a table")
	return c
}

// parseIP reads an address that a flag gives.
func parseIP(flag, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%s %q: must be an IPv4 or IPv6 address", flag, s)
	}
	return a.Unmap(), nil
}

// shower prints what address management has stored.
type shower struct {
	e         *Env
	addresses *ipam.Manager
	json      bool
}

// usageLine is a pool or a block in `brindle ipam show -o json`.
type usageLine struct {
	Pool     string      `json:"pool,omitempty"`
	CIDR     string      `json:"cidr,omitempty"`
	Affinity string      `json:"affinity,omitempty"`
	Total    *big.Int    `json:"total"`
	InUse    *big.Int    `json:"inUse"`
	Reserved *big.Int    `json:"reserved"`
	Cooling  *big.Int    `json:"coolingDown"`
	Free     *big.Int    `json:"free"`
	Borrowed int         `json:"borrowed"`
	Blocks   []usageLine `json:"blocks,omitempty"`
}

func usageLines(list []ipam.Usage, blocks bool) []usageLine {
	out := []usageLine{}
	for _, u := range list {
		if !u.CIDR.IsValid() && !blocks { // blocks outside all pools
			continue
		}
		l := usageLine{u.Pool, "", u.Host, u.Total, u.InUse, u.Reserved, u.Cooling, u.Free, u.Borrowed, nil}
		if u.CIDR.IsValid() {
			l.CIDR = u.CIDR.String()
		}
		if blocks && len(u.Blocks) > 0 {
			l.Blocks = usageLines(u.Blocks, true)
		}
		out = append(out, l)
	}
	return out
}

// usage prints a line for each pool and, if wanted, each block.
func (s shower) usage(ctx context.Context, blocks bool) error {
	list, err := s.addresses.Usage(ctx)
	if err != nil {
		return err
	}
	lines := usageLines(list, blocks)
	if s.json {
		return writeJSON(s.e.Stdout, lines)
	}
	t := table{header: []string{"GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"}}
	row := func(grouping string, l usageLine) {
		share := func(n *big.Int) string { return fmt.Sprintf("%s (%d%%)", count(n), ipam.Percent(n, l.Total)) }
		t.add(grouping, l.CIDR, count(l.Total), share(l.InUse), share(l.Reserved), share(l.Free))
	}
	for _, pool := range lines {
		if pool.CIDR != "" {
			row("IP Pool", pool)
		}
		for _, b := range pool.Blocks {
			row("Block", b)
		}
	}
	t.printBoxed(s.e.Stdout, 2)
	return nil
}

// count prints a number of addresses: all its digits as long as a reader can
// count them, else the first five.
func count(n *big.Int) string {
	if n.IsInt64() && n.Int64() < 1e12 {
		return n.String()
	}
	return new(big.Float).SetInt(n).Text('g', 5)
}

// address prints who has an address.
func (s shower) address(ctx context.Context, a netip.Addr) error {
	u, err := s.addresses.AssignmentAttributes(ctx, a)
	if err != nil && !errors.Is(err, ipam.ErrNotAssigned) {
		return err
	}
	assigned := err == nil
	if s.json {
		return writeJSON(s.e.Stdout, struct {
			IP        string            `json:"ip"`
			Assigned  bool              `json:"assigned"`
			Handle    string            `json:"handle,omitempty"`
			Sequence  uint64            `json:"sequenceNumber,omitempty"`
			Owner     map[string]string `json:"activeOwner,omitempty"`
			Alternate map[string]string `json:"alternateOwner,omitempty"`
		}{a.String(), assigned, u.Attribute.Handle, u.Sequence, u.Attribute.Owner, u.Attribute.Alternate})
	}
	if !assigned {
		_, err := fmt.Fprintf(s.e.Stdout, "%s is not assigned\n", a)
		return err
	}
	fmt.Fprintf(s.e.Stdout, "IP %s is in use\n", a)
	if u.Attribute.Handle != "" {
		fmt.Fprintf(s.e.Stdout, "Handle ID: %s\n", word(u.Attribute.Handle))
	}
	s.attributes("Active Owner Attributes:", u.Attribute.Owner)
	s.attributes("Alternate Owner Attributes:", u.Attribute.Alternate)
	return nil
}

func (s shower) attributes(title string, attrs map[string]string) {
	if len(attrs) == 0 {
		return
	}
	fmt.Fprintln(s.e.Stdout, title)
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		fmt.Fprintf(s.e.Stdout, "  %s: %s\n", word(k), word(attrs[k]))
	}
}

// borrowed prints the addresses that are used away from their block's host.
func (s shower) borrowed(ctx context.Context) error {
	loans, unknown, err := s.addresses.Borrowed(ctx)
	if err != nil {
		return err
	}
	if s.json {
		type loan struct {
			IP        string `json:"ip"`
			Node      string `json:"borrowingNode"`
			Block     string `json:"block"`
			Owner     string `json:"blockOwner,omitempty"`
			Type      string `json:"type"`
			Allocated string `json:"allocatedTo"`
		}
		out := []loan{}
		for _, l := range loans {
			out = append(out, loan{l.Addr.String(), l.Borrower, l.Block.String(), l.Owner, l.Type, l.Allocated})
		}
		return writeJSON(s.e.Stdout, out)
	}
	t := table{header: []string{"IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"}}
	for _, l := range loans {
		t.add(l.Addr.String(), l.Borrower, l.Block.String(), strings.TrimPrefix(l.Owner, "host:"), l.Type, l.Allocated)
	}
	t.printBoxed(s.e.Stdout, len(t.header))
	if unknown > 0 {
		fmt.Fprintf(s.e.Stdout, "%d addresses have no node attribute: whether they are borrowed is not known.\n", unknown)
	}
	return nil
}

// configuration prints how hosts may take blocks.
func (s shower) configuration(ctx context.Context, db *session) error {
	settings, err := ipam.ReadSettings(ctx, db.driver)
	if err != nil {
		return err
	}
	values := configValues(settings.Configuration)
	if s.json {
		out := map[string]any{}
		for _, v := range values {
			out[v.name] = v.value
		}
		return writeJSON(s.e.Stdout, out)
	}
	t := table{header: []string{"PROPERTY", "VALUE"}}
	for _, v := range values {
		t.add(v.name, fmt.Sprint(v.value))
	}
	t.printBoxed(s.e.Stdout, len(t.header))
	return nil
}

// configValue is one property under the name that calicoctl prints.
type configValue struct {
	name  string
	value any
}

func configValues(c ipam.Configuration) []configValue {
	return []configValue{
		{"StrictAffinity", c.StrictAffinity}, {"AutoAllocateBlocks", c.AutoAllocateBlocks},
		{"MaxBlocksPerHost", c.MaxBlocksPerHost}, {"KubeVirtVMAddressPersistence", c.VMPersistence},
		{"IPCooldownSeconds", int(c.CoolDown / time.Second)},
	}
}

// newIPAMConfigure builds `brindle ipam configure`.
func newIPAMConfigure(e *Env) *cobra.Command {
	var ds datastoreFlags
	var strict, persistence string
	var blocks, coolDown int
	c := &cobra.Command{
		Use: "configure", Short: "Set how hosts may take blocks", Args: cobra.NoArgs,
		Example: "  brindle ipam configure --strictaffinity=true --max-blocks-per-host 4",
		RunE: func(c *cobra.Command, _ []string) error {
			changed := c.Flags().Changed
			set := map[string]func(*ipam.Configuration){}
			if changed("strictaffinity") {
				v, err := strconv.ParseBool(strings.ToLower(strict))
				if err != nil {
					return fmt.Errorf("--strictaffinity %q: must be true or false", strict)
				}
				set["StrictAffinity"] = func(c *ipam.Configuration) { c.StrictAffinity = v }
			}
			if changed("max-blocks-per-host") {
				set["MaxBlocksPerHost"] = func(c *ipam.Configuration) { c.MaxBlocksPerHost = blocks }
			}
			if changed("kubevirt-ip-persistence") {
				if persistence != "Enabled" && persistence != "Disabled" {
					return fmt.Errorf("--kubevirt-ip-persistence %q: must be Enabled or Disabled", persistence)
				}
				set["KubeVirtVMAddressPersistence"] = func(c *ipam.Configuration) { c.VMPersistence = persistence }
			}
			if changed("ip-cooldown-seconds") {
				set["IPCooldownSeconds"] = func(c *ipam.Configuration) { c.CoolDown = time.Duration(coolDown) * time.Second }
			}
			if len(set) == 0 {
				return errors.New("nothing to set: give one flag at least, for example --strictaffinity=true")
			}
			return configure(c.Context(), e, &ds, set)
		},
	}
	ds.addClient(c)
	f := c.Flags()
	f.StringVar(&strict, "strictaffinity", "", "true: hosts use addresses of their own blocks only; or false")
	f.IntVar(&blocks, "max-blocks-per-host", 0, "how many blocks of a family a host may have; needs strict affinity; 0: the built-in limit")
	f.StringVar(&persistence, "kubevirt-ip-persistence", "", "Enabled or Disabled: stored for others, Brindle does not use it")
	f.IntVar(&coolDown, "ip-cooldown-seconds", 0, "how long a released address rests before it is assigned again, at most 1200")
	return c
}

// configure changes the stored configuration and tells what each property is
// now.
func configure(ctx context.Context, e *Env, ds *datastoreFlags, set map[string]func(*ipam.Configuration)) error {
	db, err := ds.connect(e)
	if err != nil {
		return err
	}
	defer db.close()
	now, err := db.addresses.SetConfiguration(ctx, func(c *ipam.Configuration) {
		for _, change := range set {
			change(c)
		}
	})
	if err != nil {
		return err
	}
	for _, v := range configValues(now) {
		if set[v.name] != nil {
			fmt.Fprintf(e.Stdout, "Successfully set %s to: %v\n", v.name, v.value)
		}
	}
	if set["KubeVirtVMAddressPersistence"] != nil {
		warn(e, []string{"KubeVirtVMAddressPersistence is stored but not honoured by this version"})
	}
	return nil
}
