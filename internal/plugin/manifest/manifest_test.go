package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

func readFull(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, text string) *Manifest {
	t.Helper()
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return m
}

func TestMarshalIsReadBack(t *testing.T) {
	for name, text := range map[string]string{"full": string(readFull(t)), "small": small} {
		m := parse(t, text)
		out, err := m.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back := parse(t, string(out))
		if !reflect.DeepEqual(m, back) {
			t.Errorf("%s: read back as\n%+v\nof\n%s\ninstead of\n%+v", name, back, out, m)
		}
		again, err := back.Marshal()
		if err != nil || !bytes.Equal(out, again) {
			t.Errorf("%s: %v, or written in another way the second time:\n%s\n%s", name, err, out, again)
		}
	}
}

const small = `schema: mobileops.plugin/v1
name: small
version: 0.1.0
summary: A small one
licence: MIT
commands: [{name: run, summary: Run it}]
`

func TestJSONIsReadBack(t *testing.T) {
	m := parse(t, string(readFull(t)))
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	back := new(Manifest)
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, back) {
		t.Errorf("%s\n%+v\n%+v", data, m, back)
	}
}

func BenchmarkParse(b *testing.B) {
	data := readFull(b)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
