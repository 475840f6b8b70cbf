package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/kernel"
)

// addressPlugin is what the plugin calls itself when it is to give addresses
// only.
const addressPlugin = "brindle-ipam"

// CNI carries out one call of the plugin. Errors become CNI errors.
func (m *Manager) CNI(ctx context.Context, req agentapi.CNIRequest) agentapi.CNIResponse {
	out, err := m.call(ctx, req)
	if err != nil {
		m.cfg.Log.WarnContext(ctx, "cni call failed", "command", req.Command, "container", req.Env.ContainerID, "err", err)
		return cniFailure(versionOf(req.Config), err)
	}
	return agentapi.CNIResponse{Output: out}
}

// versionOf reads the version that a configuration is written for.
func versionOf(config json.RawMessage) string {
	var v struct {
		CNIVersion string `json:"cniVersion"`
	}
	if json.Unmarshal(config, &v) != nil {
		return "1.0.0"
	}
	if v.CNIVersion == "" {
		return "0.2.0" // documented
	}
	return v.CNIVersion
}

// call dispatches by command and plugin.
func (m *Manager) call(ctx context.Context, req agentapi.CNIRequest) (json.RawMessage, error) {
	if err := checkProtocol(req.Version); err != nil {
		return nil, err
	}
	conf, add, err := parseCNI(req)
	if err != nil {
		return nil, err
	}
	version, addressesOnly := versionOf(req.Config), req.Plugin == addressPlugin
	switch req.Command {
	case "ADD":
		if addressesOnly {
			return m.cniAssign(ctx, version, add)
		}
		return m.cniAdd(ctx, conf, req, add)
	case "DEL":
		if addressesOnly {
			return nil, m.cniRelease(ctx, add)
		}
		return nil, m.cniRemove(ctx, conf, req, refOf(add))
	case "CHECK":
		return nil, m.cniCheck(ctx, req, conf, add)
	case "GC":
		return nil, m.cniGC(ctx, conf, req)
	case "STATUS":
		return nil, m.cniStatus(ctx, conf, req)
	}
	return nil, invalid("CNI_COMMAND %q: must be ADD, DEL, CHECK, GC, STATUS or VERSION", req.Command)
}

// cniAdd adds a workload with its wire.
func (m *Manager) cniAdd(ctx context.Context, conf netConf, req agentapi.CNIRequest, add agentapi.AddRequest) (json.RawMessage, error) {
	if err := m.checkHost(conf); err != nil {
		return nil, err
	}
	for _, name := range conf.unserved() {
		m.cfg.Log.WarnContext(ctx, "annotation is not honoured: nothing here limits a workload's packets", "name", name, "container", add.ContainerID)
	}
	if len(conf.Gates) > 0 {
		if err := passGates(ctx, conf.Gates, askGate); err != nil {
			return nil, err
		}
	}
	if !conf.IPAM.ours() {
		return m.cniDelegated(ctx, conf, req, add)
	}
	a, err := m.attach(ctx, add)
	if err != nil {
		return nil, err
	}
	return cniResult(versionOf(req.Config), a, req.Env.Netns)
}

// checkHost refuses a configuration that was made for another host.
func (m *Manager) checkHost(conf netConf) error {
	if n := conf.Nodename; n != "" && n != m.cfg.Node {
		return invalid("nodename %q: the agent here is %q: leave nodename out, or start the agent under that name", n, m.cfg.Node)
	}
	return nil
}

// cniStatus says whether a workload could be added now.
func (m *Manager) cniStatus(ctx context.Context, conf netConf, req agentapi.CNIRequest) error {
	if err := m.cfg.Ready(); err != nil {
		return &Error{"unavailable", err}
	}
	if err := m.checkHost(conf); err != nil || req.Plugin == addressPlugin || conf.IPAM.ours() || conf.IPAM.Type == "" {
		return err
	}
	return cniStatusDelegate(ctx, conf, req)
}

// cniCheck compares the workload with the previous result that the runtime
// hands back.
func (m *Manager) cniCheck(ctx context.Context, req agentapi.CNIRequest, conf netConf, add agentapi.AddRequest) error {
	before, err := addressesOf(versionOf(req.Config), conf.PrevResult)
	if err != nil {
		return err
	}
	var have []string
	if req.Plugin == addressPlugin {
		have, err = m.held(ctx, add)
	} else {
		var w agentapi.Workload
		w, err = m.Check(ctx, refOf(add))
		have = w.Addresses
		if err == nil {
			err = m.cniCheckDelegate(ctx, req, add)
		}
	}
	if err != nil {
		return err
	}
	for _, a := range before {
		if !slices.Contains(have, a) {
			return fmt.Errorf("address %s, which the runtime was given, is not the container's: it has %s", a, strings.Join(have, ", "))
		}
	}
	return nil
}

// held lists the addresses that an attachment has in the datastore.
func (m *Manager) held(ctx context.Context, add agentapi.AddRequest) ([]string, error) {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return nil, err
	}
	got, err := m.cfg.IPAM.IPsOfHost(ctx, id.Handle, m.cfg.Node)
	return described(id, "", kernel.Wired{}, addrsOf(got)).Addresses, err
}

// cniAssign gives addresses to a workload that another plugin wires.
func (m *Manager) cniAssign(ctx context.Context, version string, add agentapi.AddRequest) (json.RawMessage, error) {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return nil, err
	}
	if err := checkAddresses(add); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	if err := m.cfg.Ready(); err != nil {
		return nil, &Error{"notReady", err}
	}
	if err := m.settle(ctx, add.ContainerID); err != nil {
		return nil, err
	}
	unlock, err := m.lock(ctx, id.Namespace+"/"+id.Endpoint)
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer m.records.begin(id.Handle)()
	_, again := m.records.get(id.Handle)
	if _, err := m.records.claim(record{Handle: id.Handle, AddressesOnly: true, Ref: refOf(add)}, ""); err != nil {
		return nil, err
	}
	got, err := m.addresses(ctx, add, id)
	if err != nil {
		if !again { // else they may be in use
			err = errors.Join(err, m.giveBack(ctx, id))
		}
		return nil, err
	}
	return ipamResult(version, described(id, add.IfName, kernel.Wired{}, addrsOf(got)).Addresses)
}

// giveBack undoes an assignment that failed.
func (m *Manager) giveBack(ctx context.Context, id Identity) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err := m.release(ctx, id.Handle); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return m.records.drop(id.Handle)
}

// cniRelease takes back what cniAssign gave.
func (m *Manager) cniRelease(ctx context.Context, add agentapi.AddRequest) error {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	unlock, err := m.lock(ctx, id.Namespace+"/"+id.Endpoint)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.cfg.Ready(); err != nil {
		return &Error{"notReady", err}
	}
	if rec, ok := m.records.get(id.Handle); ok && !rec.AddressesOnly {
		return &Error{"conflict", fmt.Errorf("the addresses of container %s belong to an interface: only its main plugin removes it", add.ContainerID)}
	}
	defer m.records.begin(id.Handle)()
	if err := m.releaseAll(ctx, id); err != nil {
		return err
	}
	return m.records.drop(id.Handle)
}

// cniGC removes what a runtime no longer knows.
func (m *Manager) cniGC(ctx context.Context, conf netConf, req agentapi.CNIRequest) error {
	valid, ok, err := conf.validAttachments()
	if err != nil {
		return err
	}
	if !ok {
		m.cfg.Log.WarnContext(ctx, "garbage collection without cni.dev/valid-attachments removes nothing", "network", conf.Name)
		return nil
	}
	if req.Plugin != addressPlugin {
		_, err := m.GC(ctx, agentapi.GCRequest{Version: agentapi.Version, Network: conf.Name, Valid: valid})
		return errors.Join(err, m.cniGCDelegate(ctx, conf, req, valid))
	}
	recs, busy, _ := m.records.list() // what cannot be read is not removed
	var errs []error
	for _, r := range recs {
		if r.AddressesOnly && r.Ref.Network == conf.Name && !busy[r.Handle] &&
			!slices.Contains(valid, agentapi.GCAttachment{ContainerID: r.Ref.ContainerID, IfName: r.Ref.IfName}) {
			add := agentapi.AddRequest{
				Orchestrator: r.Ref.Orchestrator, Network: r.Ref.Network, ContainerID: r.Ref.ContainerID,
				Namespace: r.Ref.Namespace, Pod: r.Ref.Pod, Workload: r.Ref.Workload, IfName: r.Ref.IfName,
			}
			errs = append(errs, m.cniRelease(ctx, add))
		}
	}
	return errors.Join(errs...)
}
