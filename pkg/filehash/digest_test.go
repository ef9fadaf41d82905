package filehash

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// boundaries are the sizes at which the way of hashing changes.
func boundaries() []int {
	sizes := []int{0, 1, 63, 64, 65}
	for _, n := range []int{1 << 10, 2 << 10, 8 << 10, 64 << 10, segmentBytes, 2 * segmentBytes, SplitBytes, SplitBytes + segmentBytes} {
		sizes = append(sizes, n-1, n, n+1)
	}
	return append(sizes, 3*SplitBytes, 3*SplitBytes+1023, 2*SplitBytes+segmentBytes+1025, 5*SplitBytes-1)
}

// TestDigestsAtBoundaries compares with another implementation of BLAKE3.
func TestDigestsAtBoundaries(t *testing.T) {
	root := t.TempDir()
	want := map[string]Sum{}
	for _, n := range boundaries() {
		b := pattern(n)
		name := fmt.Sprintf("/%08d", n)
		put(t, root+name, b)
		want[name] = reference(b)
	}
	// A file with holes at both ends of some data.
	sparse := make([]byte, 2*SplitBytes+777)
	copy(sparse[SplitBytes-5000:], pattern(10000))
	f, err := os.Create(root + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(pattern(10000), SplitBytes-5000)
	if err := f.Truncate(int64(len(sparse))); err != nil {
		t.Fatal(err)
	}
	f.Close()
	var st unix.Stat_t
	if unix.Stat(root+"/sparse", &st); st.Blocks*512 >= st.Size {
		t.Logf("the filesystem makes no holes: %d blocks", st.Blocks)
	}
	want["/sparse"] = reference(sparse)
	for _, jobs := range []int{0, 1, 2, 8} {
		all, _ := walkTree(t, root, Options{Jobs: jobs})
		if len(all) != len(want) {
			t.Fatalf("jobs %d: %d entries, want %d", jobs, len(all), len(want))
		}
		for name, sum := range want {
			if e := all[name]; e == nil || e.Content != Hashed || e.Sum != sum {
				t.Errorf("jobs %d: %s is %+v, want %v", jobs, name, e, sum)
			}
		}
	}
}

// differing says which files have another digest than b3sum finds.
func differing(b3sum, root string, files []string, all map[string]*seen) (wrong []string) {
	args := []string{"--no-names", "--"}
	for _, p := range files {
		args = append(args, root+p)
	}
	out, err := exec.Command(b3sum, args...).Output()
	lines := bytes.Fields(out)
	if err != nil || len(lines) != len(files) {
		return []string{fmt.Sprintf("b3sum printed %d lines for %d files: %v", len(lines), len(files), err)}
	}
	for i, p := range files {
		if got := hex.EncodeToString(all[p].Sum[:]); got != string(lines[i]) {
			wrong = append(wrong, fmt.Sprintf("%s%s: %s, b3sum says %s", root, p, got, lines[i]))
		}
	}
	return wrong
}

// unchanged returns the files that are still as they were walked.
func unchanged(t *testing.T, root string, files []string, all map[string]*seen) (same []string) {
	now, _ := walkTree(t, root, Options{Select: wants(WantEntry)})
	for _, p := range files {
		if e := now[p]; e != nil && e.Info == all[p].Info {
			same = append(same, p)
		}
	}
	return same
}

// TestDigestsAreThoseOfB3sum hashes a real tree with both.
func TestDigestsAreThoseOfB3sum(t *testing.T) {
	b3sum, err := exec.LookPath("b3sum")
	if err != nil {
		t.Skip("NOT RUN: b3sum is missing (apt-get install b3sum)")
	}
	made := t.TempDir()
	for _, n := range boundaries() {
		put(t, filepath.Join(made, "a b", fmt.Sprint(n)), pattern(n))
	}
	for _, root := range []string{"/etc", "/usr/share/doc", "/usr/sbin", made} {
		all, _ := walkTree(t, root, Options{})
		var files []string
		for p, e := range all {
			if e.Content == Hashed {
				files = append(files, p)
			}
		}
		if len(files) == 0 {
			t.Fatalf("%s: nothing was hashed", root)
		}
		slices.Sort(files)
		compared := 0
		for chunk := range slices.Chunk(files, 500) {
			// Others may change the system meanwhile: what is not as it was when it
			// was walked is left out.
			for same := chunk; len(same) > 0; {
				wrong := differing(b3sum, root, same, all)
				if len(wrong) > 0 {
					if still := unchanged(t, root, same, all); len(still) < len(same) {
						same = still
						continue
					}
				}
				for _, what := range wrong {
					t.Error(what)
				}
				compared += len(same)
				break
			}
		}
		if compared <= len(files)/2 {
			t.Errorf("%s: only %d of %d files stayed as they were", root, compared, len(files))
		}
		t.Logf("%s: %d files", root, compared)
	}
}
