// Package cni is the CNI plugin: it hands the runtime's call, unparsed, to the
// agent over its unix socket and prints the answer. It holds no credential
// and no logic, and imports no more than it needs, because a kubelet starts
// it for every pod: neither net nor net/http is linked.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// SpecVersions are the versions of the CNI specification that are spoken, the
// newest last.
var SpecVersions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// unnamed is the version of a configuration that names none (documented
// Calico behaviour).
const unnamed = "0.2.0"

// CNI error codes (CNI specification 1.1, section "Error").
const (
	CodeIncompatible = 1
	CodeUnknown      = 3
	CodeInvalidEnv   = 4
	CodeIO           = 5
	CodeDecode       = 6
	CodeInvalid      = 7
	CodeTryAgain     = 11
	CodeUnavailable  = 50
	CodeInternal     = 99
)

// maxConfig bounds what is read from standard input, in bytes.
const maxConfig = 1 << 20

// callTimeout bounds one call. The agent answers or gives up well before.
const callTimeout = 100 * time.Second

// A Call is one start of the plugin: what of the process it may touch.
type Call struct {
	Name    string   // argv[0]
	Args    []string // argv[1:]
	Version string   // of this build
	Getenv  func(string) string
	Stdin   io.Reader
	Stdout  io.Writer
	PID     int
}

// settings are the few fields of the network configuration that concern the
// plugin itself.
type settings struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
	Queue      string `json:"queue"`
}

// Run carries out one call and returns the exit status of the process: 0, or
// 1 after a CNI error was printed.
func Run(c Call) int {
	if len(c.Args) > 0 {
		return c.asked()
	}
	command := c.Getenv("CNI_COMMAND")
	if command == "" {
		return c.fail(settings{}, CodeInvalidEnv, "the environment variable CNI_COMMAND is not set",
			"this program is started by a container runtime; to install it see `brindle cni install --help`")
	}
	config, err := io.ReadAll(io.LimitReader(c.Stdin, maxConfig+1))
	if err != nil {
		return c.fail(settings{}, CodeIO, "read the network configuration from standard input", err.Error())
	}
	if len(config) > maxConfig {
		return c.fail(settings{}, CodeInvalid, "the network configuration is longer than 1 MiB", "")
	}
	var s settings
	if err := json.Unmarshal(config, &s); err != nil && (command != "VERSION" || len(config) > 0) {
		return c.fail(settings{}, CodeDecode, "the network configuration is not valid JSON", err.Error())
	}
	if command == "VERSION" {
		return c.print(version(s))
	}
	if s.CNIVersion == "" {
		s.CNIVersion = unnamed
	}
	if !supported(s.CNIVersion) {
		return c.fail(settings{}, CodeIncompatible, "unsupported cniVersion "+quote(s.CNIVersion),
			"this plugin speaks "+strings.Join(SpecVersions, ", "))
	}
	return c.forward(command, s, config)
}

// asked answers an administrator, with the flags of Calico's plugin: -v prints
// the version, -t tells whether a workload could be added now.
func (c Call) asked() int {
	switch c.Args[0] {
	case "-v", "--version":
		if _, err := io.WriteString(c.Stdout, c.Version+"\n"); err != nil {
			return 1
		}
		return 0
	case "-t":
		return c.forward("STATUS", settings{}, []byte(`{"cniVersion":"1.1.0","name":"test","ipam":{"type":"brindle-ipam"}}`))
	}
	return c.fail(settings{}, CodeInvalidEnv, "unknown argument "+quote(c.Args[0]),
		"-v prints the version, -t tests whether the agent is ready; a container runtime gives no arguments")
}

// forward asks the agent and prints its answer.
func (c Call) forward(command string, s settings, config []byte) int {
	req := agentapi.CNIRequest{
		Version: agentapi.Version, Command: command, Plugin: pluginName(c.Name), PID: c.PID, Config: config,
		Env: agentapi.CNIEnv{
			ContainerID: c.Getenv("CNI_CONTAINERID"), Netns: c.Getenv("CNI_NETNS"),
			IfName: c.Getenv("CNI_IFNAME"), Args: c.Getenv("CNI_ARGS"), Path: c.Getenv("CNI_PATH"),
		},
	}
	body, err := json.Marshal(req)
	if err != nil {
		return c.fail(s, CodeInternal, "encode the request", err.Error())
	}
	socket := firstOf(s.Socket, c.Getenv("BRINDLE_SOCKET"), agentapi.DefaultSocket)
	answer, err := post(socket, agentapi.PathCNI, body, callTimeout)
	if errors.Is(err, errNoAgent) {
		return c.agentDown(s, req, err)
	}
	if err != nil {
		return c.fail(s, CodeTryAgain, "ask the agent at "+socket, err.Error())
	}
	var resp agentapi.CNIResponse
	if err := json.Unmarshal(answer, &resp); err != nil {
		return c.fail(s, CodeInternal, "the agent's answer is not valid JSON", err.Error())
	}
	if len(resp.Output) > 0 && string(resp.Output) != "null" {
		if _, err := c.Stdout.Write(append(resp.Output, '\n')); err != nil {
			return 1
		}
	}
	if resp.Failed {
		return 1
	}
	return 0
}

// agentDown answers while nobody listens on the socket. A removal must not
// keep a dead container alive, so it is queued on disk for the agent.
func (c Call) agentDown(s settings, req agentapi.CNIRequest, cause error) int {
	switch req.Command {
	case "DEL":
		req.PID = 0 // asked again, it is the same removal
		body, err := json.Marshal(req)
		if err != nil {
			return c.fail(s, CodeInternal, "encode the request", err.Error())
		}
		dir := firstOf(s.Queue, c.Getenv("BRINDLE_QUEUE"), agentapi.DefaultQueue)
		if err := Enqueue(dir, body); err != nil {
			return c.fail(s, CodeTryAgain, "the agent is not running and the removal cannot be queued", err.Error())
		}
		return 0
	case "STATUS":
		return c.fail(s, CodeUnavailable, "the agent is not running", cause.Error())
	}
	return c.fail(s, CodeTryAgain, "the agent is not running", cause.Error())
}

// version answers VERSION, which needs no agent.
func version(s settings) any {
	v := s.CNIVersion
	if v == "" {
		v = SpecVersions[len(SpecVersions)-1]
	}
	return struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{v, SpecVersions}
}

func (c Call) print(v any) int {
	out, err := json.Marshal(v)
	if err != nil {
		return 1
	}
	if _, err := c.Stdout.Write(append(out, '\n')); err != nil {
		return 1
	}
	return 0
}

// fail prints a CNI error on standard output, as the specification asks.
func (c Call) fail(s settings, code int, msg, details string) int {
	v := s.CNIVersion
	if v == "" {
		v = SpecVersions[len(SpecVersions)-1]
	}
	c.print(struct {
		CNIVersion string `json:"cniVersion"`
		Code       int    `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details,omitempty"`
	}{v, code, "brindle-cni: " + msg, details})
	return 1
}

// pluginName is the name that the runtime called us by, reduced to the two
// that we answer to.
func pluginName(argv0 string) string {
	if strings.HasSuffix(filepath.Base(argv0), "ipam") {
		return "brindle-ipam"
	}
	return "brindle-cni"
}

func supported(v string) bool {
	for _, s := range SpecVersions {
		if s == v {
			return true
		}
	}
	return false
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Sprintf("%q", s)
	}
	return string(b)
}
