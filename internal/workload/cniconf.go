package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// netConf is the network configuration that a runtime hands to the plugin:
// the fields of the documented Calico configuration that concern this agent.
// Fields about how to reach a datastore, or about files that tell Calico's
// plugin what the agent knows, are accepted and have no meaning here.
type netConf struct {
	CNIVersion string      `json:"cniVersion"`
	Name       string      `json:"name"`
	Type       string      `json:"type"`
	IPAM       ipamConf    `json:"ipam"`
	MTU        int         `json:"mtu"`
	Queues     int         `json:"num_queues"`
	Args       runtimeArgs `json:"args"`
	Runtime    runtimeConf `json:"runtimeConfig"`
	Policy     struct {
		Type string `json:"type"`
	} `json:"policy"`
	Container struct {
		AllowIPForwarding bool `json:"allow_ip_forwarding"`
	} `json:"container_settings"`
	DeviceType string          `json:"device_type"`
	PrevResult json.RawMessage `json:"prevResult"`
	Valid      json.RawMessage `json:"cni.dev/valid-attachments"`
	ValidOld   json.RawMessage `json:"cni.dev/attachments"` // as runtimes called it by mistake
	hostConf
}

// hostConf is what a configuration says of the host, and of what may be asked
// for there.
type hostConf struct {
	Nodename string   `json:"nodename"`
	Gates    []string `json:"readiness_gates"`
	// SetupTimeout is how many seconds Calico's plugin waits for policy. We wait
	// until it is there.
	SetupTimeout  int  `json:"policy_setup_timeout_seconds"`
	DefaultRoutes bool `json:"include_default_routes"`
	Feature       struct {
		NoIPAM      bool `json:"ip_addrs_no_ipam"`
		FloatingIPs bool `json:"floating_ips"`
	} `json:"feature_control"`
	Dataplane struct {
		Type string `json:"type"`
	} `json:"dataplane_options"`
}

type ipamConf struct {
	Type       string   `json:"type"`
	AssignIPv4 *string  `json:"assign_ipv4"`
	AssignIPv6 *string  `json:"assign_ipv6"`
	IPv4Pools  []string `json:"ipv4_pools"`
	IPv6Pools  []string `json:"ipv6_pools"`
}

// ours reports whether the agent itself gives the addresses.
func (c ipamConf) ours() bool { return c.Type == addressPlugin || c.Type == "calico-ipam" }

// runtimeConf is what a runtime says of one container, where the
// configuration's "capabilities" ask it to.
type runtimeConf struct {
	IPs         []string          `json:"ips"`
	Mac         string            `json:"mac"`
	Annotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
}

// runtimeArgs is the "args" object of the configuration: what an orchestrator
// says of a workload without a runtime that knows how.
type runtimeArgs struct {
	CNI struct {
		IPs         []string          `json:"ips"`
		Labels      labelSet          `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"cni"`
	Mesos struct {
		NetworkInfo struct {
			Labels struct {
				Labels labelSet `json:"labels"`
			} `json:"labels"`
		} `json:"network_info"`
	} `json:"org.apache.mesos"`
}

// labelSet is labels as an object, or as a list of objects with key and value
// (CNI conventions, and Mesos).
type labelSet = json.RawMessage

// readLabels reads either form.
func readLabels(data labelSet) (map[string]string, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var plain map[string]string
	if err := json.Unmarshal(data, &plain); err == nil {
		return plain, nil
	}
	var list []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, invalid(`args: labels must be an object, or a list of {"key": …, "value": …}`)
	}
	out := map[string]string{}
	for _, kv := range list {
		out[kv.Key] = kv.Value
	}
	return out, nil
}

// parseCNI turns one call of the plugin into a request. Every error names the
// field of the configuration. Of a removal only the names count: what a
// configuration asks for may have changed since, and a container must be able
// to end.
func parseCNI(req agentapi.CNIRequest) (netConf, agentapi.AddRequest, error) {
	var conf netConf
	removal := req.Command == "DEL" || req.Command == "GC"
	var field *json.UnmarshalTypeError
	if err := json.Unmarshal(req.Config, &conf); err != nil && !(removal && errors.As(err, &field) && field.Field != "") {
		return conf, agentapi.AddRequest{}, invalid("network configuration: %v", err)
	}
	if conf.Name == "" {
		return conf, agentapi.AddRequest{}, invalid("network configuration: name is empty: give the network a name")
	}
	args := cniArgs(req.Env.Args)
	add := agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: "cni", Network: conf.Name, ContainerID: req.Env.ContainerID,
		IfName: req.Env.IfName, Netns: req.Env.Netns, MTU: conf.MTU, MAC: conf.Runtime.Mac,
		Forwarding: conf.Container.AllowIPForwarding,
		IPv4Pools:  conf.IPAM.IPv4Pools, IPv6Pools: conf.IPAM.IPv6Pools, Profiles: []string{conf.Name},
	}
	if pod, ns := args["K8S_POD_NAME"], args["K8S_POD_NAMESPACE"]; pod != "" && ns != "" {
		add.Orchestrator, add.Pod, add.Namespace = "k8s", pod, ns
		if conf.Policy.Type == "k8s" {
			add.Profiles = []string{"kns." + ns}
		}
	}
	if removal {
		return conf, add, nil
	}
	if err := conf.check(); err != nil {
		return conf, add, err
	}
	return conf, add, conf.wishes(&add, args)
}

// check refuses what no workload can be given here.
func (c netConf) check() error {
	if t := c.DeviceType; t != "" && t != "veth" && t != "netkit" {
		return invalid("device_type %q: must be veth (or netkit, for which veth is used)", t)
	}
	if t := c.Dataplane.Type; t != "" && t != "linux" {
		return invalid("dataplane_options.type %q is not served: leave dataplane_options out", t)
	}
	if c.Queues < 0 || c.Queues > maxQueues {
		return invalid("num_queues %d: must be 1 to %d, or 0 for 1", c.Queues, maxQueues)
	}
	if c.SetupTimeout < 0 {
		return invalid("policy_setup_timeout_seconds %d: must not be negative", c.SetupTimeout)
	}
	return checkGates(c.Gates)
}

// maxQueues is the kernel's limit on the queues of a link.
const maxQueues = 4096

// wishes reads what is asked for of one workload, from the strongest source
// that says something: its annotations, then the configuration.
func (c netConf) wishes(add *agentapi.AddRequest, args map[string]string) error {
	var err error
	if add.AssignIPv4, err = yes("ipam.assign_ipv4", c.IPAM.AssignIPv4, true); err != nil {
		return err
	}
	if add.AssignIPv6, err = yes("ipam.assign_ipv6", c.IPAM.AssignIPv6, false); err != nil {
		return err
	}
	if add.Labels, err = readLabels(c.Args.CNI.Labels); err != nil {
		return err
	}
	if mesos := c.Args.Mesos.NetworkInfo.Labels.Labels; len(add.Labels) == 0 && len(mesos) > 0 {
		if add.Labels, err = readLabels(mesos); err != nil {
			return err
		}
	}
	if c.Queues > 1 {
		special(add).Queues = c.Queues
	}
	if err := c.annotated(add, c.annotations(args)); err != nil {
		return err
	}
	if !c.IPAM.ours() && c.IPAM.Type != "" {
		return nil // the other IPAM plugin reads by itself which addresses are asked for
	}
	for _, list := range [][]string{{args["IP"]}, c.Args.CNI.IPs, c.Runtime.IPs} {
		for _, s := range list {
			if s == "" {
				continue
			}
			a, err := parseAddr(s)
			if err != nil {
				return err
			}
			add.Addresses = append(add.Addresses, a.String())
		}
	}
	if len(add.Addresses) > 0 { // documented: these are all that it gets
		add.AssignIPv4, add.AssignIPv6 = false, false
	}
	return nil
}

// special is what a request asks for out of the ordinary.
func special(add *agentapi.AddRequest) *agentapi.Special {
	if add.Special == nil {
		add.Special = &agentapi.Special{}
	}
	return add.Special
}

// validAttachments reads the list of what is alive. An empty list means that
// nothing is; without a list nobody knows, and ok is false.
func (c netConf) validAttachments() (out []agentapi.GCAttachment, ok bool, err error) {
	raw := c.Valid
	if raw == nil {
		raw = c.ValidOld
	}
	if raw == nil {
		return nil, false, nil
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, false, invalid("network configuration: cni.dev/valid-attachments: %v", err)
	}
	for _, v := range list {
		out = append(out, agentapi.GCAttachment{ContainerID: v.ContainerID, IfName: v.IfName})
	}
	return out, true, nil
}

// yes reads a boolean that the documented configuration writes as a string.
func yes(field string, value *string, otherwise bool) (bool, error) {
	if value == nil {
		return otherwise, nil
	}
	switch strings.ToLower(*value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, invalid(`%s is %q: it must be "true" or "false"`, field, *value)
}

// parseAddr takes an address with or without a length.
func parseAddr(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, invalid("requested address %q is not an IP address", s)
	}
	return a.Unmap(), nil
}

// cniArgs splits CNI_ARGS ("K=V;K=V"). Unknown names are ignored, as
// documented.
func cniArgs(s string) map[string]string {
	out := map[string]string{}
	for _, kv := range strings.Split(s, ";") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			out[k] = v
		}
	}
	return out
}

// refOf is the reference to what an AddRequest made.
func refOf(add agentapi.AddRequest) agentapi.WorkloadRef {
	return agentapi.WorkloadRef{
		Version: add.Version, Orchestrator: add.Orchestrator, Network: add.Network, ContainerID: add.ContainerID,
		Namespace: add.Namespace, Pod: add.Pod, Workload: add.Workload, IfName: add.IfName, Netns: add.Netns,
	}
}

// checkProtocol refuses a peer that speaks neither our version nor a
// neighbour of it.
func checkProtocol(v int) error {
	if v < max(1, agentapi.Version-1) || v > agentapi.Version+1 {
		return &Error{Code: "version", Err: fmt.Errorf("protocol version %d is not spoken: this agent speaks %d, and one older and one newer", v, agentapi.Version)}
	}
	return nil
}
