package cni

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// agent answers on a unix socket as the real one does, and keeps what it was
// asked.
func agent(t *testing.T, answer agentapi.CNIResponse) (socket string, asked *agentapi.CNIRequest) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cni") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, asked = filepath.Join(dir, "s"), &agentapi.CNIRequest{}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(asked); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		out, _ := json.Marshal(answer)
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
		w.Write(out)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket, asked
}

func call(command, config string, extra ...string) (status int, out string) {
	env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/x"}
	for i := 0; i+1 < len(extra); i += 2 {
		env[extra[i]] = extra[i+1]
	}
	var b bytes.Buffer
	status = Run(Call{Name: "/opt/cni/bin/brindle-cni", Getenv: func(k string) string { return env[k] },
		Stdin: strings.NewReader(config), Stdout: &b, PID: rand.Int()})
	return status, b.String()
}

func TestTheCallGoesThroughVerbatim(t *testing.T) {
	socket, asked := agent(t, agentapi.CNIResponse{Output: json.RawMessage(`{"cniVersion":"1.1.0","ips":[]}`)})
	config := `{"cniVersion":"1.1.0","name":"n","type":"brindle-cni","socket":"` + socket + `","odd":{"a":[1]}}`
	status, out := call("ADD", config, "CNI_ARGS", "K8S_POD_NAME=a;B=c")
	if status != 0 || strings.TrimSpace(out) != `{"cniVersion":"1.1.0","ips":[]}` {
		t.Fatalf("status %d, output %q", status, out)
	}
	if string(asked.Config) != config || asked.Command != "ADD" || asked.Env.ContainerID != "c1" ||
		asked.Env.Args != "K8S_POD_NAME=a;B=c" || asked.Plugin != "brindle-cni" || asked.Version != agentapi.Version {
		t.Errorf("the agent was asked %+v", asked)
	}
}

func TestWithoutAVersion(t *testing.T) {
	socket, asked := agent(t, agentapi.CNIResponse{})
	if status, out := call("DEL", `{"name":"n","socket":"`+socket+`"}`); status != 0 || asked.Command != "DEL" {
		t.Errorf("status %d, output %s: documented is that the version is 0.2.0", status, out)
	}
}

func TestAnAdministratorAsks(t *testing.T) {
	socket, asked := agent(t, agentapi.CNIResponse{})
	for _, tt := range []struct {
		arg    string
		status int
		want   string
	}{{"-v", 0, "v9\n"}, {"--version", 0, "v9\n"}, {"-t", 0, ""}, {"-x", 1, "unknown argument"}} {
		var b bytes.Buffer
		status := Run(Call{Name: "calico", Args: []string{tt.arg}, Version: "v9", Stdin: strings.NewReader(""), Stdout: &b, Getenv: func(k string) string {
			return map[string]string{"BRINDLE_SOCKET": socket}[k]
		}})
		if status != tt.status || !strings.Contains(b.String(), tt.want) {
			t.Errorf("%s: status %d, output %s", tt.arg, status, &b)
		}
	}
	if asked.Command != "STATUS" {
		t.Errorf("the agent was asked %+v", asked)
	}
}

func TestALongAnswerArrivesWhole(t *testing.T) {
	long := `{"x":"` + strings.Repeat("y", 300_000) + `"}`
	socket, _ := agent(t, agentapi.CNIResponse{Failed: true, Output: json.RawMessage(long)})
	status, out := call("ADD", `{"cniVersion":"1.0.0","socket":"`+socket+`"}`)
	if status != 1 || strings.TrimSpace(out) != long {
		t.Errorf("status %d, %d bytes", status, len(out))
	}
}

func TestWithoutAnAgent(t *testing.T) {
	dir := t.TempDir()
	config := `{"cniVersion":"1.1.0","name":"n","socket":"/nonexistent/s","queue":"` + dir + `/q"}`
	for _, tt := range []struct {
		command string
		status  int
		code    string
	}{
		{"ADD", 1, `"code":11`}, {"CHECK", 1, `"code":11`}, {"GC", 1, `"code":11`}, {"STATUS", 1, `"code":50`},
		{"DEL", 0, ""}, {"DEL", 0, ""}, {"VERSION", 0, `"supportedVersions"`},
	} {
		status, out := call(tt.command, config)
		if status != tt.status || !strings.Contains(out, tt.code) {
			t.Errorf("%s: status %d, output %s", tt.command, status, out)
		}
	}
	files, err := filepath.Glob(dir + "/q/*.json")
	if err != nil || len(files) != 1 {
		t.Fatalf("queue holds %v (%v), want the one removal", files, err)
	}
	info, _ := os.Stat(files[0])
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want root's alone", info.Mode())
	}
	var req agentapi.CNIRequest
	data, _ := os.ReadFile(files[0])
	if err := json.Unmarshal(data, &req); err != nil || req.Command != "DEL" || req.Env.ContainerID != "c1" {
		t.Errorf("queued %s: %v", data, err)
	}
	if left, _ := filepath.Glob(dir + "/q/.brindle-new-*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	for _, tt := range []struct{ name, command, config, want string }{
		{"not JSON", "ADD", `{`, `"code":6`},
		{"no version of all", "ADD", `{"cniVersion":"0.0.1"}`, `unsupported cniVersion`},
		{"from the future", "ADD", `{"cniVersion":"2.0.0"}`, `1.1.0`},
		{"too long", "ADD", `{"a":"` + strings.Repeat("x", maxConfig) + `"}`, `1 MiB`},
		{"no command", "", `{}`, `CNI_COMMAND`},
		{"socket path too long", "ADD", `{"cniVersion":"1.1.0","socket":"/` + strings.Repeat("s", 200) + `"}`, "107 bytes"},
	} {
		status, out := call(tt.command, tt.config)
		if status != 1 || !strings.Contains(out, tt.want) || !json.Valid([]byte(out)) {
			t.Errorf("%s: status %d, output %s", tt.name, status, out)
		}
	}
}

func TestABadAgentIsAnError(t *testing.T) {
	for _, answer := range []string{
		"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "SSH-2.0-x\r\n\r\n",
		"HTTP/1.1 503 No\r\n\r\nbusy", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nabc", "\r\n\r\n",
	} {
		if _, err := parseAnswer([]byte(answer)); err == nil {
			t.Errorf("%q was taken for an answer", answer)
		}
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","name":"../../etc","type":"brindle-cni"}`, "ADD", "a/../b")
	f.Fuzz(func(t *testing.T, config, command, id string) {
		if strings.Contains(config, "ocket") || strings.Contains(config, "ueue") {
			return // a path of the fuzzer's choice would be opened
		}
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": id,
			"BRINDLE_SOCKET": "/nonexistent/s", "BRINDLE_QUEUE": "/dev/null/q"}
		var out bytes.Buffer
		status := Run(Call{Name: id, Getenv: func(k string) string { return env[k] }, Stdin: strings.NewReader(config), Stdout: &out})
		if !json.Valid(out.Bytes()) || (status != 0 && status != 1) {
			t.Errorf("status %d, output %q", status, out.String())
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(_ *testing.T, answer []byte) { parseAnswer(answer) })
}
