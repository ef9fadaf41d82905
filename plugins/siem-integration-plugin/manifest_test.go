package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// TestManifest: mobileops reads plugin.yaml, and the example in README.md is a
// configuration that it and the plugin take.
func TestManifest(t *testing.T) {
	data, err := os.ReadFile("plugin.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := bytes.Cut(readme, []byte("```yaml\n"))
	example, _, _ = bytes.Cut(example, []byte("```"))
	values, err := m.Config.Validate(example)
	if err != nil {
		t.Fatal(err)
	}
	var s settings
	if err := json.Unmarshal(values.JSON(), &s); err != nil {
		t.Fatal(err)
	}
	if s.QueueSize != 1<<30 || len(s.Destinations) != 5 {
		t.Errorf("%+v", s)
	}
	for i := range s.Destinations {
		if err := s.Destinations[i].Check("destinations"); err != nil {
			t.Error(err)
		}
	}
	if got := len(values.Lookup("destinations[].address")) + len(values.Lookup("destinations[].url")); got != 5 {
		t.Errorf("permissions of the network have %d addresses of 5", got)
	}
}
