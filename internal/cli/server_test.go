package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/server"
)

// shortDir is a folder with a path that a socket's may begin with.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// onServer runs a command that opens a real datastore.
func onServer(ctx context.Context, env map[string]string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	e := &Env{
		Stdin: strings.NewReader(env["stdin"]), Stdout: &stdout, Stderr: &stderr, Build: "v1.2.3",
		Getenv: func(name string) string { return env[name] }, Environ: func() []string { return nil },
	}
	return outcome{Run(ctx, e, args), stdout.String(), stderr.String()}
}

// startServer runs `brindle server` until the test stops it; it returns the
// environment that the server printed.
func startServer(t *testing.T, args ...string) (env map[string]string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		e := &Env{Stdin: strings.NewReader(""), Stdout: in, Stderr: &stderr, Getenv: func(string) string { return "" }, Environ: func() []string { return nil }}
		status := Run(ctx, e, append([]string{"server"}, args...))
		in.Close()
		done <- status
	}()
	env = map[string]string{}
	lines := bufio.NewScanner(out)
	for len(env) < 2 && lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		env[name] = value
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		go io.Copy(io.Discard, out)
		if status := <-done; status != 0 {
			t.Errorf("the server ended with %d: %s", status, stderr.String())
		}
	}
	t.Cleanup(stop)
	if len(env) < 2 {
		t.Fatalf("the server did not start: %s", stderr.String())
	}
	return env, stop
}

// The datastore of a server is used, saved, and restored into another folder.
func TestServer(t *testing.T) {
	ctx, dir := t.Context(), shortDir(t)
	data, snapshot := filepath.Join(dir, "d"), filepath.Join(dir, "snapshot")
	env, stop := startServer(t, "--data-dir", data)
	if env["DATASTORE_TYPE"] != "etcdv3" || env["ETCD_ENDPOINTS"] != "unix://"+data+"/etcd.sock" {
		t.Errorf("it printed %v", env)
	}
	env["stdin"] = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: kept}\n"
	if got := onServer(ctx, env, "apply", "-f", "-"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	got := onServer(ctx, env, "server", "status", "--data-dir", data)
	if got.status != 0 || !strings.HasPrefix(got.stdout, "Server: fine\n  endpoint  unix://"+data) {
		t.Errorf("%+v", got)
	}
	got = onServer(ctx, env, "server", "status", "--data-dir", data, "-o", "json")
	var st server.Status
	if err := json.Unmarshal([]byte(got.stdout), &st); err != nil || st.Revision == 0 || st.Problem != "" {
		t.Errorf("%v: %+v", err, got)
	}
	if got := onServer(ctx, env, "version"); got.status != 0 || !strings.Contains(got.stdout, "Cluster Type: ") {
		t.Errorf("%+v", got)
	}
	if got := onServer(ctx, env, "server", "snapshot", "save", snapshot, "--data-dir", data); got.status != 0 || !strings.HasPrefix(got.stdout, "Successfully saved") {
		t.Errorf("%+v", got)
	}
	if got := onServer(ctx, env, "server", "snapshot", "restore", snapshot, "--data-dir", data); got.status != 1 {
		t.Errorf("restored over a running server: %+v", got)
	}
	stop()
	if got := onServer(ctx, env, "get", "nodes"); got.status != 1 || !strings.Contains(got.stderr, "there is no socket") {
		t.Errorf("%+v", got)
	}
	if got := onServer(ctx, env, "server", "status", "--data-dir", data); got.status != 1 || !strings.Contains(got.stderr, "start one with `brindle server`") {
		t.Errorf("%+v", got)
	}

	other := filepath.Join(dir, "e")
	if got := onServer(ctx, env, "server", "snapshot", "restore", snapshot, "--data-dir", other); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	env, stop = startServer(t, "--data-dir", other, "--socket", filepath.Join(dir, "s"))
	if got := onServer(ctx, env, "get", "gns", "-o", "name"); got.stdout != "globalnetworkset.projectcalico.org/kept\n" {
		t.Errorf("%+v", got)
	}
	stop()
}

func TestServerRefuses(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "d")
	for _, c := range []struct{ name, in, want string }{
		{"TLS in part", "--listen-client 127.0.0.1:2379 --cert x", "--key is missing"},
		{"files without address", "--cert x --key y --client-ca z", "--listen-client is missing"},
		{"a name", "--listen-client localhost:2379 --cert x --key y --client-ca z", "must be an IP address"},
		{"no port", "--listen-client 127.0.0.1 --cert x --key y --client-ca z", "missing port"},
		{"odd port", "--listen-client 127.0.0.1:x --cert x --key y --client-ca z", "must be a number"},
		{"history", "--history 0s", "--history 0s"},
		{"quota", "--quota -1", "--quota -1"},
		{"grace period", "--leak-grace-period 0s", "--leak-grace-period"},
		{"log level", "--log-level loud", `--log-level "loud"`},
		{"argument", "nosuch", "unknown command"},
		{"join nobody", "--join", "--join: there is nothing to join"},
		{"listen for nobody", "--peer-listen 127.0.0.1:1", "--peer-listen: there are no other members"},
		{"nameless member", "--peers a=https://127.0.0.1:1", "--name is missing"},
		{"nameless certificate", "--certs /nosuch --listen-client 127.0.0.1:1", "--name is missing"},
		{"other member", "--name b --peers a=https://127.0.0.1:1", "--name b is not among --peers"},
		{"peer without TLS", "--name a --peers a=http://127.0.0.1:1", "--peers: peer a: address"},
		{"peer twice", "--name a --peers a=https://127.0.0.1:1,a=https://127.0.0.1:2", "listed twice"},
		{"peer by name", "--name a --peers a=https://db.example:1", "say with --peer-listen"},
		{"odd peer-listen", "--name a --peers a=https://db.example:1 --peer-listen db.example:1", "--peer-listen"},
		{"no certificates", "--name a --peers a=https://127.0.0.1:1 --certs /nosuch", "start etcd: listen on"},
		{"certificates without address", "--name a --certs /nosuch", "--listen-client is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.fails(c.want, append([]string{"server", "--data-dir", dir}, line(c.in)...)...)
			if _, err := os.Stat(dir); err == nil {
				t.Error("the folder was made all the same")
			}
		})
	}
	w.fails("output format", "server", "status", "--data-dir", dir, "-o", "yaml")
	w.fails("there is no datastore", "server", "snapshot", "save", filepath.Join(dir, "x"), "--data-dir", dir)
	w.fails("accepts 1 arg", "server", "snapshot", "save")
}

// Certificates are made, and a member of one runs with them, by IPv6; what
// talks to it is one code for both families.
func TestServerOfCerts(t *testing.T) {
	ctx, dir := t.Context(), shortDir(t)
	certs, data := filepath.Join(dir, "c"), filepath.Join(dir, "d")
	run := func(want string, args ...string) {
		t.Helper()
		got := onServer(ctx, nil, append([]string{"server"}, args...)...)
		if ok := got.status == 0; ok != !strings.HasPrefix(want, "!") || !strings.Contains(got.stdout+got.stderr, strings.TrimPrefix(want, "!")) {
			t.Fatalf("%v: %+v, want %q", args, got, want)
		}
	}
	run("!certs init", "certs", "list", "--dir", certs)
	run("ca.crt and its key, good until 20", "certs", "init", "--dir", certs)
	run("!exists already", "certs", "init", "--dir", certs)
	run("!--address", "certs", "member", "a", "--dir", certs)
	run("member-a.crt", "certs", "member", "a", "--address", "::1", "--dir", certs)
	run("host-h1.crt", "certs", "host", "h1", "--dir", certs)
	run("!certs renew host h1", "certs", "host", "h1", "--dir", certs)
	run("host-h1.crt", "certs", "renew", "host", "h1", "--valid-for", "24h", "--dir", certs)
	run("!expires in", "certs", "list", "--dir", certs)
	run(`!"kind": "authority"`, "certs", "list", "--dir", certs, "-o", "json")
	run("!output format", "certs", "list", "--dir", certs, "-o", "yaml")

	peer, client := freePort(t), freePort(t)
	_, stop := startServer(t, "--data-dir", data, "--name", "a", "--peers", "a=https://"+peer, "--certs", certs, "--listen-client", client)
	run("a of 1, leads", "status", "--data-dir", data)
	run("https://"+peer, "members", "list", "--data-dir", data)
	run("!one member at a time", "members", "add", "b=https://[::1]:1,c=https://[::1]:2", "--data-dir", data)
	run("--name b --join --peers a=https://"+peer+",b=https://[::1]:1", "members", "add", "b=https://[::1]:1", "--data-dir", data)
	stop()
	run("!run this on a member", "members", "list", "--data-dir", data)
	run("!run this on a member", "users", "add", "host", "h1", "--data-dir", data)
	run("!a name has", "users", "remove", "host", "H1", "--data-dir", data)
}

// freePort returns a port that nobody used just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 2 << 30: "2.0 GiB", 5 << 40: "5.0 TiB", 1 << 53: "8192.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestServerProblem(t *testing.T) {
	var out bytes.Buffer
	printServer(&Env{Stdout: &out}, server.Status{Problem: "full\x1b", Endpoint: "unix:///x", Listen: "192.0.2.1:1"})
	if got := out.String(); !strings.Contains(got, "NEEDS ATTENTION\n  problem   full\\x1b (since") || !strings.Contains(got, "192.0.2.1:1") {
		t.Errorf("%q", got)
	}
}
