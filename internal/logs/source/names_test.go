package source

import (
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/packed"
)

func TestStem(t *testing.T) {
	for name, want := range map[string]string{
		"auth.log":                         "auth.log",
		"auth.log.1":                       "auth.log",
		"auth.log.2.gz":                    "auth.log",
		"auth.log.gz":                      "auth.log",
		"syslog.10.xz":                     "syslog",
		"syslog-20261122":                  "syslog",
		"syslog-20261122.zst":              "syslog",
		"messages-2026-11-22":              "messages",
		"messages-20261122-061010":         "messages",
		"messages-2026112206":              "messages",
		"app.log-20261122-1763790000":      "app.log",
		"messages-1763790000":              "messages",
		"app-20261122.log":                 "app.log",
		"app-20261122.log.gz":              "app.log",
		"0.log":                            "0.log",
		"0.log.20261122-061010":            "0.log",
		"0.log.20261122-061010.gz":         "0.log",
		"app.log.bak":                      "app.log",
		"app.log~":                         "app.log",
		"Xorg.0.log":                       "Xorg.0.log",
		"Xorg.0.log.old":                   "Xorg.0.log",
		"postgresql-15-main.log":           "postgresql-15-main.log",
		"dovecot.log-20261122":             "dovecot.log",
		"20261122":                         "20261122",
		".1":                               ".1",
		"app-123456789.log":                "app-123456789.log",
		"/var/log/2026-11-22/app.log.1.gz": "/var/log/2026-11-22/app.log",
	} {
		got, rotated := Stem(name)
		if got != want || rotated != (want != name) {
			t.Errorf("%s is %s, %t; it should be %s", name, got, rotated, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/var/log/*.log", "/var/log/a.log", true},
		{"/var/log/*.log", "/var/log/a/b.log", false},
		{"/var/log/**/*.log", "/var/log/a.log", true},
		{"/var/log/**/*.log", "/var/log/a/b/c.log", true},
		{"/var/log/{a,b{c,d}}.log", "/var/log/bd.log", true},
		{"/var/log/{a,b{c,d}}.log", "/var/log/b.log", false},
		{"/var/log/a", "/var/log/a/b/c", true},
		{"/var/log/a", "/var/log/ab", false},
		{"/var/log/[ab]?", "/var/log/ax", true},
		{"/**/x/**/y", "/a/x/b/c/y", true},
	} {
		list, err := parsePatterns([]string{c.pattern})
		if err != nil {
			t.Fatal(err)
		}
		got := false
		for _, p := range list {
			got = got || p.match(c.path)
		}
		if got != c.want {
			t.Errorf("%s matches %s: %t", c.pattern, c.path, got)
		}
	}
	if _, err := parsePatterns([]string{"/" + strings.Repeat("{a,b}", 20)}); err == nil {
		t.Error("a million alternatives are not refused")
	}
}

func FuzzCursor(f *testing.F) {
	good := fileCursor{Path: "/var/log/a\xff", Dev: 1, Ino: 2, Head: fingerprintOf([]byte("abc")), Tail: fingerprintOf([]byte("c")), Offset: 3, Size: 9, Packed: "gzip"}
	f.Add(good.encode())
	f.Add([]byte(`{"v":1,"path":"/x","head":{"len":1025,"blake3":""}}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeFileCursor(b)
		if err != nil {
			return
		}
		again, err := decodeFileCursor(c.encode())
		if err != nil {
			t.Fatalf("%s became %s: %v", b, c.encode(), err)
		}
		if again.Path != c.Path || again.Offset != c.Offset || again.Head != c.Head {
			t.Fatalf("%+v became %+v", c, again)
		}
	})
}

func FuzzStem(f *testing.F) {
	f.Add("auth.log.1.gz")
	f.Add("a-20261122-1.log")
	f.Fuzz(func(t *testing.T, name string) {
		stem, rotated := Stem(name)
		if rotated != (stem != name) || len(stem) > len(name) {
			t.Fatalf("%q: %q, %t", name, stem, rotated)
		}
	})
}

func testStart() time.Time { return time.Unix(1763790000, 0) }

func FuzzKmsg(f *testing.F) {
	f.Add([]byte("6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n"))
	f.Add([]byte("6,18446744073709551615,9223372036854775807,c;"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, _, err := parseKmsg(b, testStart()); err == nil && len(r.Raw) > len(b) {
			t.Fatal("more than there was")
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 4, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0})
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x24, 1, 9, 0, 0, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := packed.How(b); p != "" {
			if u, err := unpack(strings.NewReader(string(b)), p); err == nil {
				u.skip(1 << 20)
				u.close()
			}
		}
	})
}
