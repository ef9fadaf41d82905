package watch

import (
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/integrity"
)

func TestTitles(t *testing.T) {
	changed := &integrity.Change{Kind: integrity.Changed, Attributes: []integrity.Attribute{{Name: "content"}, {Name: "size"}, {Name: "xattr"}, {Name: "xattr"}}}
	bash := &Process{PID: 7, Exe: "/usr/bin/bash", UID: 0}
	for _, c := range []struct {
		change *integrity.Change
		proc   *Process
		want   string
	}{
		{changed, bash, "Changed by bash (uid 0): content, size, xattr"},
		{changed, nil, "Changed by an unknown process: content, size, xattr"},
		{&integrity.Change{Kind: integrity.Added}, &Process{PID: 7, Name: "a b", UID: -1}, "Added by a b"},
		{&integrity.Change{Kind: integrity.Removed}, &Process{PID: 7, UID: -1, Exited: true}, "Removed by pid 7, which had ended"},
		{&integrity.Change{Kind: integrity.Removed}, &Process{UID: -1}, "Removed by another namespace or the kernel"},
		{&integrity.Change{Kind: integrity.Moved}, &Process{PID: 7, Exe: "/tmp/a\x1b[2J\nb", UID: 1}, `Moved by "a\x1b[2J\nb" (uid 1)`},
		{&integrity.Change{Kind: integrity.Added, Class: integrity.Suspicious, Reason: "no package owns it"}, bash, "Suspicious: no package owns it; added by bash (uid 0)"},
	} {
		if got := titleOf(c.change, c.proc); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := titleOf(changed, &Process{PID: 7, Exe: "/" + strings.Repeat("x", 4000)}); len(got) > 120 {
		t.Errorf("%d bytes", len(got))
	}
}
