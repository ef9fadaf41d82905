package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzRequests hands lines to a session as a plugin would, and looks at what it
// answers.
func FuzzRequests(f *testing.F) {
	store := newStore(f)
	grow(f, store, 0, 5)
	for _, seed := range []string{
		`{"id":1,"method":"config.get","params":{}}`,
		`{"id":2,"method":"secret.get","params":{"name":"token"}}`,
		`{"id":3,"method":"findings.list","params":{"source":"integrity","state":"open","min_severity":"low","limit":2,"after":"00000000000000000000000000000000"}}`,
		`{"id":4,"method":"findings.report","params":{"scope":"x","part":true,"findings":[{"rule":"r","severity":"low","title":"t","subject":"s","subject_b64":"/w==","evidence":{"a":"b"},"observed":"9999-12-31T23:59:59Z"}]}}`,
		`{"id":5,"method":"findings.report","params":{"scope":"x","complete":true,"findings":[]}}`,
		`{"id":6,"method":"events.subscribe","params":{"types":["finding","audit"],"from":"oldest","batch":1}}` + "\n" + `{"id":7,"method":"events.ack","params":{"cursor":"f1.a0"}}`,
		`{"id":8,"method":"dial","params":{"network":"tcp","address":"[::1]:1","timeout_ms":-1}}`,
		`{"id":9,"method":"dial","params":{"network":"unix","address":"/x"}}`,
		`{"method":"ready"}` + "\n" + `{"method":"health","params":{"status":"ok","metrics":{"a":1e308}}}`,
		`{"id":18446744073709551615,"result":{}}`, `{"id":1,"method":null}`, `[`, "{}\n\n", "null",
	} {
		f.Add([]byte(seed + "\n"))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 64<<10 {
			return
		}
		problems := 0
		s := serve(t, Options{Store: store, Config: secrets{"token": "s3cret"}, Permissions: Permissions{
			ReadFindings: true, ReportFindings: true, ReadAudit: true, FindingsFrom: []string{"integrity"}},
			OnError: func(error) { problems++ },
			OnHealth: func(h Health) {
				if hasHidden(h.Message) {
					t.Errorf("health %q", h.Message)
				}
			}})
		go func() {
			s.conn.Write(input)
			s.conn.CloseWrite()
		}()
		asked := map[uint64]bool{}
		for _, raw := range bytes.Split(input, []byte("\n")) {
			if m, err := parse(raw); err == nil && m.ID != nil {
				asked[*m.ID] = true
			}
		}
		for {
			l, err := s.try()
			if err != nil {
				var syntax *json.SyntaxError
				if errors.As(err, &syntax) || strings.Contains(err.Error(), "unknown field") {
					t.Errorf("a line of the host: %v", err)
				}
				break
			}
			if l.Method == "" && !asked[l.ID] {
				t.Errorf("an answer to %d, which nobody asked", l.ID)
			}
			if l.Method != "" && l.Method != "hello" && l.Method != "events" {
				t.Errorf("the host says %s", l.Method)
			}
		}
		if err := s.end(); err != nil && !isProtocol(err) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// FuzzLines cuts a stream that comes in pieces.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), 2)
	f.Add(bytes.Repeat([]byte("x"), 3000), 1000)
	f.Fuzz(func(t *testing.T, input []byte, piece int) {
		l := lineReader{r: &pieces{rest: input, size: max(piece, 1)}}
		var got []byte
		for {
			line, err := l.next()
			if err != nil {
				break
			}
			if len(line) > MaxLine || bytes.IndexByte(line, '\n') >= 0 {
				t.Fatalf("a line of %d bytes", len(line))
			}
			got = append(append(got, line...), '\n')
		}
		if want := input[:bytes.LastIndexByte(input, '\n')+1]; len(input) < MaxLine && !bytes.Equal(got, want) {
			t.Errorf("lines %q, want %q", got, want)
		}
	})
}

type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, errors.New("end")
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
