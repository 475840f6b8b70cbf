//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNewestKernel(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-47-cloud-amd64",
	}
	if got, want := slices.MaxFunc(names, compareVersions), "linux-image-6.1.0-56-cloud-amd64"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	names = []string{"linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64"}
	if got, want := slices.MaxFunc(names, compareVersions), "linux-image-6.12.117+deb12-cloud-amd64"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     int
		wantErr  string
	}{
		{"passed", "booting\r\nguest: exit 0\r\n", 0, ""},
		{"test failed", "guest: exit 1\r\n", 1, ""},
		{"panic after the test", "guest: exit 0\r\nKernel panic - not syncing\r\n", exitDied, "panicked"},
		{"silence", "booting\r\n", exitDied, "without a result"},
		{"guest failed", "guest: load veth: no such file\r\nguest: exit 125\r\n", exitDied, "load veth"},
		{"a test that imitates", "x guest: exit 0\r\n", exitDied, "without a result"},
	} {
		got, err := verdict(c.in)
		if got != c.want || (err != nil) != (c.wantErr != "") || err != nil && !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("%s: got %d, %v; want %d, %q", c.name, got, err, c.want, c.wantErr)
		}
	}
}
