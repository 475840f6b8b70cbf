package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// wanted are the files to be installed, in the order in which they are put
// there: a runtime that sees the configuration starts the plugin.
func (o *cniOptions) wanted(e *Env) ([]installFile, error) {
	var files []installFile
	if !o.noBins {
		plugin := o.plugin
		if plugin == "" {
			plugin = filepath.Join(filepath.Dir(e.Executable), "brindle-cni")
		}
		body, err := os.ReadFile(plugin)
		if err != nil {
			return nil, fmt.Errorf("read the plugin: %w: say where it is with --plugin", err)
		}
		if !bytes.HasPrefix(body, []byte("\x7fELF")) {
			return nil, fmt.Errorf("%s is no program: say where the plugin is with --plugin", plugin)
		}
		files = append(files,
			installFile{path: filepath.Join(o.binDir, "brindle-cni"), body: body, mode: 0o755},
			installFile{path: filepath.Join(o.binDir, "brindle-ipam"), link: "brindle-cni"})
	}
	conf, err := o.conf(e)
	if err != nil {
		return nil, err
	}
	return append(files, installFile{path: filepath.Join(o.confDir, o.name), body: conf, mode: 0o600, conf: true}), nil
}

// conf is the network configuration.
func (o *cniOptions) conf(e *Env) ([]byte, error) {
	text, from := o.inline, "CNI_NETWORK_CONFIG"
	if o.from != "" {
		data, err := os.ReadFile(o.from)
		if errors.Is(err, os.ErrNotExist) { // it was the configuration that ours has replaced
			data, err = os.ReadFile(o.from + replacedSuffix)
		}
		if err != nil {
			return nil, fmt.Errorf("read the template: %w", err)
		}
		text, from = string(data), o.from
	}
	var list map[string]any
	if text == "" {
		list = o.ownConf()
	} else {
		var err error
		if list, err = o.fill(e, text); err != nil {
			return nil, fmt.Errorf("template %s: %w", from, err)
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(list)
	return out.Bytes(), err
}

// ownConf is the configuration of those who bring none. A runtime takes the
// newest of the versions that it knows, and cniVersion where it does not know
// of such a list.
func (o *cniOptions) ownConf() map[string]any {
	plugin := map[string]any{
		"type":         "brindle-cni",
		"capabilities": map[string]any{"ips": true, "mac": true, "io.kubernetes.cri.pod-annotations": true},
		"ipam":         map[string]any{"type": "brindle-ipam", "assign_ipv4": "true", "assign_ipv6": strconv.FormatBool(o.ipv6)},
	}
	if o.mtu != 0 {
		plugin["mtu"] = o.mtu
	}
	return map[string]any{
		"cniVersion": "1.0.0", "cniVersions": []any{"1.0.0", "1.1.0"}, "name": "brindle", "plugins": []any{plugin},
	}
}

// placeholder is what templates for Calico's installer have in them.
var placeholder = regexp.MustCompile(`__[A-Z0-9_]+?__`)

// fill makes a configuration out of a template.
func (o *cniOptions) fill(e *Env, text string) (map[string]any, error) {
	var missing []string
	text = placeholder.ReplaceAllStringFunc(text, func(p string) string {
		value, ok := o.placeholders(e)[p]
		if !ok && strings.HasPrefix(p, "__ETCD_") {
			value, ok = e.Getenv(strings.Trim(p, "_")), true
		}
		if !ok {
			missing = append(missing, p)
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			return ""
		}
		return strings.Trim(string(quoted), `"`)
	})
	if len(missing) > 0 {
		return nil, fmt.Errorf("placeholders %s are not known: write what they stand for", strings.Join(missing, ", "))
	}
	var list map[string]any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if name, _ := list["name"].(string); name == "" {
		return nil, errors.New("name is empty: give the network a name")
	}
	if _, single := list["type"]; single { // a configuration of one plugin
		plugin := map[string]any{}
		for k, v := range list {
			if k != "name" && k != "cniVersion" {
				plugin[k] = v
			}
		}
		list = map[string]any{"name": list["name"], "cniVersion": list["cniVersion"], "plugins": []any{plugin}}
	}
	return list, adopt(list)
}

// placeholders are what is known of them, but for those about etcd, which are
// variables of the environment.
func (o *cniOptions) placeholders(e *Env) map[string]string {
	return map[string]string{
		"__CNI_MTU__": strconv.Itoa(o.mtu), "__LOG_LEVEL__": "info", "__LOG_FILE_PATH__": "", "__LOG_FILE_MAX_SIZE__": "0",
		"__LOG_FILE_MAX_AGE__": "0", "__LOG_FILE_MAX_COUNT__": "0", "__DATASTORE_TYPE__": "etcdv3", "__REQUIRE_MTU_FILE__": "false",
		"__KUBERNETES_NODE_NAME__": e.Getenv("KUBERNETES_NODE_NAME"), "__KUBECONFIG_FILEPATH__": "", "__CALICO_API_GROUP__": e.Getenv("CALICO_API_GROUP"),
		"__KUBERNETES_SERVICE_HOST__": "", "__KUBERNETES_SERVICE_PORT__": "", "__SERVICEACCOUNT_TOKEN__": "",
	}
}

// adopt makes the plugins of Calico in a list into ours, and drops what nobody
// needs who asks the agent: credentials, and where to use them.
func adopt(list map[string]any) error {
	plugins, _ := list["plugins"].([]any)
	ours := 0
	for i, p := range plugins {
		plugin, ok := p.(map[string]any)
		if !ok {
			return fmt.Errorf("plugins[%d] is no object", i)
		}
		if t, _ := plugin["type"].(string); t != "calico" && t != "brindle-cni" {
			continue
		}
		ours++
		plugin["type"] = "brindle-cni"
		if ipam, _ := plugin["ipam"].(map[string]any); ipam != nil && ipam["type"] == "calico-ipam" {
			ipam["type"] = "brindle-ipam"
		}
		for k := range plugin {
			if k == "kubernetes" || strings.HasPrefix(k, "etcd_") || slices.Contains([]string{"log_file_path", "nodename_file"}, k) {
				delete(plugin, k)
			}
		}
		if policy, _ := plugin["policy"].(map[string]any); policy != nil {
			for k := range policy {
				if k != "type" {
					delete(policy, k)
				}
			}
		}
		if plugin["nodename"] == "" {
			delete(plugin, "nodename")
		}
	}
	if ours == 0 {
		return errors.New("no plugin of the list is of type brindle-cni (or calico): it would not be ours")
	}
	return nil
}

// firstConf is the configuration that a runtime takes: the first by name.
func firstConf(dir string) (string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(entry.Name())) {
			return entry.Name(), nil
		}
	}
	return "", os.ErrNotExist
}
