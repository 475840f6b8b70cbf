package etcd

import (
	"errors"
	"fmt"
	"strings"
)

// ErrOtherDatastore says that the environment asks for a datastore other than
// etcd.
var ErrOtherDatastore = errors.New("the environment asks for another datastore than etcd")

// envPrefixes are tried in this order: the most specific name wins.
var envPrefixes = [...]string{"BRINDLE_", "CALICO_", ""}

// ConfigFromEnv reads the configuration from the environment: DATASTORE_TYPE,
// ETCD_ENDPOINTS (comma-separated), ETCD_USERNAME, ETCD_PASSWORD,
// ETCD_CERT_FILE, ETCD_KEY_FILE, ETCD_CA_CERT_FILE and ETCD_PREFIX, each also
// with the prefix CALICO_ or BRINDLE_, which wins. Without endpoints it is
// DefaultEndpoint. Errors name the variable, and never a password.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	lookup := func(name string) (value, from string) {
		for _, p := range envPrefixes {
			if v := strings.TrimSpace(getenv(p + name)); v != "" {
				return v, p + name
			}
		}
		return "", name
	}
	text := func(name string) string { v, _ := lookup(name); return v }

	if kind, from := lookup("DATASTORE_TYPE"); kind != "" && kind != "etcdv3" {
		return Config{}, fmt.Errorf("%s is %q: %w; set it to etcdv3, or leave it empty", from, kind, ErrOtherDatastore)
	}
	if v, from := lookup("ETCD_DISCOVERY_SRV"); v != "" {
		return Config{}, fmt.Errorf("%s: finding etcd by DNS is not supported; list the members in ETCD_ENDPOINTS", from)
	}
	cfg := Config{
		Username: text("ETCD_USERNAME"),
		Password: NewSecret(text("ETCD_PASSWORD")),
		CertFile: text("ETCD_CERT_FILE"),
		KeyFile:  text("ETCD_KEY_FILE"),
		CAFile:   text("ETCD_CA_CERT_FILE"),
		Prefix:   text("ETCD_PREFIX"),
	}
	endpoints, from := lookup("ETCD_ENDPOINTS")
	for e := range strings.SplitSeq(endpoints, ",") {
		if e = strings.TrimSpace(e); e != "" {
			cfg.Endpoints = append(cfg.Endpoints, e)
		}
	}
	if endpoints == "" {
		cfg.Endpoints = []string{DefaultEndpoint}
	}
	if len(cfg.Endpoints) == 0 {
		return Config{}, fmt.Errorf("%s has no endpoint in it; list URLs, separated by commas", from)
	}
	if err := cfg.validate(); err != nil {
		return Config{}, fmt.Errorf("environment (%s and its like): %w", from, err)
	}
	return cfg, nil
}
