package integrity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// What is shown is what the tools print that set it.
func TestXattrTextIsThatOfTheTools(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	get := func(name string) *filehash.Xattr {
		buf := make([]byte, 1024)
		n, err := unix.Getxattr(file, name, buf)
		if err != nil {
			t.Fatal(err)
		}
		return &filehash.Xattr{Name: name, Value: buf[:n]}
	}
	t.Run("acl", func(t *testing.T) {
		if _, err := exec.LookPath("setfacl"); err != nil {
			t.Skip("NOT RUN: setfacl is not installed (package acl, see make test)")
		}
		if out, err := exec.Command("setfacl", "-m", "u:1234:rw,g:77:x", file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := "user::rw-,user:1234:rw-,group::r--,group:77:--x,mask::rwx,other::---"
		if got := xattrText(get("system.posix_acl_access")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("caps", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("NOT RUN: only root may set capabilities")
		}
		if _, err := exec.LookPath("setcap"); err != nil {
			t.Skip("NOT RUN: setcap is not installed (package libcap2-bin, see make test)")
		}
		for _, caps := range []string{"cap_net_raw=ep", "cap_net_bind_service,cap_sys_admin=p", "cap_bpf=eip", "cap_checkpoint_restore=i"} {
			if out, err := exec.Command("setcap", caps, file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			out, err := exec.Command("getcap", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(strings.TrimPrefix(string(out), file))
			if got := xattrText(get("security.capability")); got != want {
				t.Errorf("got %s, getcap prints %s", got, want)
			}
		}
	})
	t.Run("other", func(t *testing.T) {
		for value, want := range map[string]string{"plain\x00": `user.x="plain"`, "\xff\n": "user.x=0xff0a"} {
			if got := xattrText(&filehash.Xattr{Name: "user.x", Value: []byte(value)}); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		if got := xattrText(nil); got != "none" {
			t.Error(got)
		}
	})
}

// Attribute values come from whoever wrote them.
func FuzzXattrText(f *testing.F) {
	f.Add("security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add("system.posix_acl_access", []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		text := xattrText(&filehash.Xattr{Name: name, Value: value})
		if text == "" && len(value) > 4 && name != "security.capability" {
			t.Errorf("%q = %x shows nothing", name, value)
		}
	})
}
