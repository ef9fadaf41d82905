package archive

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/archive/rawtar"
)

// TestEntriesAreToldAsTheyAre: what headers of all formats say.
func TestEntriesAreToldAsTheyAre(t *testing.T) {
	deep := strings.Repeat("directory-with-a-long-name/", 6) + "file"
	unpacked := rawtar.Archive(
		rawtar.Dir("./"),
		rawtar.Entry{Name: "hooks/before", Body: "#!/bin/sh\n", Mode: 0o755},
		rawtar.Entry{Name: "./bin/ping", Body: rawtar.Hello, Mode: 0o755},
		rawtar.Symlink("bin/p", "ping"), rawtar.Symlink("bin/q", "../lib/./x//y/"), rawtar.Symlink("here", "."), rawtar.Symlink("bin/root", ".."),
		rawtar.Dir("bin/"), // after what is in it
		rawtar.Entry{Name: "tmp", Type: '5', Mode: 0o1777}, rawtar.Entry{Name: "old/", Old: true, Mode: 0o700}, rawtar.Entry{Name: "oldfile", Old: true, Magic: strings.Repeat("\x00", 8)},
		rawtar.Entry{Name: "file", Prefix: "d/" + strings.Repeat("p", 140), Body: "x"},
		rawtar.Pax("path", deep, "size", "3", "mtime", "1500000000.25", "atime", "1", "SCHILY.ino", "7"), rawtar.Entry{Name: "short", Size: "77777777777\x00", Body: "abc"},
		rawtar.OldGNU(rawtar.Entry{Name: "././@LongLink", Type: 'L', Body: deep + "2\x00"}), rawtar.OldGNU(rawtar.Entry{Name: "x", Body: "y", Size: rawtar.Base256(1), ModTime: rawtar.Base256(1 << 40)}),
		rawtar.Entry{Name: "past", ModTime: strings.Repeat("\xff", 12)},
		rawtar.PaxOf('g', "comment", "0123456789abcdef"),
		rawtar.Pax("mtime", "-1.5"), rawtar.File("name with space. "), rawtar.Entry{Name: "mode", Mode: 0o100640},
		rawtar.Symlink("var/here", "there/../x"[:5]), rawtar.File("übung/ß"),
	)
	for how, data := range map[string][]byte{"gzip": rawtar.Gzip(unpacked), "zstd": rawtar.Zstd(append(unpacked, make([]byte, 9<<10)...))} {
		all, err := readArchive(t, data, Limits{})
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		var lines []string
		for _, e := range all {
			line := fmt.Sprintf("%s %s %o %d", e.Name, e.Kind, e.Mode, e.ModTime.Unix())
			if e.Kind == Symlink {
				line += " -> " + e.Link
			}
			if e.Kind == File {
				line += fmt.Sprintf(" %q", e.content)
			}
			lines = append(lines, line)
		}
		const usual = "1700000000"
		want := []string{
			"hooks/before file 755 " + usual + ` "#!/bin/sh\n"`,
			"bin/ping file 755 " + usual + ` "hello, world\n"`,
			"bin/p symlink 777 " + usual + " -> ping",
			"bin/q symlink 777 " + usual + " -> ../lib/./x//y/",
			"here symlink 777 " + usual + " -> .",
			"bin/root symlink 777 " + usual + " -> ..",
			"bin directory 755 " + usual,
			"tmp directory 775 " + usual,
			"old directory 700 " + usual,
			"oldfile file 644 " + usual + ` ""`,
			"d/" + strings.Repeat("p", 140) + "/file file 644 " + usual + ` "x"`,
			deep + ` file 644 1500000000 "abc"`,
			deep + `2 file 644 253402300799 "y"`,
			`past file 644 0 ""`,
			`name with space.  file 644 0 "hello, world\n"`,
			"mode file 640 " + usual + ` ""`,
			"var/here symlink 777 " + usual + " -> there",
			"übung/ß file 644 " + usual + ` "hello, world\n"`,
		}
		if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", how, got, strings.Join(want, "\n"))
		}
	}
}

// TestContentIsReadInAnyWay: whole, in parts, not at all, too late.
func TestContentIsReadInAnyWay(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 100_000)
	data := rawtar.Zstd(rawtar.Archive(rawtar.Entry{Name: "a", Body: large}, rawtar.Entry{Name: "b", Body: large}, rawtar.Entry{Name: "c", Body: large}, rawtar.File("d")))
	r, err := NewReader(bytes.NewReader(data), DefaultLimits(), Rules{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 1000)
	if _, err := io.ReadFull(a.Body, part); err != nil || string(part) != large[:1000] {
		t.Fatal(err)
	}
	b, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := a.Body.Read(part); n != 0 || !errors.Is(err, errBodyPassed) {
		t.Errorf("the body of the last entry: %d, %v", n, err)
	}
	if _, err := io.ReadFull(b.Body, part[:1]); err != nil {
		t.Fatal(err)
	}
	var rest bytes.Buffer
	if n, err := io.Copy(&rest, b.Body); err != nil || n != int64(len(large)-1) || rest.String() != large[1:] {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	d, err := r.Next()
	if err != nil || d.Name != "d" {
		t.Fatal(d, err)
	}
	for range 3 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	if n, err := a.Body.Read(part); n != 0 || err == nil || err == io.EOF {
		t.Errorf("the body of a past entry: %d, %v", n, err)
	}
}

// TestContentThatIsCutIsAnError: whoever copies a body is told.
func TestContentThatIsCutIsAnError(t *testing.T) {
	unpacked := rawtar.Archive(rawtar.Entry{Name: "a", Body: strings.Repeat("x", 5000)})
	r, err := NewReader(bytes.NewReader(rawtar.Gzip(unpacked[:3000])), Limits{}, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, e.Body); codeOf(err) != CodeTruncated {
		t.Errorf("%v", err)
	}
	if _, err := r.Next(); codeOf(err) != CodeTruncated {
		t.Errorf("%v", err)
	}
}

// TestCloseInTheMiddleStopsReading: nothing reads the source afterwards.
func TestCloseInTheMiddleStopsReading(t *testing.T) {
	noise := incompressible(8 << 20)
	for _, data := range [][]byte{rawtar.Gzip(rawtar.Archive(rawtar.Entry{Name: "a", Body: noise})), rawtar.Zstd(rawtar.Archive(rawtar.Entry{Name: "a", Body: noise}))} {
		src := bytes.NewReader(data)
		r, err := NewReader(src, Limits{}, Rules{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		left := src.Len()
		if left == 0 {
			t.Error("all was read ahead: the ring has no bound")
		}
		if _, err := r.Next(); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
		r.Close()
		if src.Len() != left {
			t.Error("the source was read after Close")
		}
	}
}

// incompressible is content that packing makes no smaller.
func incompressible(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b.Write(sum[:])
	}
	return b.String()[:n]
}

// TestManyEntriesTakeLittleMemory: per entry, and for what is remembered.
func TestManyEntriesTakeLittleMemory(t *testing.T) {
	entries := make([]rawtar.Entry, 0, 2000)
	for i := range 2000 {
		entries = append(entries, rawtar.File(fmt.Sprintf("usr/share/platform/%03d/file-%d.conf", i/20, i)))
	}
	data := rawtar.Gzip(rawtar.Archive(entries...))
	perRun := testing.AllocsPerRun(3, func() {
		r, err := NewReader(bytes.NewReader(data), Limits{}, Rules{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			if _, err := r.Next(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
	if each := perRun / 2000; each > 8 {
		t.Errorf("%.1f allocations an entry", each)
	}
}
