package license

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// Copyright files as Debian's packages have them.
func TestParseDebian(t *testing.T) {
	for name, want := range map[string]struct {
		machine   bool
		license   string
		copyright []string
		common    []string
		texts     []string
	}{
		"b3sum":            {true, "CC0-1.0 OR Apache-2.0", []string{"2020 Jack O'Connor <oconnor663@gmail.com>", "2020 Samuel Neves"}, []string{"Apache-2.0", "CC0-1.0"}, []string{"Apache-2.0", "CC0-1.0"}},
		"distro-info-data": {true, "ISC", []string{"2009-2023, Benjamin Drung <bdrung@debian.org>", "2009-2021, Stefano Rivera <stefanor@debian.org>"}, nil, []string{"ISC"}},
		"libjansi-java":    {true, "Apache-2.0", []string{"2009-2017 the original author(s)"}, []string{"Apache-2.0"}, []string{"Apache-2.0"}},
		"libpaper1":        {false, "", []string{"Copyright (C) 1995, 1996, Yves Arrouye <yves@debian.org>", "2000, 2001, Adrian Bunk <bunk@fs.tum.de>"}, []string{"GPL-2"}, nil},
		"media-types":      {true, "LicenseRef-ad-hoc", []string{"public-domain"}, nil, []string{"ad-hoc"}},
		"tzdata":           {true, "LicenseRef-public-domain", []string{"The Internet Assigned Numbers Authority (IANA)"}, nil, []string{"public-domain"}},
	} {
		content, err := os.ReadFile("testdata/debian/" + name + ".copyright")
		if err != nil {
			t.Fatal(err)
		}
		d, err := ParseDebian(content)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Machine != want.machine || d.Expression().String() != want.license || !slices.Equal(d.Copyright, want.copyright) || !slices.Equal(d.Common, want.common) || !slices.Equal(d.Texts, want.texts) {
			t.Errorf("%s: %+v, %s\nwant %+v", name, d, d.Expression(), want)
		}
	}
}

func TestDebianNames(t *testing.T) {
	for in, want := range map[string]string{
		"GPL-2+ or Artistic-2.0, and BSD-3-clause": "(GPL-2.0-or-later OR Artistic-2.0) AND BSD-3-Clause",
		"GPL-1+ or Artistic":                       "GPL-1.0-or-later OR Artistic-1.0-Perl",
		"GPL-2+ with OpenSSL exception":            "GPL-2.0-or-later WITH cryptsetup-OpenSSL-exception",
		"permissive":                               "LicenseRef-permissive",
		"MPL-1.1 or GPL-2+ or LGPL-2.1+":           "MPL-1.1 OR GPL-2.0-or-later OR LGPL-2.1-or-later",
	} {
		if got := debianName(in).String(); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestDebianLimits(t *testing.T) {
	for name, content := range map[string]string{
		"size":       strings.Repeat("x", maxDebianFile+1),
		"paragraphs": "Format: x\n" + strings.Repeat("\nFiles: *\nLicense: MIT\n", maxParagraphs+1),
		"field":      "Format: x\nLicense: MIT\n" + strings.Repeat(" "+strings.Repeat("y", 1000)+"\n", maxDebianField/1000+2),
	} {
		_, err := ParseDebian([]byte(content))
		var e *DebianError
		if !errors.As(err, &e) || e.Line == 0 || failure.KindOf(err) != failure.Failed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of the packages of this machine, nearly all with a machine-readable file get an
// expression, and every file can be read.
func TestDebianHere(t *testing.T) {
	files, _ := filepath.Glob("/usr/share/doc/*/copyright")
	if len(files) < 20 {
		t.Skipf("this machine has %d copyright files of Debian: too few to say anything", len(files))
	}
	machine, expressions, owners := 0, 0, 0
	for _, f := range files[:min(len(files), 1500)] {
		content, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		d, err := ParseDebian(content)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if d.Machine {
			machine++
			if e := d.Expression(); e != nil {
				expressions++
				if _, err := Parse(e.String()); err != nil {
					t.Errorf("%s: %s: %v", f, e, err)
				}
			}
		}
		if len(d.Copyright) > 0 {
			owners++
		}
	}
	t.Logf("%d files, %d of them machine-readable, %d with an expression, %d say whose it is", len(files), machine, expressions, owners)
	if expressions*100 < machine*97 || owners*100 < len(files)*75 {
		t.Errorf("of %d machine-readable files %d have an expression; of %d files %d say whose it is", machine, expressions, len(files), owners)
	}
}

func FuzzParseDebian(f *testing.F) {
	files, _ := filepath.Glob("testdata/debian/*")
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte("Format: x\nLicense: a or b, and c with d\n x\n\nFiles: debian/*\n\xff: y\nCopyright:\n (c) 2020 x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := ParseDebian(content)
		if err != nil {
			return
		}
		if len(d.Copyright) > 3*maxCopyrightLines {
			t.Fatalf("%d lines", len(d.Copyright))
		}
		if e := d.Expression(); e != nil {
			_ = e.String()
		}
	})
}
