package history

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
	bolt "go.etcd.io/bbolt"
)

type boltBucket = bolt.Bucket

// seed returns the canonical form of a record with every member.
func seed(t testing.TB) []byte {
	pub, _, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	r := act("default", "aaaa")
	r.Schema, r.Counter, r.Time, r.Signer = RecordSchema, 12, time.Date(2026, 5, 1, 12, 0, 0, 123e6, time.UTC), pub.String()
	r.Ticket, r.Report, r.Accepted, r.Kind = "OPS-1", "0123456789abcdef", 3, Acceptance
	r.AcceptedDigest[3], r.FactsDigest[4], r.OwnersDigest[5] = 1, 2, 3
	body, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestDecodeTakesOneForm(t *testing.T) {
	body := seed(t)
	r, err := Decode(body)
	if err != nil || r.Ticket != "OPS-1" || r.Accepted != 3 || r.Reason != "a <b> & ü" {
		t.Fatalf("%+v %v", r, err)
	}
	text := string(body)
	for name, other := range map[string]string{
		"space":           strings.Replace(text, `":`, `" :`, 1),
		"no newline":      strings.TrimSuffix(text, "\n"),
		"two":             text + text,
		"unknown member":  strings.Replace(text, `{`, `{"x":1,`, 1),
		"twice":           strings.Replace(text, `"counter":12,`, `"counter":11,"counter":12,`, 1),
		"other case":      strings.Replace(text, `"counter"`, `"Counter"`, 1),
		"newer":           strings.Replace(text, "record/v1", "record/v2", 1),
		"counter 0":       strings.Replace(text, `"counter":12`, `"counter":0`, 1),
		"kind":            strings.Replace(text, `"acceptance"`, `"gift"`, 1),
		"no name":         strings.Replace(text, `"name":"default",`, ``, 1),
		"signer":          strings.Replace(text, `"signer":"RW`, `"signer":"RX`, 1),
		"a key":           strings.Replace(text, `"signer":`, `"key":"x","signer":`, 1),
		"huge":            strings.Replace(text, `"reason":"`, `"reason":"`+strings.Repeat("x", maxRecord), 1),
		"not JSON":        "hello\n",
		"escaped":         strings.Replace(text, "ü", `\u00fc`, 1),
		"other time form": strings.Replace(text, "12:00:00.123Z", "12:00:00.123000Z", 1),
	} {
		var wrong *DecodeError
		if other == text {
			t.Errorf("%s: nothing was changed: %s", name, text)
		} else if _, err := Decode([]byte(other)); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, c := range [][2]string{{strings.Repeat("x", MaxReason+1), ""}, {"", strings.Repeat("x", MaxTicket+1)}, {"\xff", ""}} {
		if err := CheckReason(c[0], c[1]); failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v", c, err)
		}
	}
	if got := cut(strings.Repeat("ü", 200) + "\xff"); len(got) != 254 {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(seed(f))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"schema":"mobileops.integrity.record/v1","counter":1,"previous":""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Decode(body)
		if err != nil {
			var wrong *DecodeError
			if !errors.As(err, &wrong) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := r.marshal()
		if err != nil || !bytes.Equal(again, body) {
			t.Fatalf("two forms:\n%s%s", body, again)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(counterKey(12), encodeEntry(seed(f), []byte("untrusted comment: x\n")))
	f.Add(counterKey(1), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, k, v []byte) {
		e, err := decodeEntry(k, v)
		if err == nil && !bytes.Equal(encodeEntry(e.Body, e.Signature), v) && len(v) < 1<<14 {
			// A length can be written in more bytes than it needs.
			if _, err := decodeEntry(k, encodeEntry(e.Body, e.Signature)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
