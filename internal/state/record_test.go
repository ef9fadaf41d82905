package state

import (
	"errors"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// TestForm: what a record of a form may be, and what is said of every other.
func TestForm(t *testing.T) {
	type record struct {
		Version int    `json:"v"`
		Name    string `json:"name"`
	}
	for _, tc := range []struct {
		name, text string
		strict     bool
		want       string
	}{
		{"good", `{"v":1,"name":"a"}`, true, ""},
		{"older", `{"v":1,"name":"a"}`, false, ""},
		{"unknown member", `{"v":2,"name":"a","later":1}`, false, ""},
		{"unknown member", `{"v":2,"name":"a","later":1}`, true, `thing x: json: unknown field "later"`},
		{"newer", `{"v":3,"name":7}`, false, "thing x: format 3 was written by a newer mobileops"},
		{"no version", `{"name":"a"}`, false, "thing x: it has no version"},
		{"version below", `{"v":0}`, false, "thing x: it has no version"},
		{"cut", `{"v":1,"name":"a"`, false, "thing x: byte 17: unexpected end of JSON input"},
		{"nothing", ``, false, "thing x: byte 0: unexpected end of JSON input"},
		{"trailing", `{"v":1}{}`, false, "thing x: byte 8: invalid character '{' after top-level value"},
		{"type", `{"v":1,"name":7}`, false, "thing x: byte 15: json: cannot unmarshal number into Go struct field record.name of type string"},
		{"long", `{"v":1,"name":"` + strings.Repeat("a", 100) + `"}`, false, "thing x: 117 bytes are more than it may have"},
	} {
		var r record
		err := Form{Version: 2, MaxBytes: 50, Strict: tc.strict}.Read("thing x", []byte(tc.text), &r)
		if tc.want == "" {
			if err != nil || r.Name != "a" {
				t.Errorf("%s: %v, %+v", tc.name, err, r)
			}
			continue
		}
		if e := (*DecodeError)(nil); !errors.As(err, &e) || e.Error() != tc.want || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID("C-")
		if rest, ok := strings.CutPrefix(id, "C-"); !ok || len(rest) != 6 || strings.Trim(rest, IDAlphabet) != "" {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	if len(seen) < 998 { // 30 bits: two of a thousand are equal once in two thousand runs
		t.Errorf("%d of 1000 differ", len(seen))
	}
}
