package grep

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/logs/packed"
	"github.com/ulikunitz/xz"
)

// Whatever a file holds, the search ends, and counts the lines of what is plain
// text, in one piece or in parts.
func FuzzSearch(f *testing.F) {
	text := []byte("one error\nand another error\r\n\n\xff")
	f.Add(text)
	f.Add(append(text, 0))
	f.Add([]byte("BZh91AY&SY\xd1\xda"))
	f.Add([]byte("BZh9\x17rE8P\x90\x00\x00\x00\x00"))
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	g.Write(text)
	g.Close()
	f.Add(bytes.Clone(b.Bytes()))
	b.Reset()
	z, _ := zstd.NewWriter(&b)
	z.Write(text)
	z.Close()
	f.Add(bytes.Clone(b.Bytes()))
	b.Reset()
	x, _ := xz.NewWriter(&b)
	x.Write(text)
	x.Close()
	f.Add(bytes.Clone(b.Bytes()))
	p := compile(f, "error", match.Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		count := func(o Options) int64 {
			o.Pattern, o.Count = p, true
			var n int64
			report, err := Search(context.Background(), o, func(h *Hit) error { n += h.Count; return nil })
			if err != nil || report.Lines != n {
				t.Fatalf("%v %+v, %d lines", err, report, n)
			}
			return n
		}
		stream := count(Options{Paths: []string{"-"}, Stdin: bytes.NewReader(data)})
		path := t.TempDir() + "/file"
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		parts := count(Options{Paths: []string{path}, Workers: 3, partBytes: 7, bufferBytes: 5, maxLine: MaxLine})
		if stream != parts {
			t.Fatalf("%d lines through a pipe, %d in parts", stream, parts)
		}
		if packed.How(data) != "" || binary(data) {
			return
		}
		var want int64
		for l := range bytes.Lines(data) {
			if bytes.Contains(l, []byte("error")) {
				want++
			}
		}
		if stream != want {
			t.Fatalf("%d lines, want %d", stream, want)
		}
	})
}
