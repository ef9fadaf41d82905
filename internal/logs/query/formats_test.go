package query

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
)

// TestFormatsTakeVerbatim holds what Verbatim promises against every record of
// the test cases of every format: whatever user, process and addresses a
// format finds, a store that leaves out what the query does not need keeps it.
func TestFormatsTakeVerbatim(t *testing.T) {
	set, err := format.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "format", "formats", "*.cases.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files of cases, %v", len(files), err)
	}
	users, addrs := 0, 0
	for _, file := range files {
		f, ok := set.Lookup(strings.TrimSuffix(filepath.Base(file), ".cases.yaml"))
		if !ok {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			Text string `yaml:"text"`
		}
		if err := yaml.Unmarshal(data, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			records, _ := f.NewReader(format.ReaderOptions{Host: "h"}).Next(nil, []byte(c.Text), true)
			for _, r := range records {
				ev := &event.Event{Record: r, Origin: &event.Origin{Source: file, Format: f.Name(), Host: "h"}, Text: r.Raw, Fill: f.Fill}
				for _, name := range []string{fieldUser, fieldPID, fieldAddr} {
					for _, value := range Values(ev, name, nil) {
						for _, fold := range []bool{false, true} {
							o := testOptions()
							o.Fold = fold
							q, err := Parse(name+"=="+quote(string(bytes.ToValidUTF8(value, nil))), o)
							if err != nil {
								t.Errorf("%s: %v", f.Name(), err)
								continue
							}
							if need := q.Need(); !satisfied(r.Raw, need) {
								t.Errorf("%s: %s is found in %q, which does not have %s", f.Name(), q, r.Raw, needText(need))
							}
							again := *ev
							again.Fill = f.Fill
							if !q.NewEvaluator().Eval(&again) {
								t.Errorf("%s: %s does not find %q", f.Name(), q, r.Raw)
							}
						}
						switch name {
						case fieldUser:
							users++
						case fieldAddr:
							addrs++
						}
					}
				}
			}
		}
	}
	if users < 30 || addrs < 30 {
		t.Errorf("%d users and %d addresses: the cases are not read", users, addrs)
	}
}
