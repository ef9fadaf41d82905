//go:build goexperiment.jsonv2

package trivy

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestADamagedMemoryIsNotBelieved: whatever stands in the memo, a report is right.
func TestADamagedMemoryIsNotBelieved(t *testing.T) {
	img := variety(t)[1]
	r := request(t, protocol.Image, laidOut(t, img), protocol.Secrets, protocol.Licenses)
	want := run(t, r)
	r.Memo = filepath.Join(t.TempDir(), "memo")
	run(t, r)
	whole, err := os.ReadFile(r.Memo)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 8))
	for range 40 {
		b := bytes.Clone(whole)
		if random.IntN(4) == 0 {
			b = b[:random.IntN(len(b))]
		} else {
			b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
		}
		if err := os.WriteFile(r.Memo, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got := run(t, r)
		got.Notes = slices.DeleteFunc(got.Notes, func(n string) bool { return strings.Contains(n, "memo of scans") })
		differ(t, "damaged", got, want)
	}

	// Records with right checksums that are no records, or those of other layers.
	if err := os.WriteFile(r.Memo, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	a, done := artifactOf(t, r)
	config, err := a.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	m, diffs := a.memory.layers, config.RootFS.DiffIDs
	first, _ := diffOf(diffs[0])
	record, ok := m.memo.Get(m.result(first, 0))
	if !ok {
		t.Fatal("the first layer is not remembered")
	}
	for i, d := range diffs {
		diff, _ := diffOf(d)
		switch i {
		case 0:
			m.memo.Put(m.result(diff, 0), nil)
		case 1:
			m.memo.Put(m.result(diff, 0), record)
		case 2:
			m.memo.Put(m.result(diff, 0), append(bytes.Clone(record[:len(record)-1]), 0))
		default:
			m.memo.Put(m.result(diff, 0), bytes.Repeat([]byte{0xff}, 100))
		}
	}
	for _, d := range diffs {
		if m.get(d) != nil {
			t.Errorf("a record that is none is believed of %s", d)
		}
	}
	done()
	differ(t, "poisoned", run(t, r), want)
	differ(t, "after it", run(t, r), want)
}

// TestLargeResultsAreRememberedInParts, and a part that is missing makes it none.
func TestLargeResultsAreRememberedInParts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 9))
	var entries []entry
	for i := range 60 {
		var text strings.Builder
		for text.Len() < 60_000 {
			fmt.Fprintf(&text, "%x ", random.Uint64())
		}
		entries = append(entries, entry{name: fmt.Sprintf("srv/%d/NOTICE", i), body: text.String()})
	}
	r := request(t, protocol.Image, saved(t, image(t, archive(t, entries...))), protocol.Licenses)
	want := run(t, r)
	if len(want.Texts) != 60 {
		t.Fatalf("%d texts", len(want.Texts))
	}
	r.Memo = filepath.Join(t.TempDir(), "memo")
	run(t, r)
	got := run(t, r)
	differ(t, "in parts", got, want)
	if got.Stats.Remembered == 0 || !reflect.DeepEqual(got.Texts, want.Texts) {
		t.Errorf("%d files were remembered", got.Stats.Remembered)
	}
	a, done := artifactOf(t, r)
	config, err := a.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	m := a.memory.layers
	diff, _ := diffOf(config.RootFS.DiffIDs[0])
	if _, ok := m.memo.Get(m.result(diff, 1)); !ok {
		t.Fatal("it is in one part")
	}
	m.memo.Put(m.result(diff, 1), []byte("gone"))
	if m.get(config.RootFS.DiffIDs[0]) != nil {
		t.Error("what is left of a record is believed")
	}
	done()
	differ(t, "without a part", run(t, r), want)
	// The memo keeps to its limit whatever is to be remembered.
	r.MemoLimit = 1 << 20
	r.Memo = filepath.Join(t.TempDir(), "small")
	for range 2 {
		differ(t, "without room", run(t, r), want)
	}
	if info, err := os.Stat(r.Memo); err == nil && info.Size() > r.MemoLimit {
		t.Errorf("the memo has %d bytes", info.Size())
	}
}

// TestNamesThatJSONCannotHold: such a layer is looked at each time.
func TestNamesThatJSONCannotHold(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := "TOKEN=" + githubToken()
	for _, name := range []string{"srv/\xff.env", "srv/\xfe.env"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(body)), Format: tar.FormatGNU}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := request(t, protocol.Image, saved(t, image(t, b.Bytes())), protocol.Secrets)
	want := run(t, r)
	r.Memo = filepath.Join(t.TempDir(), "memo")
	for range 2 {
		differ(t, "odd names", run(t, r), want)
	}
	a, done := artifactOf(t, r)
	defer done()
	config, err := a.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if a.memory.layers.get(config.RootFS.DiffIDs[0]) != nil {
		t.Error("it is remembered")
	}
}
