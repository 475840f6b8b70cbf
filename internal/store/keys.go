package store

import (
	"net/netip"
	"strconv"
	"strings"
)

// Roots of the parts of the datastore, each ending in a slash so that it can
// be listed and watched without touching its neighbours. They are those of
// Calico's etcd layout.
const (
	ResourceRoot = "/calico/resources/v3/projectcalico.org/"
	IPAMRoot     = "/calico/ipam/v2/"
	BlockRoot    = IPAMRoot + "assignment/"
	HandleRoot   = IPAMRoot + "handle/"
	HostRoot     = IPAMRoot + "host/"
	VirtualRoot  = IPAMRoot + "virtual/"

	// IPAMConfigKey holds the one IPAM configuration.
	IPAMConfigKey = IPAMRoot + "config"
)

// ResourceID says which resource a key holds. Plural is the lower-case plural
// of its kind ("ippools"); Namespace is empty for kinds without one.
type ResourceID struct {
	Plural    string
	Namespace string
	Name      string
}

// Key returns the key of a resource. Slashes and percent signs in names are
// escaped, so that one key never stands for two resources.
func (r ResourceID) Key() string {
	key := ResourceRoot + r.Plural + "/"
	if r.Namespace != "" {
		key += escape(r.Namespace) + "/"
	}
	return key + escape(r.Name)
}

// ParseResourceKey is the inverse of Key; false if key holds no resource.
func ParseResourceKey(key string) (ResourceID, bool) {
	rest, ok := strings.CutPrefix(key, ResourceRoot)
	if !ok {
		return ResourceID{}, false
	}
	parts, ok := split(rest)
	if !ok || strings.ContainsAny(parts[0], "/%") {
		return ResourceID{}, false
	}
	switch len(parts) {
	case 2:
		return ResourceID{Plural: parts[0], Name: parts[1]}, true
	case 3:
		return ResourceID{Plural: parts[0], Namespace: parts[1], Name: parts[2]}, true
	}
	return ResourceID{}, false
}

// ResourcePrefix returns the prefix of all resources of one kind, or, with a
// namespace, of those in it.
func ResourcePrefix(plural, namespace string) string {
	prefix := ResourceRoot + plural + "/"
	if namespace != "" {
		prefix += escape(namespace) + "/"
	}
	return prefix
}

// BlockKey returns the key of the IPAM block with this CIDR.
func BlockKey(cidr netip.Prefix) string {
	return BlockRoot + blockTail(cidr)
}

// ParseBlockKey is the inverse of BlockKey; false if key holds no block.
func ParseBlockKey(key string) (netip.Prefix, bool) {
	rest, ok := strings.CutPrefix(key, BlockRoot)
	if !ok {
		return netip.Prefix{}, false
	}
	return parseBlockTail(rest)
}

// AffinityID says whose block a block is.
type AffinityID struct {
	Virtual bool   // the owner is not a host: "load-balancer"
	Owner   string // the name of the host, or of what else owns blocks
	CIDR    netip.Prefix
}

// Key returns the key of an affinity.
func (a AffinityID) Key() string {
	return AffinityPrefix(a.Virtual, a.Owner) + blockTail(a.CIDR)
}

// AffinityPrefix returns the prefix of all affinities of one owner.
func AffinityPrefix(virtual bool, owner string) string {
	if virtual {
		return VirtualRoot + escape(owner) + "/"
	}
	return HostRoot + escape(owner) + "/"
}

// ParseAffinityKey is the inverse of Key; false if key holds no affinity.
func ParseAffinityKey(key string) (AffinityID, bool) {
	var id AffinityID
	rest, ok := strings.CutPrefix(key, HostRoot)
	if !ok {
		rest, ok = strings.CutPrefix(key, VirtualRoot)
		id.Virtual = true
	}
	if !ok {
		return AffinityID{}, false
	}
	owner, tail, ok := strings.Cut(rest, "/")
	if !ok || owner == "" {
		return AffinityID{}, false
	}
	if id.Owner, ok = unescape(owner); !ok {
		return AffinityID{}, false
	}
	if id.CIDR, ok = parseBlockTail(tail); !ok {
		return AffinityID{}, false
	}
	return id, true
}

// HandleKey returns the key of an IPAM handle. Handle ids may contain
// anything, dots and slashes included.
func HandleKey(id string) string { return HandleRoot + escape(id) }

// ParseHandleKey is the inverse of HandleKey; false if key holds no handle.
func ParseHandleKey(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, HandleRoot)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", false
	}
	return unescape(rest)
}

// blockTail renders a CIDR as the end of a key, "ipv4/block/10.65.0.0-26".
func blockTail(cidr netip.Prefix) string {
	family := "ipv6/block/"
	if cidr.Addr().Is4() {
		family = "ipv4/block/"
	}
	return family + cidr.Addr().String() + "-" + strconv.Itoa(cidr.Bits())
}

func parseBlockTail(tail string) (netip.Prefix, bool) {
	rest, is4 := strings.CutPrefix(tail, "ipv4/block/")
	if !is4 {
		var is6 bool
		if rest, is6 = strings.CutPrefix(tail, "ipv6/block/"); !is6 {
			return netip.Prefix{}, false
		}
	}
	addr, bits, ok := strings.Cut(rest, "-")
	if !ok {
		return netip.Prefix{}, false
	}
	cidr, err := netip.ParsePrefix(addr + "/" + bits)
	if err != nil || cidr.Addr().Is4() != is4 || blockTail(cidr) != tail {
		return netip.Prefix{}, false
	}
	return cidr, true
}

// split cuts a path into its unescaped parts, none of which may be empty.
func split(path string) ([]string, bool) {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		name, ok := unescape(p)
		if !ok || name == "" {
			return nil, false
		}
		parts[i] = name
	}
	return parts, true
}

// escape hides the two characters that would make a key ambiguous. Names that
// contain neither, which is nearly all, stay as they are.
func escape(name string) string {
	if !strings.ContainsAny(name, "/%") {
		return name
	}
	name = strings.ReplaceAll(name, "%", "%25")
	return strings.ReplaceAll(name, "/", "%2F")
}

// unescape is the inverse of escape; false for what escape never returns.
func unescape(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '%':
			b.WriteByte(s[i])
			continue
		case strings.HasPrefix(s[i:], "%25"):
			b.WriteByte('%')
		case strings.HasPrefix(s[i:], "%2F"):
			b.WriteByte('/')
		default:
			return "", false
		}
		i += 2
	}
	return b.String(), true
}
