package source

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestLogrotate rotates with logrotate itself, in each of its ways, while a
// collector follows and others come by.
func TestLogrotate(t *testing.T) {
	if _, err := exec.LookPath("logrotate"); err != nil {
		t.Skip("logrotate is not installed: its ways of rotating are not tried")
	}
	for _, ways := range []string{
		"create", "copytruncate", "create\ncompress", "copytruncate\ncompress", "create\ncompress\ndelaycompress",
		"create\ndateext\ndateformat -%Y%m%d-%s", "copytruncate\ndateext\ndateformat -%Y%m%d-%s\ncompress", "copy\nnocompress",
		"create\ncompress\ncompresscmd /usr/bin/xz\ncompressext .xz", "create\nolddir old\ncreateolddir 755 root root",
	} {
		t.Run(ways, func(t *testing.T) {
			h := newHost(t, "app.log", "old/app.log")
			if err := os.Chmod(h.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			h.write("rotate.conf", fmt.Sprintf("%s {\nrotate 50\nsu root root\nmissingok\n%s\n}\n", h.path("app.log"), ways))
			if err := os.Chmod(h.path("rotate.conf"), 0o644); err != nil {
				t.Fatal(err)
			}
			n := 0
			write := func() {
				h.append("app.log", numbered(n, n+37))
				n += 37
			}
			rotate := func() {
				cmd := exec.Command("logrotate", "--force", "--state", h.path("state"), h.path("rotate.conf"))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("logrotate: %v\n%s", err, out)
				}
			}
			date := strings.Contains(ways, "dateext") // names of one second are the same
			rounds := 6
			if date {
				rounds = 2
			}
			for i := range rounds {
				write()
				if i%2 == 0 {
					h.once()
				}
				write()
				rotate()
				if date {
					time.Sleep(time.Second)
				}
			}
			h.once()
			h.expect(n)
			_, stop := h.follow()
			for range rounds {
				write()
				time.Sleep(20 * time.Millisecond)
				write()
				rotate()
				if date {
					time.Sleep(time.Second)
				}
			}
			write()
			h.eventually(n)
			stop()
			h.once()
			h.expect(n)
		})
	}
}
