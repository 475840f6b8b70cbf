package workload

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// Identity is everything that names one attachment of a workload.
type Identity struct {
	Namespace     string // of its WorkloadEndpoint
	Endpoint      string // name of its WorkloadEndpoint
	Workload      string // the name in the orchestrator's words: pod, workload or container
	HostInterface string // name of the interface on the host
	OtherName     string // what it is called where another workload has that name
	Handle        string // IPAM handle
	LegacyHandle  string // handle that old releases used; "" if none
}

// firstInterface is the name of a workload's first interface, by which
// Calico's names of host interfaces and handles go.
const firstInterface = "eth0"

// maxInterfaceName is the kernel's limit on an interface name (IFNAMSIZ - 1).
const maxInterfaceName = 15

// identify names an attachment as documented Calico behaviour does, so that
// each of a mixed cluster's nodes finds the other's endpoints.
func identify(node, prefix string, ref agentapi.WorkloadRef) (Identity, error) {
	if err := checkRef(ref); err != nil {
		return Identity{}, err
	}
	id := Identity{Namespace: namespaceOf(ref), Handle: ref.Network + "." + ref.ContainerID}
	seed := ""
	switch ref.Orchestrator {
	case "k8s":
		id.Workload = ref.Pod
		id.Endpoint = endpointName(node, "k8s", ref.Pod, ref.IfName)
		seed = id.Namespace + "." + ref.Pod
		id.HostInterface = hashedName(prefix, seed)
		id.LegacyHandle = seed
	case "cni", "libnetwork", "openstack":
		id.Workload = ref.ContainerID
		id.Endpoint = endpointName(node, ref.Orchestrator, ref.ContainerID, ref.IfName)
		seed = ref.ContainerID
		id.HostInterface = prefix + ref.ContainerID[:min(11, len(ref.ContainerID))]
	default: // a workload with a name of its own: the lab's, a virtual machine
		id.Workload = ref.Workload
		id.Endpoint = endpointName(node, ref.Orchestrator, ref.Workload, ref.IfName)
		seed = id.Namespace + "." + ref.Workload
		id.HostInterface = hashedName(prefix, seed)
	}
	if ref.IfName != firstInterface {
		// Calico knows one interface for each workload. Others get names and
		// addresses of their own, so that removing one leaves the rest alone.
		id.HostInterface = hashedName(prefix, seed+"."+ref.IfName)
		id.Handle = ref.Network + "." + ref.IfName + "." + ref.ContainerID
		id.LegacyHandle = ""
	}
	id.OtherName = hashedName(prefix, id.Namespace+"/"+id.Endpoint)
	if !interfaceNameOK(id.HostInterface) {
		id.HostInterface = hashedName(prefix, ref.ContainerID)
	}
	return id, nil
}

// namespaceOf is the namespace of an attachment; "default" where none is given.
func namespaceOf(ref agentapi.WorkloadRef) string {
	if ref.Namespace == "" {
		return "default"
	}
	return ref.Namespace
}

// checkRef refuses names that could mean something else on their way into a
// path, a key or an interface name.
func checkRef(ref agentapi.WorkloadRef) error {
	for _, f := range []struct {
		field, value string
		required     bool
	}{
		{"orchestrator", ref.Orchestrator, true}, {"containerID", ref.ContainerID, true}, {"ifName", ref.IfName, true},
		{"network", ref.Network, true}, {"namespace", ref.Namespace, false},
		{"pod", ref.Pod, ref.Orchestrator == "k8s"}, {"workload", ref.Workload, !knownOrchestrator(ref.Orchestrator)},
	} {
		if f.value == "" {
			if f.required {
				return invalid("%s is empty: give the attachment a %s", f.field, f.field)
			}
			continue
		}
		if !nameOK(f.value) {
			return invalid("%s %q: letters, digits, '-', '_' and '.' only, starting with a letter or digit, at most 253", f.field, f.value)
		}
	}
	if !interfaceNameOK(ref.IfName) {
		return invalid("ifName %q is no interface name: at most %d bytes, not '.' or '..'", ref.IfName, maxInterfaceName)
	}
	return nil
}

func knownOrchestrator(o string) bool {
	switch o {
	case "k8s", "cni", "libnetwork", "openstack":
		return true
	}
	return false
}

// nameOK accepts what the CNI specification accepts for ids and network
// names: [a-zA-Z0-9][a-zA-Z0-9_.-]*.
func nameOK(s string) bool {
	if len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return true
}

// interfaceNameOK accepts what the kernel accepts for the name of an interface
// and what is safe in a path.
func interfaceNameOK(s string) bool {
	return s != "" && len(s) <= maxInterfaceName && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n")
}

// endpointName joins the segments of a WorkloadEndpoint's name: each '-'
// inside a segment is doubled, segments are joined by one.
func endpointName(segments ...string) string {
	for i, s := range segments {
		segments[i] = strings.ReplaceAll(s, "-", "--")
	}
	return strings.Join(segments, "-")
}

// hashedName is the name of a host interface: the prefix and the start of the
// SHA-1 of what it is for.
func hashedName(prefix, of string) string {
	sum := sha1.Sum([]byte(of))
	return prefix + hex.EncodeToString(sum[:])[:min(11, max(4, maxInterfaceName-len(prefix)))]
}

// invalid is an error of the caller's making.
func invalid(format string, args ...any) error {
	return &Error{Code: "invalid", Err: fmt.Errorf(format, args...)}
}
