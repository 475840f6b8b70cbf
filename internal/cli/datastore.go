package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// defaultConfigFile is where calicoctl keeps how to reach the datastore.
const defaultConfigFile = "/etc/calico/calicoctl.cfg"

// datastoreFlags say how to reach the datastore: flags first, then a file
// named by a flag, then the environment that calicoctl's users know, then
// calicoctl's own file.
type datastoreFlags struct {
	kind, endpoints, prefix string
	ca, cert, key, username string
	file                    string
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

// addClient adds the flags, and that of the file that calicoctl's users have.
func (d *datastoreFlags) addClient(c *cobra.Command) {
	d.add(c)
	c.Flags().StringVarP(&d.file, "config", "c", "", "file of kind CalicoAPIConfig; wins over the environment (default: "+defaultConfigFile+", which does not)")
}

// config puts together how to reach the datastore.
func (d *datastoreFlags) config(e *Env) (etcd.Config, error) {
	flags := map[string]string{
		"DATASTORE_TYPE": d.kind, "ETCD_ENDPOINTS": d.endpoints, "ETCD_CA_CERT_FILE": d.ca, "ETCD_PREFIX": d.prefix,
		"ETCD_CERT_FILE": d.cert, "ETCD_KEY_FILE": d.key, "ETCD_USERNAME": d.username,
	}
	file, err := readAPIConfig(d.file)
	if err != nil {
		return etcd.Config{}, err
	}
	cfg, err := etcd.ConfigFromEnv(func(name string) string {
		plain := strings.TrimPrefix(strings.TrimPrefix(name, "BRINDLE_"), "CALICO_")
		first := flags[plain]
		if first == "" && d.file != "" {
			first = file[plain]
		}
		switch {
		case first != "" && name != plain:
			return "" // it wins over every spelling of the variable
		case first != "":
			return first
		case e.Getenv(name) != "" || name != plain:
			return e.Getenv(name)
		}
		return file[plain]
	})
	if err != nil {
		return cfg, fmt.Errorf("how to reach the datastore: %w", err)
	}
	return cfg, nil
}

// readAPIConfig reads a file of kind CalicoAPIConfig into the variables that
// its fields stand for. The default file may be missing.
func readAPIConfig(name string) (map[string]string, error) {
	path := name
	if name == "" {
		path = defaultConfigFile
	}
	data, err := os.ReadFile(path)
	if name == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if data, err = v3.YAMLToJSON(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var cfg struct {
		v3.TypeMeta
		Spec map[string]any
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if cfg.Kind != "CalicoAPIConfig" {
		return nil, fmt.Errorf("%s: kind %q: must be CalicoAPIConfig", path, cfg.Kind)
	}
	out := map[string]string{}
	for field, variable := range map[string]string{
		"datastoreType": "DATASTORE_TYPE", "etcdEndpoints": "ETCD_ENDPOINTS", "etcdDiscoverySrv": "ETCD_DISCOVERY_SRV",
		"etcdUsername": "ETCD_USERNAME", "etcdPassword": "ETCD_PASSWORD", "etcdCACertFile": "ETCD_CA_CERT_FILE",
		"etcdCertFile": "ETCD_CERT_FILE", "etcdKeyFile": "ETCD_KEY_FILE",
	} {
		if v, ok := cfg.Spec[field]; ok {
			out[variable] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// configured reports whether anything says where the datastore is, or one
// listens where it is looked for then.
func (d *datastoreFlags) configured(e *Env) bool {
	for _, name := range []string{"ETCD_ENDPOINTS", "CALICO_ETCD_ENDPOINTS", "BRINDLE_ETCD_ENDPOINTS"} {
		if e.Getenv(name) != "" {
			return true
		}
	}
	if d.endpoints != "" || d.file != "" {
		return true
	}
	for _, path := range []string{defaultConfigFile, strings.TrimPrefix(etcd.DefaultEndpoint, "unix://")} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// open connects to the datastore, which need not be there yet.
func (d *datastoreFlags) open(e *Env) (Datastore, error) {
	cfg, err := d.config(e)
	if err != nil {
		return nil, err
	}
	return open(e, cfg)
}

func open(e *Env, cfg etcd.Config) (Datastore, error) {
	if e.Open != nil {
		return e.Open(cfg)
	}
	driver, err := etcd.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the datastore: %w", err)
	}
	return driver, nil
}

// session is a command's connection to the datastore.
type session struct {
	*client.Client
	driver    store.Driver
	addresses *ipam.Manager
	close     func() error
}

// present refuses at once when no socket is where the datastore should listen,
// so that nobody waits for what cannot answer.
func present(cfg etcd.Config) error {
	for _, endpoint := range cfg.Endpoints {
		path, local := strings.CutPrefix(endpoint, "unix://")
		if _, err := os.Stat(path); !local || !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if slices.Equal(cfg.Endpoints, []string{etcd.DefaultEndpoint}) {
		return errors.New("no datastore is configured and none runs on this host: set ETCD_ENDPOINTS or --etcd-endpoints, start `brindle server`, or take that of a lab: eval \"$(brindle lab env)\"")
	}
	return fmt.Errorf("the datastore does not run: there is no socket %s", strings.Join(cfg.Endpoints, ", "))
}

// connect opens the datastore for a command.
func (d *datastoreFlags) connect(e *Env) (*session, error) {
	cfg, err := d.config(e)
	if err != nil {
		return nil, err
	}
	if err := present(cfg); err != nil {
		return nil, err
	}
	driver, err := open(e, cfg)
	if err != nil {
		return nil, err
	}
	return newSession(driver), nil
}

// newSession makes a connection out of an open datastore.
func newSession(driver Datastore) *session {
	addresses := ipam.New(ipam.Config{Driver: driver})
	c := client.New(driver, client.Config{ReleasePool: func(ctx context.Context, pool *v3.IPPool) error {
		cidr, err := netip.ParsePrefix(pool.Spec.CIDR)
		if err != nil {
			return nil // it never had a block
		}
		return addresses.ReleasePoolAffinities(ctx, cidr)
	}})
	return &session{Client: c, driver: driver, addresses: addresses, close: driver.Close}
}
