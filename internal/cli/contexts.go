package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/files"
)

// What the file of contexts says that it is.
const (
	contextsVersion = "brindle.net/v1"
	contextsKind    = "ClientConfig"
)

// contexts is the file that keeps how to reach several datastores, each under
// a name, and which of them is meant when nothing else says so.
type contexts struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Current    string        `json:"currentContext,omitempty"`
	Contexts   []contextInfo `json:"contexts"`

	path string
}

// contextInfo is how to reach one datastore. Files with relative names are
// beside the file of contexts.
type contextInfo struct {
	Name         string `json:"name"`
	Endpoints    string `json:"etcdEndpoints"`
	Prefix       string `json:"etcdPrefix,omitempty"`
	CAFile       string `json:"etcdCACertFile,omitempty"`
	CertFile     string `json:"etcdCertFile,omitempty"`
	KeyFile      string `json:"etcdKeyFile,omitempty"`
	Username     string `json:"etcdUsername,omitempty"`
	PasswordFile string `json:"etcdPasswordFile,omitempty"`
}

// contextsPath is where the file is: BRINDLE_CONFIG, else brindle/config in the
// user's folder for settings (XDG base directory specification).
func contextsPath(e *Env) (string, error) {
	if path := e.Getenv("BRINDLE_CONFIG"); path != "" {
		return path, nil
	}
	if dir := e.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "brindle", "config"), nil
	}
	if home := e.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "brindle", "config"), nil
	}
	return "", errors.New("neither BRINDLE_CONFIG nor HOME is set: where the contexts are kept is not known")
}

// readContexts reads the file; one that is not there has no contexts.
func readContexts(e *Env) (*contexts, error) {
	path, err := contextsPath(e)
	if err != nil {
		return &contexts{}, err
	}
	c := &contexts{APIVersion: contextsVersion, Kind: contextsKind, path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if data, err = v3.YAMLToJSON(data); err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(c)
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// check says what is wrong with a file of contexts.
func (c *contexts) check() error {
	if c.APIVersion != contextsVersion || c.Kind != contextsKind {
		return fmt.Errorf("it is %q of %q: must be kind %s of apiVersion %s", c.Kind, c.APIVersion, contextsKind, contextsVersion)
	}
	seen := map[string]bool{}
	for i, x := range c.Contexts {
		switch {
		case x.Name == "":
			return fmt.Errorf("contexts[%d].name: must be given", i)
		case seen[x.Name]:
			return fmt.Errorf("contexts[%d].name: %q is there twice", i, x.Name)
		case x.Endpoints == "":
			return fmt.Errorf("contexts[%d].etcdEndpoints: must be given (context %q)", i, x.Name)
		}
		seen[x.Name] = true
	}
	if c.Current != "" && !seen[c.Current] {
		return fmt.Errorf("currentContext: there is no context %q", c.Current)
	}
	return nil
}

// find returns a context by name.
func (c *contexts) find(name string) (*contextInfo, error) {
	i := slices.IndexFunc(c.Contexts, func(x contextInfo) bool { return x.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no context %q: `brindle config get-contexts` lists them", name)
	}
	return &c.Contexts[i], nil
}

// write replaces the file whole; only its owner may read it.
func (c *contexts) write() error {
	if err := c.check(); err != nil {
		return err
	}
	data, err := v3.EncodeYAML(c)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return files.Write(c.path, data, 0o600)
}

// variables are the variables that a context stands for.
func (c *contexts) variables(x *contextInfo) (map[string]string, error) {
	beside := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(c.path), name)
	}
	out := map[string]string{
		"ETCD_ENDPOINTS": x.Endpoints, "ETCD_PREFIX": x.Prefix, "ETCD_USERNAME": x.Username,
		"ETCD_CA_CERT_FILE": beside(x.CAFile), "ETCD_CERT_FILE": beside(x.CertFile), "ETCD_KEY_FILE": beside(x.KeyFile),
	}
	if x.PasswordFile != "" {
		secret, err := os.ReadFile(beside(x.PasswordFile))
		if err != nil {
			return nil, fmt.Errorf("context %q: etcdPasswordFile: %w", x.Name, err)
		}
		out["ETCD_PASSWORD"] = string(bytes.TrimRight(secret, "\r\n"))
	}
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out, nil
}
