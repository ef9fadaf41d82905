package pluginsdk

import (
	"errors"
	"strings"
	"testing"
)

func TestHookEvents(t *testing.T) {
	long := `{"type":"gap","id":"` + strings.Repeat("a", MaxLine-22) + `"}`
	if len(long) != MaxLine {
		t.Fatal(len(long))
	}
	for name, tc := range map[string]struct {
		in   string
		want int
		err  string
	}{
		"nothing":         {"", 0, ""},
		"two":             {`{"type":"gap","lost":3}` + "\n\n" + `{"type":"new","x":{}}` + "\r\n", 2, ""},
		"no last newline": {`{"type":"gap"}`, 1, ""},
		"longest":         {long + "\n" + long, 2, ""},
		"too long":        {`{}` + "\n" + long + " x\n", 1, "more than"},
		"far too long":    {strings.Repeat(long, 3), 0, "more than"},
		"broken":          {"{}\n\nnonsense\n{}\n", 1, "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			var last error
			for e, err := range HookEvents(strings.NewReader(tc.in)) {
				if last != nil {
					t.Fatal("it goes on after an error")
				}
				if last = err; err == nil {
					n++
					_ = e
				}
			}
			if n != tc.want || (last == nil) != (tc.err == "") || last != nil && !strings.Contains(last.Error(), tc.err) {
				t.Errorf("%d events, %v", n, last)
			}
		})
	}
}

func TestReadHookCommand(t *testing.T) {
	h, err := ReadHookCommand(strings.NewReader(`{"command":"update apply","args":["--x"]}` + "\n"))
	if err != nil || h.Command != "update apply" || h.Args[0] != "--x" || h.Status != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err = ReadHookCommand(strings.NewReader(`{"command":"update apply","args":[],"status":0}`)); err != nil || h.Status == nil || *h.Status != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := ReadHookCommand(strings.NewReader(strings.Repeat(" ", MaxLine+1))); !errors.Is(err, ErrLineTooLong) {
		t.Error(err)
	}
}

func FuzzHookEvents(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"finding","time":"2026-01-02T03:04:05.6Z","change":"opened","finding":{"rule":"r","severity":"low","subject":"a\ufffd","subject_b64":"Yf8="}}` + "\n"))
	f.Add([]byte(`{"type":"audit","audit":{"sequence":1,"args":["x"],"args_b64":["/w=="],"elapsed_ms":-1}}` + "\n{\"type\":\"gap\",\"lost\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ended := false
		for e, err := range HookEvents(strings.NewReader(string(data))) {
			if ended {
				t.Fatal("it goes on after an error")
			}
			if ended = err != nil; err != nil {
				continue
			}
			// What was read can be written, and is read as the same again.
			again := roundTrip(t, e)
			if again.ID != e.ID || again.Type != e.Type || (again.Finding == nil) != (e.Finding == nil) || (again.Audit == nil) != (e.Audit == nil) {
				t.Errorf("%+v became %+v", e, again)
			}
			if e.Finding != nil && again.Finding.Subject != e.Finding.Subject {
				t.Errorf("subject %q became %q", e.Finding.Subject, again.Finding.Subject)
			}
		}
	})
}
