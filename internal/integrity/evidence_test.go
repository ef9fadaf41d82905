package integrity

import (
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// TestEvidenceOfSeveralExtendedAttributes: none of them is lost.
func TestEvidenceOfSeveralExtendedAttributes(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\ndefaults: {attributes: [xattrs, type]}\n")
	b.put("f", "x")
	b.must(unix.Setxattr(b.path("f"), "user.one", []byte("1"), 0))
	b.take()
	b.must(unix.Setxattr(b.path("f"), "user.one", []byte("2"), 0))
	b.must(unix.Setxattr(b.path("f"), "user.two", []byte("3"), 0))
	b.expect(b.compare(CompareOptions{}), "changed /f xattrs,xattrs")
	b.must(b.Store.View(t.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		if err != nil || len(list) != 1 {
			t.Fatalf("%d findings, %v", len(list), err)
		}
		f := list[0]
		if f.Evidence["xattrs.old"] != `user.one="1"; none` || f.Evidence["xattrs.new"] != `user.one="2"; user.two="3"` || !strings.HasSuffix(f.Title, ": xattrs") {
			t.Errorf("%q: %q", f.Title, f.Evidence)
		}
		return nil
	}))
}
