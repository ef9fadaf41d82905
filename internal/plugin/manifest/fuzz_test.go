package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/mobileops/mobileops/internal/document"
)

// FuzzParse: whatever is taken for a manifest passes Check, is written so that
// it is read back equal, grew nowhere beyond itself, and can be told to people;
// whatever is not is refused with an error that can be printed.
func FuzzParse(f *testing.F) {
	f.Add(readFull(f))
	f.Add([]byte(small))
	for _, tc := range bad {
		if len(tc.text) < 4096 {
			f.Add([]byte(tc.text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			checkError(t, err)
			return
		}
		if err := m.Check(); err != nil {
			t.Fatalf("parsed, and then: %v", err)
		}
		out, err := m.Marshal()
		if err != nil {
			if len(data) > MaxBytes/4 { // a file in short form may not fit when it is written out
				return
			}
			t.Fatal(err)
		}
		back, err := Parse(out)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !reflect.DeepEqual(m, back) {
			t.Fatalf("%+v\n%+v\n%s", m, back, out)
		}
		if grew := back.Grew(m); len(grew) != 0 {
			t.Fatalf("%+v", grew)
		}
		if m.PermissionsDigest() != back.PermissionsDigest() {
			t.Fatal("another digest")
		}
		for _, l := range m.List() {
			checkPrintable(t, l.What+l.Meaning)
		}
		// An example is always YAML of the right form.
		_, err = m.Config.Validate(m.Config.Example())
		var all *document.Error
		if errors.As(err, &all) {
			for _, p := range all.Problems {
				if !strings.Contains(p.Text, "required") && !strings.Contains(p.Text, "has no value") && !strings.Contains(p.Text, "are needed") && !strings.HasPrefix(p.Text, "and ") {
					t.Fatalf("%v\n%s", err, m.Config.Example())
				}
			}
		}
		if v, err := m.Config.Validate(nil); err == nil {
			if !json.Valid(v.JSON()) {
				t.Fatalf("%s", v.JSON())
			}
			m.Permissions.Resolve(v) // may refuse, and not panic
		}
	})
}

// FuzzValidate: whatever is taken for a configuration gives JSON without its
// secrets, and places that can be resolved or are refused.
func FuzzValidate(f *testing.F) {
	m := parse(f, string(readFull(f)))
	f.Add([]byte(goodConfig))
	f.Add(m.Config.Example())
	f.Add([]byte("destinations: [{address: 'https://u:p@h.example:1', token: s3cret}]\nsocket: /run/x\nfiles: [/a, b]\n"))
	f.Add([]byte("destinations: [{address: 'a:1', token: {file: /x}}, {address: 'b:2', token: 0}]\ntls:\n"))
	f.Add([]byte("a: &a [*a]\n---\nb: c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := m.Config.Validate(data)
		if err != nil {
			checkError(t, err)
			return
		}
		out := v.JSON()
		if !json.Valid(out) {
			t.Fatalf("%s", out)
		}
		if bytes.Contains(out, []byte(`"token"`)) {
			t.Fatalf("a secret in %s", out)
		}
		for _, name := range v.Secrets() {
			s, ok := v.Secret(name)
			if !ok || (s.Literal == "") == (s.File == "") {
				t.Fatalf("%s: %t %v", name, ok, s)
			}
		}
		for _, path := range []string{"destinations[].address", "socket", "files[]", "tls.ca"} {
			v.Lookup(path)
		}
		resolved, err := m.Permissions.Resolve(v)
		if err != nil {
			checkPrintable(t, strings.ReplaceAll(err.Error(), "\n", ""))
			return
		}
		for _, address := range resolved.Network {
			if canonical, err := parseAddress(address); err != nil || canonical != address {
				t.Fatalf("%s: %s, %v", address, canonical, err)
			}
			if !resolved.MayDial("tcp", address) {
				t.Fatalf("may not dial %s", address)
			}
		}
		for _, path := range resolved.Read {
			if err := checkPath(path); err != nil {
				t.Fatalf("%q: %v", path, err)
			}
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var all *document.Error
	if !errors.As(err, &all) || len(all.Problems) == 0 || len(all.Problems) > document.MaxProblems+1 {
		t.Fatalf("%v", err)
	}
	for _, p := range all.Problems {
		checkPrintable(t, p.Error())
	}
}

// checkPrintable refuses what a terminal would take for a command.
func checkPrintable(t *testing.T, s string) {
	t.Helper()
	for _, c := range s {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			t.Fatalf("%q is printed", s)
		}
	}
}
