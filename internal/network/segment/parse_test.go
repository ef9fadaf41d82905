package segment

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

const formatDoc = "../../../docs/formats/segments.md"

// examples are the documents in the description of the format.
func examples(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile(formatDoc)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1])
	}
	if len(list) < 4 {
		t.Fatalf("only %d examples in %s", len(list), formatDoc)
	}
	return list
}

func TestExamplesOfTheFormat(t *testing.T) {
	for _, text := range examples(t) {
		doc, err := Parse("example.yaml", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if _, err := Arrange([]*Document{doc}, Given{}); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		roundTrip(t, doc)
	}
}

// TestEveryKeyIsDescribed holds the description of the format against the
// reader, both ways round.
func TestEveryKeyIsDescribed(t *testing.T) {
	text, err := os.ReadFile(formatDoc)
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		described[m[1]] = true
	}
	for _, keys := range [][]string{topKeys, zoneKeys, vxlanKeys, vlanKeys, dhcpKeys, reservationKeys, optionKeys, routeKeys, dnsKeys, workloadKeys, flowKeys} {
		for _, key := range keys {
			if !described[key] {
				t.Errorf("%s does not describe %s", formatDoc, key)
			}
			described[key] = true
		}
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// roundTrip holds a document against what is read of what is written of it.
func roundTrip(t testing.TB, doc *Document) {
	t.Helper()
	text := doc.YAML()
	again, err := Parse("again.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var a, b Document
	for to, from := range map[*Document]*Document{&a: doc, &b: again} {
		if err := json.Unmarshal([]byte(asJSON(t, from)), to); err != nil {
			t.Fatal(err)
		}
		for i := range to.Flows {
			to.Flows[i].Line = 0
		}
	}
	if x, y := asJSON(t, a), asJSON(t, b); x != y {
		t.Fatalf("written and read again it is something else:\n%s\n%s\n%s", x, y, text)
	}
	if again := again.YAML(); !bytes.Equal(text, again) {
		t.Fatalf("written twice:\n%s\n%s", text, again)
	}
}

// TestProblems reads files that are wrong, each of which says below a line of
// dashes what is to be said about it.
func TestProblems(t *testing.T) {
	files, _ := filepath.Glob("testdata/wrong/*.yaml")
	if len(files) < 5 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, want, _ := strings.Cut(string(data), "\n----\n")
		_, err = Parse("f", []byte(text+"\n"))
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: kind of %v", file, err)
			continue
		}
		if got := err.Error(); got != strings.TrimSpace(want) {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	many := func(n int, line string) string { return strings.Repeat(line, n) }
	for name, text := range map[string]string{
		"larger than":   many(1<<18, "#1234567"),
		"nested":        "version: 1\nzones: " + many(200, "{a: ") + many(200, "}"),
		"empty":         "# nothing\n",
		"second YAML":   "version: 1\n---\nversion: 1\n",
		"an alias":      "version: 1\nzones: &a {dev: {}}\nworkloads: *a\n",
		"more than 256": "version: 1\nzones:\n" + numbered(300, "  z%: {}\n"),
		"more than 8":   "version: 1\nzones:\n  dev: {subnets: [" + many(9, "10.0.0.0/24, ") + "]}\n",
	} {
		_, err := Parse("limits", []byte(text))
		if failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func numbered(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "%", string(rune('a'+i%26))+strings.Repeat("x", i/26)))
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, text := range examples(f) {
		f.Add([]byte(text))
	}
	files, _ := filepath.Glob("testdata/wrong/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := Parse("fuzz.yaml", data)
		if err != nil {
			if err.Error() == "" || failure.KindOf(err) != failure.Usage {
				t.Fatalf("error %q", err)
			}
			return
		}
		roundTrip(t, doc)
		l, err := Arrange([]*Document{doc}, Given{Seed: []byte{1}})
		if err != nil {
			return
		}
		devices := map[string]bool{}
		for _, p := range l.Ports {
			if len(p.Device) > 15 || devices[p.Device] {
				t.Fatalf("device %q", p.Device)
			}
			devices[p.Device] = true
			for _, a := range p.Addr {
				if p.Attach.Namespaced() && l.Zone(p.Zone).holds(a) != "" {
					t.Fatalf("%s has %s", p.Name, a)
				}
			}
		}
	})
}
