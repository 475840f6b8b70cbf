package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPowerLossWhileAMemberIsNamed has the machine stop between the file with a
// member's name and etcd's first byte, and in the middle of each: who starts
// then on the folder is who it belongs to.
func TestPowerLossWhileAMemberIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		file  string // what is in the file; "-": there is none
		data  bool   // etcd has written something
		start string // who starts
		want  string // what the file says then; "": it is refused
	}{
		{"before the name", "-", false, "a", "a"},
		{"an empty name, before the first byte", "", false, "a", "a"},
		{"named, before the first byte", "a\n", false, "a", "a"},
		{"named, before the first byte, and another starts", "a\n", false, "b", "b"},
		{"named, and data", "a\n", true, "a", "a"},
		{"named, and data, and another starts", "a\n", true, "b", ""},
		{"named, and data, and a single one starts", "a\n", true, memberName, ""},
		{"data of a single one, of before names", "-", true, memberName, memberName},
		{"data without a name is no member's", "-", true, "a", ""},
		{"data with an empty name is no member's", "", true, "a", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, memberFile)
			if tt.file != "-" {
				if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// A folder alone is no byte: etcd makes it first.
			folder := filepath.Join(dir, "etcd", "member")
			if tt.data {
				folder = filepath.Join(folder, "wal")
			}
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			err := claimDir(dir, tt.start)
			if tt.want == "" {
				if !errors.Is(err, ErrOtherMember) {
					t.Errorf("error is %v", err)
				}
				return
			}
			text, rerr := os.ReadFile(file)
			if tt.data && errors.Is(rerr, os.ErrNotExist) {
				text, rerr = []byte(memberName), nil // as every release takes it
			}
			if err != nil || rerr != nil || strings.TrimSpace(string(text)) != tt.want {
				t.Errorf("%q, %v, %v; want %q", text, err, rerr, tt.want)
			}
		})
	}
}
