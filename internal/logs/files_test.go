package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/format"
)

// What a line is about is known also of compressed files, and of what comes
// through a pipe, compressed or not.
func TestFieldsOfFiles(t *testing.T) {
	text := []byte("Nov 20 09:00:00 web1 sshd[1]: Accepted password for bob from 192.0.2.7 port 1 ssh2\n" +
		"Nov 20 09:00:01 web1 sshd[2]: Accepted password for ada from 192.0.2.8 port 1 ssh2\n")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"a.log": text, "b.log.gz": packed.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]FileOptions{
		"plain":                     {Paths: []string{filepath.Join(dir, "a.log")}},
		"compressed":                {Paths: []string{filepath.Join(dir, "b.log.gz")}},
		"through a pipe":            {Paths: []string{"-"}, Stdin: bytes.NewReader(text)},
		"compressed through a pipe": {Paths: []string{"-"}, Stdin: io.MultiReader(bytes.NewReader(packed.Bytes()[:20]), bytes.NewReader(packed.Bytes()[20:]))},
	} {
		f.Zone, f.Formats = time.UTC, format.Builtin
		var got []string
		o := Options{Query: parsed(t, "user=bob Accepted"), Since: math.MinInt64, Until: math.MaxInt64}
		r, err := SearchFiles(context.Background(), f, o, func(m Match) error {
			got = append(got, string(m.Raw))
			return nil
		})
		if err != nil || len(r.Problems) > 0 || len(got) != 1 || r.Matches != 1 {
			t.Errorf("%s: %q, %v, %v", name, got, r.Problems, err)
		}
		if f.Stdin != nil {
			continue
		}
		o.Query = parsed(t, "Accepted | count by user | sort user")
		r, err = SearchFiles(context.Background(), f, o, func(Match) error { return nil })
		if err != nil || r.Table == nil || len(r.Table.Rows) != 2 || r.Table.Rows[0][0].Format(time.UTC) != "ada" {
			t.Errorf("%s: %+v, %v", name, r.Table, err)
		}
	}
}
