package workload

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// netConf is the network configuration that a runtime hands to the plugin:
// the fields of the documented Calico configuration that concern this agent.
// Fields about how to reach a datastore are accepted and have no meaning: the
// agent is the only one that does.
type netConf struct {
	CNIVersion string      `json:"cniVersion"`
	Name       string      `json:"name"`
	Type       string      `json:"type"`
	IPAM       ipamConf    `json:"ipam"`
	MTU        int         `json:"mtu"`
	Args       runtimeArgs `json:"args"`
	Runtime    struct {
		IPs []string `json:"ips"`
		Mac string   `json:"mac"`
	} `json:"runtimeConfig"`
	Policy struct {
		Type string `json:"type"`
	} `json:"policy"`
	Container struct {
		AllowIPForwarding bool `json:"allow_ip_forwarding"`
	} `json:"container_settings"`
	DeviceType string          `json:"device_type"`
	PrevResult json.RawMessage `json:"prevResult"`
	Valid      json.RawMessage `json:"cni.dev/valid-attachments"`
	ValidOld   json.RawMessage `json:"cni.dev/attachments"` // as runtimes called it by mistake
}

type ipamConf struct {
	Type       string   `json:"type"`
	AssignIPv4 *string  `json:"assign_ipv4"`
	AssignIPv6 *string  `json:"assign_ipv6"`
	IPv4Pools  []string `json:"ipv4_pools"`
	IPv6Pools  []string `json:"ipv6_pools"`
}

// runtimeArgs is the "args" object of the configuration: labels for a
// workload that no orchestrator labels.
type runtimeArgs struct {
	CNI struct {
		IPs    []string          `json:"ips"`
		Labels map[string]string `json:"labels"`
	} `json:"cni"`
}

// parseCNI turns one call of the plugin into a request. Every error names the
// field of the configuration.
func parseCNI(req agentapi.CNIRequest) (netConf, agentapi.AddRequest, error) {
	var conf netConf
	if err := json.Unmarshal(req.Config, &conf); err != nil {
		return conf, agentapi.AddRequest{}, invalid("network configuration: %v", err)
	}
	if conf.Name == "" {
		return conf, agentapi.AddRequest{}, invalid("network configuration: name is empty: give the network a name")
	}
	if t := conf.DeviceType; t != "" && t != "veth" && t != "netkit" {
		return conf, agentapi.AddRequest{}, invalid("device_type %q: must be veth (or netkit, for which veth is used)", t)
	}
	args := cniArgs(req.Env.Args)
	add := agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: "cni", Network: conf.Name, ContainerID: req.Env.ContainerID,
		IfName: req.Env.IfName, Netns: req.Env.Netns, MTU: conf.MTU, MAC: conf.Runtime.Mac,
		Labels: conf.Args.CNI.Labels, Forwarding: conf.Container.AllowIPForwarding,
		IPv4Pools: conf.IPAM.IPv4Pools, IPv6Pools: conf.IPAM.IPv6Pools, Profiles: []string{conf.Name},
	}
	if pod, ns := args["K8S_POD_NAME"], args["K8S_POD_NAMESPACE"]; pod != "" && ns != "" {
		add.Orchestrator, add.Pod, add.Namespace = "k8s", pod, ns
		if conf.Policy.Type == "k8s" {
			add.Profiles = []string{"kns." + ns}
		}
	}
	var err error
	if add.AssignIPv4, err = yes("ipam.assign_ipv4", conf.IPAM.AssignIPv4, true); err != nil {
		return conf, add, err
	}
	if add.AssignIPv6, err = yes("ipam.assign_ipv6", conf.IPAM.AssignIPv6, false); err != nil {
		return conf, add, err
	}
	for _, list := range [][]string{{args["IP"]}, conf.Args.CNI.IPs, conf.Runtime.IPs} {
		for _, s := range list {
			if s == "" {
				continue
			}
			a, err := parseAddr(s)
			if err != nil {
				return conf, add, err
			}
			add.Addresses = append(add.Addresses, a.String())
		}
	}
	if len(add.Addresses) > 0 { // documented: these are all that it gets
		add.AssignIPv4, add.AssignIPv6 = false, false
	}
	return conf, add, nil
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

// checkIPAM refuses an address plugin that is not us.
func checkIPAM(conf netConf) error {
	switch conf.IPAM.Type {
	case "brindle-ipam", "calico-ipam":
		return nil
	case "":
		return invalid(`ipam.type is not set: write "ipam": {"type": "brindle-ipam"}`)
	}
	return invalid("ipam.type %q is not served: only brindle-ipam (or calico-ipam, which means the same) is", conf.IPAM.Type)
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
