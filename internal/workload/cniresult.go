package workload

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/cni"
)

// cniResult writes a workload as the result of an ADD in the given version of
// the specification.
//
// Its routes are the blocks of the addresses, as Calico's plugin prints them:
// some chained plugins expect them. What is routed is everything.
func cniResult(version string, w attached, sandbox string) (json.RawMessage, error) {
	r, err := resultOf(w, sandbox)
	if err != nil {
		return nil, err
	}
	for _, b := range w.blocks {
		if b.IsValid() { // an address that was given is of no block
			r.Routes = append(r.Routes, &types.Route{Dst: net.IPNet{IP: b.Addr().AsSlice(), Mask: net.CIDRMask(b.Bits(), b.Addr().BitLen())}})
		}
	}
	return asVersion(r, version)
}

// resultOf is the result of an ADD, but for its routes.
func resultOf(w attached, sandbox string) (*types100.Result, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	r.Interfaces = []*types100.Interface{
		{Name: w.HostInterface},
		{Name: w.Interface, Mac: w.MAC, Mtu: w.MTU, Sandbox: sandbox},
	}
	return r, addAddresses(r, w.Addresses, types100.Int(1))
}

// ipamResult writes addresses as the result of an address plugin.
func ipamResult(version string, addrs []string) (json.RawMessage, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if err := addAddresses(r, addrs, nil); err != nil {
		return nil, err
	}
	return asVersion(r, version)
}

func addAddresses(r *types100.Result, addrs []string, iface *int) error {
	for _, s := range addrs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return err
		}
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: iface, Address: net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		}})
	}
	return nil
}

func asVersion(r *types100.Result, version string) (json.RawMessage, error) {
	v, err := r.GetAsVersion(version)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// addressesOf reads the addresses of a previous result.
func addressesOf(version string, raw json.RawMessage) ([]string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	old, err := create.Create(version, raw)
	if err != nil {
		return nil, invalid("prevResult: %v", err)
	}
	r, err := types100.NewResultFromResult(old)
	if err != nil {
		return nil, invalid("prevResult: %v", err)
	}
	var out []string
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()).String())
	}
	return out, nil
}

// cniFailure writes an error as the specification has it.
func cniFailure(version string, err error) agentapi.CNIResponse {
	code := uint(cni.CodeInternal)
	switch codeOf(err) {
	case "unknown":
		code = cni.CodeUnknown
	case "invalid":
		code = cni.CodeInvalid
	case "notReady", "timeout", "conflict":
		code = cni.CodeTryAgain
	case "version":
		code = cni.CodeIncompatible
	case "unavailable":
		code = cni.CodeUnavailable
	}
	var known *types.Error
	if errors.As(err, &known) {
		code = known.Code
	}
	out, merr := json.Marshal(struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
	}{version, code, "brindle: " + err.Error()})
	if merr != nil {
		out = []byte(`{"code":99,"msg":"brindle: internal error"}`)
	}
	return agentapi.CNIResponse{Failed: true, Output: out}
}
