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

// datastoreFlags say how to reach the datastore. For the agent that is flags
// and the environment; for the other commands see settings.
type datastoreFlags struct {
	kind, endpoints, prefix string
	ca, cert, key, username string
	file, context           string
	auditLog                string // "": as the environment says
	user                    bool   // a user's command, which has files
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

// addClient adds the flags, and those of the files that users have.
func (d *datastoreFlags) addClient(c *cobra.Command) {
	d.add(c)
	d.user = true
	c.Flags().StringVarP(&d.file, "config", "c", "", "file of kind CalicoAPIConfig; the environment fills in what it does not say (default: "+defaultConfigFile+")")
	c.Flags().StringVar(&d.context, "context", "", "context of brindle config, instead of the current one")
}

// config puts together how to reach the datastore.
func (d *datastoreFlags) config(e *Env) (etcd.Config, error) {
	layers, err := d.settings(e)
	if err != nil {
		return etcd.Config{}, err
	}
	look := func(name string) string {
		for _, layer := range layers {
			if v := layer(name); v != "" {
				return v
			}
		}
		return ""
	}
	cfg, err := etcd.ConfigFromEnv(look)
	if err != nil {
		return cfg, fmt.Errorf("how to reach the datastore: %w", err)
	}
	cfg.CA, cfg.Cert, cfg.Key = look(inlineCA), look(inlineCert), etcd.NewSecret(look(inlineKey))
	return cfg, nil
}

// Settings that calicoctl's file may hold as texts, and for which there is no
// variable, so that no environment shows them.
const (
	inlineCA   = "text of the authority"
	inlineCert = "text of the certificate"
	inlineKey  = "text of the key"
)

// layer looks up a variable of etcd.ConfigFromEnv in one place.
type layer func(name string) string

// Prefixes of variables: ConfigFromEnv asks for each with the first, the second
// and none, and takes the first answer.
const (
	ownPrefix    = "BRINDLE_"
	calicoPrefix = "CALICO_"
)

// fixed is a layer whose values win over every spelling of a variable in the
// layers behind it.
func fixed(values map[string]string) layer {
	return func(name string) string {
		return values[strings.TrimPrefix(strings.TrimPrefix(name, ownPrefix), calicoPrefix)]
	}
}

// settings lists where to look, first things first:
//
//   - flags;
//   - with -c FILE that file, and then the environment;
//   - with --context NAME that context, and of the environment the password only;
//   - with a current context the environment if that (or a flag) says where the
//     datastore is, and else the context in the same way: never a mixture;
//   - else variables that begin with BRINDLE_, calicoctl's own file, and the
//     variables of calicoctl.
func (d *datastoreFlags) settings(e *Env) ([]layer, error) {
	flags := fixed(map[string]string{
		"DATASTORE_TYPE": d.kind, "ETCD_ENDPOINTS": d.endpoints, "ETCD_CA_CERT_FILE": d.ca, "ETCD_PREFIX": d.prefix,
		"ETCD_CERT_FILE": d.cert, "ETCD_KEY_FILE": d.key, "ETCD_USERNAME": d.username,
	})
	env := layer(e.Getenv)
	if !d.user {
		return []layer{flags, env}, nil
	}
	if d.file != "" {
		if d.context != "" {
			return nil, errors.New("-c and --context cannot be given together: each says where the datastore is")
		}
		file, err := readAPIConfig(d.file)
		return []layer{flags, fixed(file), env}, err
	}
	known, err := readContexts(e)
	if err != nil && (d.context != "" || known.path != "") {
		return nil, err
	}
	name := d.context
	if name == "" && d.endpoints == "" && !namesEndpoints(e) {
		name = known.Current
	}
	if name != "" {
		x, err := known.find(name)
		if err != nil {
			return nil, err
		}
		values, err := known.variables(x)
		password := func(name string) string {
			if strings.HasSuffix(name, "ETCD_PASSWORD") {
				return e.Getenv(name)
			}
			return ""
		}
		return []layer{flags, fixed(values), password}, err
	}
	if known.Current != "" {
		return []layer{flags, env}, nil
	}
	own := func(name string) string {
		if strings.HasPrefix(name, ownPrefix) {
			return e.Getenv(name)
		}
		return ""
	}
	file, err := readAPIConfig(calicoctlFile(e))
	if errors.Is(err, fs.ErrNotExist) {
		file, err = nil, nil
	}
	return []layer{flags, own, fixed(file), env}, err
}

// namesEndpoints reports whether the environment says where the datastore is.
func namesEndpoints(e *Env) bool {
	return slices.ContainsFunc([]string{ownPrefix, calicoPrefix, ""}, func(prefix string) bool { return e.Getenv(prefix+"ETCD_ENDPOINTS") != "" })
}

// calicoctlFile is where calicoctl's file is looked for.
func calicoctlFile(e *Env) string {
	if e.CalicoctlFile != "" {
		return e.CalicoctlFile
	}
	return defaultConfigFile
}

// readAPIConfig reads a file of kind CalicoAPIConfig into the variables that
// its fields stand for.
func readAPIConfig(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
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
		"etcdCACert": inlineCA, "etcdCert": inlineCert, "etcdKey": inlineKey,
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
	if d.endpoints != "" || d.file != "" || d.context != "" || namesEndpoints(e) {
		return true
	}
	if known, err := readContexts(e); err == nil && known.Current != "" {
		return true
	}
	for _, path := range []string{calicoctlFile(e), strings.TrimPrefix(etcd.DefaultEndpoint, "unix://")} {
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
	signed := d.signed(e, driver)
	return newSessionOn(signed, func() error {
		if own, ok := signed.(*noted); ok {
			return errors.Join(own.Close(), driver.Close())
		}
		return driver.Close()
	}), nil
}

// newSession makes a connection out of an open datastore.
func newSession(driver Datastore) *session { return newSessionOn(driver, driver.Close) }

// newSessionOn makes one out of a datastore that is closed in another way.
func newSessionOn(driver store.Driver, close func() error) *session {
	addresses := ipam.New(ipam.Config{Driver: driver})
	c := client.New(driver, client.Config{ReleasePool: func(ctx context.Context, pool *v3.IPPool) error {
		cidr, err := netip.ParsePrefix(pool.Spec.CIDR)
		if err != nil {
			return nil // it never had a block
		}
		return addresses.ReleasePoolAffinities(ctx, cidr)
	}})
	return &session{Client: c, driver: driver, addresses: addresses, close: close}
}
