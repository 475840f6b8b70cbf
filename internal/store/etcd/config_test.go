package etcd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/brindle-net/brindle/internal/store/etcd"
)

func TestConfigFromEnv(t *testing.T) {
	tests := []struct {
		name string
		in   map[string]string
		want etcd.Config
	}{
		{"nothing", nil, etcd.Config{Endpoints: []string{etcd.DefaultEndpoint}}},
		{"several endpoints", map[string]string{"ETCD_ENDPOINTS": " http://a:2379, http://b:2379,"},
			etcd.Config{Endpoints: []string{"http://a:2379", "http://b:2379"}}},
		{"login", map[string]string{"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": "unix:///run/e.sock", "ETCD_USERNAME": "u", "ETCD_PASSWORD": "p"},
			etcd.Config{Endpoints: []string{"unix:///run/e.sock"}, Username: "u", Password: etcd.NewSecret("p")}},
		{"prefixed names win", map[string]string{
			"DATASTORE_TYPE": "kubernetes", "CALICO_DATASTORE_TYPE": "etcdv3",
			"ETCD_ENDPOINTS": "http://plain:1", "CALICO_ETCD_ENDPOINTS": "http://calico:1", "BRINDLE_ETCD_ENDPOINTS": "http://brindle:1", "CALICO_ETCD_PREFIX": "/x",
		}, etcd.Config{Endpoints: []string{"http://brindle:1"}, Prefix: "/x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := etcd.ConfigFromEnv(func(name string) string { return tt.in[name] })
			if err != nil {
				t.Fatal(err)
			}
			reveal := cmp.Transformer("reveal", etcd.Secret.Reveal)
			if d := cmp.Diff(tt.want, got, reveal, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestConfigErrorsSayWhatToDo(t *testing.T) {
	tests := []struct {
		name string
		in   map[string]string
		want string
	}{
		{"kubernetes", map[string]string{"CALICO_DATASTORE_TYPE": "kubernetes"}, `CALICO_DATASTORE_TYPE is "kubernetes"`},
		{"discovery", map[string]string{"ETCD_DISCOVERY_SRV": "example.org"}, "list the members in ETCD_ENDPOINTS"},
		{"only commas", map[string]string{"ETCD_ENDPOINTS": " , "}, "ETCD_ENDPOINTS has no endpoint in it"},
		{"no scheme", map[string]string{"ETCD_ENDPOINTS": "10.0.0.1:2379"}, "write https://host:port"},
		{"no port", map[string]string{"ETCD_ENDPOINTS": "https://10.0.0.1"}, "must be https://host:port"},
		{"a path", map[string]string{"ETCD_ENDPOINTS": "http://10.0.0.1:2379/x"}, "must be http://host:port"},
		{"other scheme", map[string]string{"ETCD_ENDPOINTS": "ftp://h:1"}, "scheme must be https, http or unix"},
		{"relative socket", map[string]string{"ETCD_ENDPOINTS": "unix://run/e.sock"}, "full path"},
		{"mixed schemes", map[string]string{"ETCD_ENDPOINTS": "https://a:1,http://b:1"}, "all endpoints must be https"},
		{"password in the URL", map[string]string{"ETCD_ENDPOINTS": "https://root:hunter2@a:1"}, "would show up in logs"},
		{"password in what is no URL", map[string]string{"ETCD_ENDPOINTS": "https://root:hun%ter2@a:1"}, "is no URL"},
		{"user without password", map[string]string{"ETCD_ENDPOINTS": "http://a:1", "ETCD_USERNAME": "u"}, "given together"},
		{"password without user", map[string]string{"ETCD_ENDPOINTS": "http://a:1", "ETCD_PASSWORD": "hunter2"}, "given together"},
		{"certificate without key", map[string]string{"ETCD_ENDPOINTS": "https://a:1", "ETCD_CERT_FILE": "/c"}, "given together"},
		{"TLS files with http", map[string]string{"ETCD_ENDPOINTS": "http://a:1", "ETCD_CA_CERT_FILE": "/ca"}, "write https"},
		{"missing file", map[string]string{"ETCD_ENDPOINTS": "https://a:1", "ETCD_CA_CERT_FILE": "/nowhere/ca.pem"}, "/nowhere/ca.pem"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := etcd.ConfigFromEnv(func(name string) string { return tt.in[name] })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") || strings.Contains(fmt.Sprint(err), "hun%ter2") {
				t.Errorf("error shows the password: %v", err)
			}
			if tt.name == "kubernetes" && !errors.Is(err, etcd.ErrOtherDatastore) {
				t.Errorf("%v is no ErrOtherDatastore", err)
			}
		})
	}
}

func TestSecretsStaySecret(t *testing.T) {
	cfg := etcd.Config{Username: "u", Password: etcd.NewSecret("hunter2")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if s := fmt.Sprintf(format, cfg); strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s shows the password: %s", format, s)
		}
	}
	if b, _ := json.Marshal(struct{ P any }{cfg.Password}); strings.Contains(string(b), "hunter2") {
		t.Errorf("JSON shows the password: %s", b)
	}
	if cfg.Password.Reveal() != "hunter2" || (etcd.Secret{}).Reveal() != "" {
		t.Error("Reveal does not reveal")
	}
}
