package layer

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestZerosThatAreLeftOutCostTheBudget(t *testing.T) {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("there is no tar, which writes sparse entries")
	}
	dir := t.TempDir()
	const size = 64 << 20
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"gnu", "pax"} {
		packed, err := exec.CommandContext(t.Context(), program, "--sparse", "--format="+format, "-C", dir, "-cf", "-", "a", "b", "c").Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(packed) > 1<<20 {
			t.Skipf("tar found no holes: %d bytes", len(packed))
		}
		walk := func(budget int64) (n int64, err error) {
			_, err = Walk(t.Context(), bytes.NewReader(packed), NewBudget(budget, 0), Visitor{
				File: func(_ string, _ fs.FileInfo, r io.Reader) error {
					k, err := io.Copy(io.Discard, r)
					n += k
					return err
				},
				Flaw: func(f Flaw, name string) { t.Errorf("flaw %d of %s", f, name) },
			})
			return n, err
		}
		if n, err := walk(4 * size); n != 3*size || err != nil {
			t.Errorf("%s: %d bytes, %v", format, n, err)
		}
		if n, err := walk(2*size + 1<<20); n > 2*size || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %d bytes of a budget of %d, %v", format, n, 2*size+1<<20, err)
		}
	}
}
