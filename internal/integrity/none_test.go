package integrity

import (
	"os"
	"testing"
)

// TestExistenceAlone: the attributes "none" ask for nothing else, not even for
// the kind of file; any other attribute does.
func TestExistenceAlone(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\nrules:\n  - {path: /none, attributes: none}\n  - {path: /content, attributes: content}\n")
	b.put("none/f", "x")
	b.put("none/g", "x")
	b.put("content/f", "x")
	b.take()
	for _, f := range []string{"none/f", "content/f"} {
		b.must(os.Remove(b.path(f)))
		b.must(os.Mkdir(b.path(f), 0o700))
	}
	b.must(os.Remove(b.path("none/g")))
	b.expect(b.compare(CompareOptions{}), "changed /content/f type", "removed /none/g")
	b.expect(b.compare(CompareOptions{Verify: true}), "changed /content/f type", "removed /none/g")
}
