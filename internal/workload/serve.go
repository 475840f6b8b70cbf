package workload

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
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
	"unknown": http.StatusNotFound, "invalid": http.StatusBadRequest, "version": http.StatusBadRequest, "conflict": http.StatusConflict,
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
