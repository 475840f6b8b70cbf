package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// maxRequest bounds a request's body, in bytes.
const maxRequest = 4 << 20

// Register adds the workload calls to a server's routes.
func (m *Manager) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST "+agentapi.PathCNI, func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(ctx context.Context, req agentapi.CNIRequest) (agentapi.CNIResponse, error) {
			return m.CNI(ctx, req), nil
		})
	})
	mux.HandleFunc("POST "+agentapi.PathAdd, func(w http.ResponseWriter, r *http.Request) { serve(w, r, m.Add) })
	mux.HandleFunc("POST "+agentapi.PathCheck, func(w http.ResponseWriter, r *http.Request) { serve(w, r, m.Check) })
	mux.HandleFunc("POST "+agentapi.PathRemove, func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(ctx context.Context, ref agentapi.WorkloadRef) (struct{}, error) {
			return struct{}{}, m.Remove(ctx, ref)
		})
	})
	mux.HandleFunc("POST "+agentapi.PathGC, func(w http.ResponseWriter, r *http.Request) { serve(w, r, m.GC) })
}

// serve decodes a request, calls f and writes its answer. The length is
// always given: the plugin reads no other form.
func serve[In, Out any](w http.ResponseWriter, r *http.Request, f func(context.Context, In) (Out, error)) {
	var in In
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		fail(w, invalid("read the request: %v", err))
		return
	}
	out, err := f(r.Context(), in)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, out)
}

// statusOf is the HTTP status of each code.
var statusOf = map[string]int{
	"invalid": http.StatusBadRequest, "version": http.StatusBadRequest, "conflict": http.StatusConflict,
	"notReady": http.StatusServiceUnavailable, "unavailable": http.StatusServiceUnavailable, "timeout": http.StatusGatewayTimeout,
}

func fail(w http.ResponseWriter, err error) {
	code := codeOf(err)
	status, ok := statusOf[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	reply(w, status, agentapi.Error{Code: code, Message: err.Error()})
}

func reply(w http.ResponseWriter, status int, v any) {
	out, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.WriteHeader(status)
	_, _ = w.Write(out) // the asker has gone
}

// CNI carries out one call of the plugin. Errors become CNI errors.
func (m *Manager) CNI(ctx context.Context, req agentapi.CNIRequest) agentapi.CNIResponse {
	version := versionOf(req.Config)
	if err := checkProtocol(req.Version); err != nil {
		return cniFailure(version, err)
	}
	out, err := m.cni(ctx, version, req)
	if err != nil {
		m.cfg.Log.WarnContext(ctx, "cni call failed", "command", req.Command, "container", req.Env.ContainerID, "err", err)
		return cniFailure(version, err)
	}
	return agentapi.CNIResponse{Output: out}
}

// versionOf reads the version that a configuration is written for.
func versionOf(config json.RawMessage) string {
	var v struct {
		CNIVersion string `json:"cniVersion"`
	}
	if json.Unmarshal(config, &v) != nil || v.CNIVersion == "" {
		return "1.0.0"
	}
	return v.CNIVersion
}

// cni dispatches by command and plugin.
func (m *Manager) cni(ctx context.Context, version string, req agentapi.CNIRequest) (json.RawMessage, error) {
	conf, add, err := parseCNI(req)
	if err != nil {
		return nil, err
	}
	if req.Plugin == "brindle-ipam" {
		return m.cniIPAM(ctx, version, req.Command, add)
	}
	switch req.Command {
	case "ADD":
		if err := checkIPAM(conf); err != nil {
			return nil, err
		}
		w, err := m.Add(ctx, add)
		if err != nil {
			return nil, err
		}
		return cniResult(version, w, req.Env.Netns)
	case "DEL":
		return nil, m.Remove(ctx, refOf(add))
	case "CHECK":
		return nil, m.cniCheck(ctx, version, conf, add)
	case "GC":
		gc := agentapi.GCRequest{Version: agentapi.Version, Network: conf.Name}
		for _, v := range conf.Valid {
			gc.Valid = append(gc.Valid, agentapi.GCAttachment{ContainerID: v.ContainerID, IfName: v.IfName})
		}
		_, err := m.GC(ctx, gc)
		return nil, err
	case "STATUS":
		if err := m.cfg.Ready(); err != nil {
			return nil, &Error{"unavailable", err}
		}
		return nil, nil
	}
	return nil, invalid("CNI_COMMAND %q: must be ADD, DEL, CHECK, GC, STATUS or VERSION", req.Command)
}

// cniCheck compares the workload with the previous result that the runtime
// hands back.
func (m *Manager) cniCheck(ctx context.Context, version string, conf netConf, add agentapi.AddRequest) error {
	w, err := m.Check(ctx, refOf(add))
	if err != nil {
		return err
	}
	before, err := addressesOf(version, conf.PrevResult)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, a := range w.Addresses {
		have[a] = true
	}
	for _, a := range before {
		if !have[a] {
			return &Error{"internal", fmt.Errorf("the endpoint has not address %s, which the runtime was given", a)}
		}
	}
	return nil
}

// cniIPAM answers as an address plugin for others' main plugins.
func (m *Manager) cniIPAM(ctx context.Context, version, command string, add agentapi.AddRequest) (json.RawMessage, error) {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return nil, err
	}
	if err := m.cfg.Ready(); err != nil {
		return nil, &Error{"notReady", err}
	}
	switch command {
	case "ADD":
		addrs, err := m.addresses(ctx, add, id)
		if err != nil {
			return nil, errors.Join(err, m.release(context.WithoutCancel(ctx), id.Handle))
		}
		w := described(id, add.IfName, wiredNothing(), addrs)
		return ipamResult(version, w.Addresses)
	case "DEL":
		return nil, m.releaseAll(ctx, id)
	case "CHECK", "STATUS", "GC":
		return nil, nil
	}
	return nil, invalid("CNI_COMMAND %q: must be ADD, DEL, CHECK, GC, STATUS or VERSION", command)
}

// DrainQueue carries out the removals that were queued while no agent ran. A
// file goes when its removal is done, or when nobody will ever understand it.
func (m *Manager) DrainQueue(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(m.cfg.Queue, "*.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var req agentapi.CNIRequest
		if err := json.Unmarshal(data, &req); err != nil {
			m.cfg.Log.ErrorContext(ctx, "queued removal is unreadable", "file", file, "err", err)
			errs = append(errs, os.Rename(file, file+".unreadable"))
			continue
		}
		if resp := m.CNI(ctx, req); resp.Failed {
			errs = append(errs, fmt.Errorf("queued removal %s: %s", file, resp.Output))
			continue
		}
		errs = append(errs, os.Remove(file))
	}
	return errors.Join(errs...)
}
