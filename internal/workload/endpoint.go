package workload

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/client"
)

// NetworkAnnotation notes on a WorkloadEndpoint which network it belongs to,
// for garbage collection by network.
const NetworkAnnotation = "brindle.net/network"

// endpoint is the WorkloadEndpoint of an attachment, as documented Calico
// behaviour writes it.
func endpoint(node string, req agentapi.AddRequest, id Identity, addrs []netip.Addr, mac net.HardwareAddr) *v3.WorkloadEndpoint {
	wep := &v3.WorkloadEndpoint{}
	wep.Namespace, wep.Name = id.Namespace, id.Endpoint
	wep.Labels = map[string]string{}
	for k, v := range req.Labels {
		// These prefixes belong to namespaces and service accounts: whoever
		// sets up a workload must not borrow their identity.
		if !strings.HasPrefix(k, "pcns.") && !strings.HasPrefix(k, "pcsa.") {
			wep.Labels[k] = v
		}
	}
	wep.Labels[v3.LabelNamespace] = id.Namespace
	wep.Labels[v3.LabelOrchestrator] = req.Orchestrator
	wep.Annotations = maps.Clone(req.Annotations)
	if wep.Annotations == nil {
		wep.Annotations = map[string]string{}
	}
	wep.Annotations[NetworkAnnotation] = req.Network
	wep.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: req.Orchestrator, Node: node, ContainerID: req.ContainerID, Pod: req.Pod, Workload: req.Workload,
		Endpoint: req.IfName, InterfaceName: id.HostInterface, MAC: mac.String(), Profiles: req.Profiles,
	}
	for _, a := range addrs {
		wep.Spec.IPNetworks = append(wep.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	if req.Special != nil {
		wep.Spec.AllowSpoofedSourcePrefixes = req.Special.AllowedSources
	}
	for _, p := range req.Ports {
		wep.Spec.Ports = append(wep.Spec.Ports, v3.WorkloadEndpointPort{
			Name: p.Name, Protocol: v3.Protocol{Name: p.Protocol}, Port: p.Port,
		})
	}
	return wep
}

// writeEndpoint creates the endpoint, or brings the one that is there to what
// it should be.
func (m *Manager) writeEndpoint(ctx context.Context, wep, old *v3.WorkloadEndpoint) error {
	if old == nil {
		_, err := client.Create(ctx, m.cfg.Client, wep)
		if err == nil || !client.IsExists(err) {
			return wrapWrite(wep, err)
		}
	}
	_, err := client.Modify(ctx, m.cfg.Client, wep.Namespace, wep.Name, func(stored *v3.WorkloadEndpoint) error {
		before := stored.Labels
		same := stored.Spec.ContainerID == wep.Spec.ContainerID
		stored.Spec, stored.Annotations, stored.Labels = wep.Spec, wep.Annotations, maps.Clone(wep.Labels)
		for k, v := range before {
			// Somebody may have labelled this container meanwhile. Labels of an
			// older one are not this one's, and policy goes by labels.
			if _, ours := wep.Labels[k]; same && !ours {
				stored.Labels[k] = v
			}
		}
		return nil
	})
	return wrapWrite(wep, err)
}

func wrapWrite(wep *v3.WorkloadEndpoint, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write endpoint %s/%s: %w", wep.Namespace, wep.Name, err)
}

// ensureProfiles creates the profile named after the network when the request
// names it and it does not exist, as documented: egress to anywhere, ingress
// from workloads of the same network, or from anywhere where pods are.
func (m *Manager) ensureProfiles(ctx context.Context, req agentapi.AddRequest) error {
	for _, name := range req.Profiles {
		if name != req.Network || m.seen(name) {
			continue
		}
		if _, err := client.Get[v3.Profile](ctx, m.cfg.Client, "", name); err == nil {
			m.see(name)
			continue
		} else if !client.IsNotFound(err) {
			return fmt.Errorf("look for profile %s: %w", name, err)
		}
		if _, err := client.Create(ctx, m.cfg.Client, networkProfile(name, req.Orchestrator)); err != nil && !client.IsExists(err) {
			return fmt.Errorf("create profile %s: %w", name, err)
		}
		m.see(name)
	}
	return nil
}

func networkProfile(name, orchestrator string) *v3.Profile {
	p := &v3.Profile{}
	p.Name = name
	p.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}
	p.Spec.Ingress = []v3.Rule{{Action: v3.ActionAllow}}
	if orchestrator != "k8s" {
		p.Spec.Ingress[0].Source.Selector = "has(" + name + ")"
	}
	p.Spec.LabelsToApply = map[string]string{name: ""}
	return p
}

func (m *Manager) seen(profile string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[profile]
}

func (m *Manager) see(profile string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[profile] = true
}
