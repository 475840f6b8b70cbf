package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// pluginPath is where an IPAM plugin finds programs. Nothing else of the
// agent's environment is passed on: it may hold credentials.
const pluginPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// callPlugin starts an IPAM plugin as the CNI specification has it (section 4,
// delegated plugins) and returns what it prints. A failure that the plugin
// explains is a *types.Error.
func callPlugin(ctx context.Context, command, plugin string, env agentapi.CNIEnv, config []byte) ([]byte, error) {
	path, err := findPlugin(plugin, env.Path)
	if err != nil {
		return nil, err
	}
	stdout, stderr := capped{max: maxPluginOutput}, capped{max: maxPluginOutput, cut: true}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{
		pluginPath, "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + env.ContainerID, "CNI_NETNS=" + env.Netns,
		"CNI_IFNAME=" + env.IfName, "CNI_ARGS=" + env.Args, "CNI_PATH=" + env.Path,
	}
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", bytes.NewReader(config), &stdout, &stderr
	cmd.WaitDelay = time.Second // a child of its own must not keep us
	err = cmd.Run()
	if stdout.over {
		return nil, fmt.Errorf("ipam plugin %s: %s: it printed more than %d bytes, which no result has", plugin, command, maxPluginOutput)
	}
	if err != nil {
		return nil, fmt.Errorf("ipam plugin %s: %s: %w", plugin, command, pluginError(ctx, err, stdout.Bytes(), stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// maxPluginOutput bounds what is kept of a plugin's output, in bytes.
const maxPluginOutput = 1 << 20

// capped keeps so many bytes of what is written. More is an error, which ends
// the writer, or with cut set is left out.
type capped struct {
	buf  bytes.Buffer
	max  int
	cut  bool
	over bool
}

func (c *capped) Bytes() []byte { return c.buf.Bytes() }

// Write implements io.Writer.
func (c *capped) Write(p []byte) (int, error) {
	room := c.max - c.buf.Len()
	if len(p) <= room {
		return c.buf.Write(p)
	}
	c.over = true
	c.buf.Write(p[:room])
	if c.cut {
		return len(p), nil
	}
	return room, errTooMuch
}

var errTooMuch = errors.New("too much output")

// pluginError is what a plugin says of its failure.
func pluginError(ctx context.Context, err error, stdout, stderr []byte) error {
	if ctx.Err() != nil {
		return &Error{"timeout", ctx.Err()}
	}
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && (said.Msg != "" || said.Code != 0) {
		return &said
	}
	if text := strings.TrimSpace(string(append(stdout, stderr...))); text != "" {
		return fmt.Errorf("%w: %.500s", err, text)
	}
	return err
}

// findPlugin looks for a plugin in the folders that the runtime names.
func findPlugin(plugin, path string) (string, error) {
	if !nameOK(plugin) {
		return "", invalid("ipam.type %q is no name of a program", plugin)
	}
	if slices.Contains([]string{addressPlugin, "brindle-cni", "calico", "calico-ipam"}, plugin) {
		return "", invalid("ipam.type %q: write brindle-ipam", plugin)
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, plugin)
		if info, err := os.Stat(file); err == nil && filepath.IsAbs(dir) && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &Error{"unavailable", fmt.Errorf("%w: ipam plugin %s is not in CNI_PATH (%s): install it there, or write \"ipam\": {\"type\": \"brindle-ipam\"}", errNoPlugin, plugin, path)}
}

// errNoPlugin says that a plugin is not there.
var errNoPlugin = errors.New("no such plugin")

// speaks reports whether a plugin knows a version of the specification.
func speaks(ctx context.Context, plugin string, env agentapi.CNIEnv, version string) (bool, error) {
	out, err := callPlugin(ctx, "VERSION", plugin, env, []byte(`{"cniVersion":"`+version+`"}`))
	var said *types.Error
	if errors.As(err, &said) {
		return false, nil // older than the question
	}
	if err != nil {
		return false, err
	}
	var v struct {
		Supported []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return false, fmt.Errorf("ipam plugin %s: VERSION: %w", plugin, err)
	}
	return slices.Contains(v.Supported, version), nil
}
