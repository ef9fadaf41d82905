package integrity

import (
	"bytes"
	"encoding/json"
	"testing"

	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestReportIsLossless: a path, where it was, and the target of a link are
// bytes. Each can be had back from the document, which is as its schema says.
func TestReportIsLossless(t *testing.T) {
	r := &engine.Report{Changes: []engine.Change{
		{Path: []byte("/a\xff"), Kind: engine.Changed, Attributes: []engine.Attribute{{Name: "target", Old: "x\xfe", New: "x\xff"}, {Name: "mode", Old: "0644", New: "0600"}}},
		{Path: []byte("/b"), From: []byte("/c\xff"), Kind: engine.Moved},
	}}
	r.Baseline.ID = "00112233445566ff"
	text, err := json.Marshal(newCheckReport(r))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile("../../../testdata/schema/integrity_check.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	var got struct {
		Changes []struct {
			PathB64    []byte `json:"path_b64"`
			FromB64    []byte `json:"from_b64"`
			Attributes []struct {
				Name   string
				Old    string
				OldB64 []byte `json:"old_b64"`
				NewB64 []byte `json:"new_b64"`
			}
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	link, moved := got.Changes[0], got.Changes[1]
	if string(link.PathB64) != "/a\xff" || string(moved.FromB64) != "/c\xff" || moved.Attributes == nil {
		t.Errorf("%s", text)
	}
	if a := link.Attributes[0]; string(a.OldB64) != "x\xfe" || string(a.NewB64) != "x\xff" {
		t.Errorf("the targets are lost: %s", text)
	}
	if a := link.Attributes[1]; a.Old != "0644" || a.OldB64 != nil {
		t.Errorf("%s", text)
	}
}
