package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

func TestAttacksAreRefused(t *testing.T) {
	met := map[Code]bool{}
	for _, a := range attacks() {
		packed := map[string][]byte{"": a.packed}
		if a.entries != nil {
			packed = map[string][]byte{"gzip": rawtar.Gzip(rawtar.Archive(a.entries...)), "zstd": rawtar.Zstd(rawtar.Archive(a.entries...))}
		}
		for how, data := range packed {
			_, err := readArchive(t, data, a.limits)
			if got := codeOf(err); got != a.code {
				t.Errorf("%s %s: %s, want %s: %v", a.what, how, got, a.code, err)
				continue
			}
			if k := failure.KindOf(err); k != failure.Untrustworthy || k.Status() != 5 {
				t.Errorf("%s: kind %v", a.what, k)
			}
			text := err.Error()
			if !strings.Contains(text, string(a.code)) || !strings.Contains(text, "(") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x9b || r == 0x202e || r == 0xfffd }) {
				t.Errorf("%s: %q", a.what, text)
			}
		}
		met[a.code] = true
	}
	for _, c := range Codes() {
		if !met[c] && c != CodeManifest { // that is for whoever reads manifests
			t.Errorf("no attack is refused as %s", c)
		}
	}
}

// TestErrorsNameWhereItIs: an operator, and who made the package, find it.
func TestErrorsNameWhereItIs(t *testing.T) {
	_, err := readArchive(t, rawtar.Gzip(rawtar.Archive(rawtar.File("good"), rawtar.File("bad\nname"))), Limits{})
	var e *Error
	if !errors.As(err, &e) || e.Entry != "bad\nname" || e.Offset != 1024 || e.Packed {
		t.Fatalf("%+v", err)
	}
	if want := `package refused: path-bytes: "bad\nname": a control character, at byte 1024 of the archive (ask the publisher to build it again without that entry)`; err.Error() != want {
		t.Errorf("%s\nwant\n%s", err, want)
	}
}

// TestSourceErrorsArePassedOn: a disk that fails is no bad package.
func TestSourceErrorsArePassedOn(t *testing.T) {
	broken := errors.New("input/output error")
	for _, data := range [][]byte{rawtar.Gzip(rawtar.Archive(rawtar.File("a"))), rawtar.Zstd(rawtar.Archive(rawtar.File("a")))} {
		for _, n := range []int{0, 3, 10, len(data) / 2, len(data) - 1, len(data)} {
			src := io.MultiReader(bytes.NewReader(data[:n]), failing{broken})
			r, err := NewReader(src, Limits{}, Rules{})
			for err == nil {
				_, err = r.Next()
			}
			if r != nil {
				r.Close()
			}
			if !errors.Is(err, broken) || failure.KindOf(err) != failure.Failed {
				t.Errorf("after %d bytes of %d: %v", n, len(data), err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestEveryCutIsRefused cuts small packages at every byte.
func TestEveryCutIsRefused(t *testing.T) {
	unpacked := rawtar.Archive(rawtar.File("name"), rawtar.Dir("bin/"), rawtar.File("bin/a"), rawtar.Symlink("bin/b", "a"))
	for name, data := range map[string][]byte{"gzip": rawtar.Gzip(unpacked), "zstd": rawtar.Zstd(unpacked), "zstd without checksum": rawtar.Zstd(unpacked, zstd.WithEncoderCRC(false))} {
		if all, err := readArchive(t, data, Limits{}); err != nil || len(all) != 4 {
			t.Fatalf("%s: %v, %d entries", name, err, len(all))
		}
		for n := range data {
			if _, err := readArchive(t, data[:n], Limits{}); codeOf(err) != CodeTruncated {
				t.Errorf("%s: cut at %d of %d: %v", name, n, len(data), err)
			}
		}
	}
	// The archive itself, packed as it should be.
	for n := 0; n < len(unpacked); n += 7 {
		if _, err := readArchive(t, rawtar.Gzip(unpacked[:n]), Limits{}); codeOf(err) != CodeTruncated {
			t.Errorf("archive cut at %d of %d: %v", n, len(unpacked), err)
		}
	}
}

// TestEveryFlippedBitIsRefusedOrChangesNothing flips every bit of small
// packages that have checksums.
func TestEveryFlippedBitIsRefusedOrChangesNothing(t *testing.T) {
	unpacked := rawtar.Archive(rawtar.File("name"), rawtar.Dir("bin/"), rawtar.File("bin/a"), rawtar.Symlink("bin/b", "a"))
	for name, data := range map[string][]byte{"gzip": rawtar.Gzip(unpacked), "zstd": rawtar.Zstd(unpacked)} {
		want, err := readArchive(t, data, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		same, refused := 0, 0
		for i := range data {
			for bit := range 8 {
				data[i] ^= 1 << bit
				got, err := readArchive(t, data, Limits{})
				data[i] ^= 1 << bit
				var e *Error
				switch {
				case errors.As(err, &e):
					refused++
				case err != nil:
					t.Errorf("%s: bit %d of byte %d: %v", name, bit, i, err)
				case fmt.Sprint(got) != fmt.Sprint(want):
					t.Errorf("%s: bit %d of byte %d makes another package of it", name, bit, i)
				default:
					same++
				}
			}
		}
		t.Logf("%s: %d refused, %d the same", name, refused, same)
	}
}
