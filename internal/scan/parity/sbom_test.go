package parity

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestSameDocuments compares the SBOMs that both write. What names a document
// itself is different each time: its number, its time, and the program.
func TestSameDocuments(t *testing.T) {
	trivyProgram(t)
	_, hashed := hashedJAR(t)
	cache := writeDatabase(t, hashed)
	for _, target := range []struct {
		name string
		kind protocol.Kind
		make func(testing.TB, string) string
	}{
		{"rootfs", protocol.Rootfs, debianTree},
		{"fs", protocol.Filesystem, tree(lockFiles["many"])},
		{"jar", protocol.Rootfs, jarTree},
		{"image", protocol.Image, func(t testing.TB, dir string) string {
			return dockerSave(t, filepath.Join(dir, "image.tar"), "parity.example.com/app:1.0", imageLayers(t)...)
		}},
		{"repo", protocol.Repository, gitTree},
	} {
		path := target.make(t, t.TempDir())
		for _, d := range []struct {
			document protocol.Document
			lines    func(testing.TB, string) []string
		}{{protocol.CycloneDX, cycloneLines}, {protocol.SPDXJSON, spdxLines}, {protocol.SPDX, tagLines}} {
			t.Run(target.name+"/"+string(d.document), func(t *testing.T) {
				line := []string{string(target.kind), path}
				if target.kind == protocol.Image {
					line = []string{string(target.kind), "--input", path}
				}
				theirs := d.lines(t, string(runTrivy(t, cache, append(line, "--format", string(d.document))...)))
				if len(theirs) < 20 {
					t.Errorf("Trivy's document has %d lines: this compares too little", len(theirs))
				}
				report := scanned(t, protocol.Scan{Kind: target.kind, Target: path, Document: d.document, JavaDatabase: filepath.Join(cache, "java-db")})
				ours := d.lines(t, report.Document)
				for _, l := range without(theirs, ours) {
					t.Errorf("only Trivy's has: %s", l)
				}
				for _, l := range without(ours, theirs) {
					t.Errorf("only ours has: %s", l)
				}
			})
		}
	}
}

// without are the lines of a that b has not, each as often as it has it not.
func without(a, b []string) (list []string) {
	n := map[string]int{}
	for _, l := range b {
		n[l]++
	}
	for _, l := range a {
		if n[l]--; n[l] < 0 {
			list = append(list, l)
		}
	}
	return list
}

// cycloneLines is a document as lines without order: one for every value with the
// way to it. References that are made up are replaced by what they refer to.
func cycloneLines(t testing.TB, document string) []string {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		t.Fatalf("%v: %.200s", err, document)
	}
	delete(d, "serialNumber")
	metadata, _ := d["metadata"].(map[string]any)
	delete(metadata, "timestamp")
	delete(metadata, "tools")
	names := map[string]string{}
	components, _ := d["components"].([]any)
	if c, ok := metadata["component"]; ok {
		components = append(slices.Clone(components), c)
	}
	for _, c := range components {
		c, _ := c.(map[string]any)
		ref, _ := c["bom-ref"].(string)
		names[ref] = strings.Join([]string{str(c["type"]), str(c["name"]), str(c["version"]), str(c["purl"])}, " ")
	}
	return flat("", d, names)
}

func spdxLines(t testing.TB, document string) []string {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		t.Fatalf("%v: %.200s", err, document)
	}
	delete(d, "documentNamespace")
	delete(d, "creationInfo")
	names := map[string]string{}
	for _, kind := range []string{"packages", "files"} {
		list, _ := d[kind].([]any)
		for _, e := range list {
			e, _ := e.(map[string]any)
			names[str(e["SPDXID"])] = strings.Join([]string{kind, str(e["name"]), str(e["fileName"]), str(e["versionInfo"])}, " ")
		}
	}
	return flat("", d, names)
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// flat are the values beneath v as "way: value". The elements of a list are told
// apart by a name that they have, not by their place.
func flat(way string, v any, names map[string]string) (lines []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			lines = append(lines, flat(way+"."+k, e, names)...)
		}
	case []any:
		for _, e := range v {
			label := ""
			if m, ok := e.(map[string]any); ok {
				for _, key := range []string{"bom-ref", "SPDXID", "ref", "spdxElementId", "name"} {
					if s := str(m[key]); s != "" {
						label = named(s, names)
						break
					}
				}
			}
			lines = append(lines, flat(way+"["+label+"]", e, names)...)
		}
	case string:
		if strings.HasSuffix(way, ".annotationDate") || strings.HasSuffix(way, ".annotator") {
			return nil
		}
		lines = append(lines, way+": "+named(v, names))
	default:
		b, _ := json.Marshal(v)
		lines = append(lines, way+": "+string(b))
	}
	slices.Sort(lines)
	return lines
}

func named(s string, names map[string]string) string {
	if n, ok := names[s]; ok {
		return "<" + n + ">"
	}
	return s
}

var spdxID = regexp.MustCompile(`SPDXRef-[A-Za-z0-9.-]+`)

// tagLines are the lines of a tag-value document, with names in place of ids.
func tagLines(t testing.TB, document string) []string {
	t.Helper()
	names, last := map[string]string{}, ""
	var lines []string
	for line := range strings.Lines(document) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "PackageName", "FileName":
			last = key + " " + value
		case "SPDXID":
			names[value] = last
		}
	}
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "DocumentNamespace:") || strings.HasPrefix(line, "Creat") {
			continue
		}
		lines = append(lines, spdxID.ReplaceAllStringFunc(line, func(id string) string { return named(id, names) }))
	}
	slices.Sort(lines)
	return lines
}
