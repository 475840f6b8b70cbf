package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/store/etcd"
)

// datastoreFlags say how to reach the datastore: flags first, then the
// environment that calicoctl's users know.
type datastoreFlags struct {
	kind, endpoints, prefix string
	ca, cert, key, username string
}

// add adds the flags to a command.
func (d *datastoreFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.kind, "datastore-type", "", "etcdv3 (default: DATASTORE_TYPE)")
	f.StringVar(&d.endpoints, "etcd-endpoints", "", "URLs of etcd, with commas: https://host:2379 or unix:///path (default: ETCD_ENDPOINTS)")
	f.StringVar(&d.prefix, "etcd-prefix", "", "put before every key, to share one etcd between networks")
	f.StringVar(&d.ca, "etcd-ca", "", "file with the certificates to trust (default: ETCD_CA_CERT_FILE)")
	f.StringVar(&d.cert, "etcd-cert", "", "file with the client's certificate (default: ETCD_CERT_FILE)")
	f.StringVar(&d.key, "etcd-key", "", "file with its key (default: ETCD_KEY_FILE)")
	f.StringVar(&d.username, "etcd-username", "", "user; the password comes from ETCD_PASSWORD only (default: ETCD_USERNAME)")
}

// open connects to the datastore.
func (d *datastoreFlags) open(e *Env) (*etcd.Driver, error) {
	set := map[string]string{
		"DATASTORE_TYPE": d.kind, "ETCD_ENDPOINTS": d.endpoints, "ETCD_CA_CERT_FILE": d.ca,
		"ETCD_CERT_FILE": d.cert, "ETCD_KEY_FILE": d.key, "ETCD_USERNAME": d.username,
	}
	cfg, err := etcd.ConfigFromEnv(func(name string) string {
		// A flag wins over every spelling of its variable.
		plain := strings.TrimPrefix(strings.TrimPrefix(name, "BRINDLE_"), "CALICO_")
		if v := set[plain]; v != "" {
			return v
		}
		return e.Getenv(name)
	})
	if err != nil {
		return nil, err
	}
	if d.prefix != "" {
		cfg.Prefix = d.prefix
	}
	driver, err := etcd.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the datastore: %w", err)
	}
	return driver, nil
}
