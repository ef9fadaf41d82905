package threat_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
)

func update(t *testing.T, s *state.Store, fn func(tx *state.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func TestThreatsAreKept(t *testing.T) {
	s := state.New(t.TempDir(), state.Options{})
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var id string
	update(t, s, func(tx *state.Tx) error {
		added, err := threat.Add(tx, threat.Threat{
			Kind: "scanner", Severity: finding.High, Source: "anna", Reason: "scans us",
			Indicators: []threat.Indicator{{Type: threat.IP, Value: "::ffff:192.0.2.7"}, {Type: threat.IP, Value: "192.0.2.7"}, {Type: threat.Domain, Value: "Example.ORG."}},
			Expires:    now.Add(time.Hour),
		}, now)
		if err != nil {
			return err
		}
		id = added.ID
		_, err = threat.Add(tx, threat.Threat{ID: "case-17", Kind: "c2", Indicators: []threat.Indicator{{Type: threat.CIDR, Value: "10.1.2.3/8"}}}, now)
		return err
	})
	if !strings.HasPrefix(id, "T-") || len(id) != 8 {
		t.Errorf("the ID is %q", id)
	}
	update(t, s, func(tx *state.Tx) error {
		for _, typed := range []string{id, strings.ToLower(id), id[:5]} {
			got, err := threat.Get(tx, typed)
			if err != nil {
				return err
			}
			if s := fmt.Sprint(got.Indicators); s != "[ip:192.0.2.7 domain:example.org]" || got.At(now) != threat.Active || got.At(now.Add(time.Hour)) != threat.Expired {
				t.Errorf("%s: %+v", typed, got)
			}
		}
		list, err := threat.List(tx, threat.Filter{}, now)
		if len(list) != 2 || list[0].ID != id || list[1].Indicators[0].Value != "10.0.0.0/8" {
			t.Errorf("listed %+v", list)
		}
		if list, _ = threat.List(tx, threat.Filter{States: []threat.State{threat.Expired}}, now.Add(2*time.Hour)); len(list) != 1 {
			t.Errorf("expired: %+v", list)
		}
		if _, err := threat.Add(tx, threat.Threat{ID: "CASE-17", Kind: "c2", Indicators: []threat.Indicator{{Type: threat.UID, Value: "5"}}}, now); !errors.Is(err, threat.ErrExists) || failure.KindOf(err) != failure.Busy {
			t.Errorf("the same ID in capitals: %v", err)
		}
		if _, err := threat.Remove(tx, "case-17"); err != nil {
			t.Error(err)
		}
		if _, err := threat.Get(tx, "case-17"); !errors.Is(err, threat.ErrNotFound) {
			t.Errorf("removed: %v", err)
		}
		return err
	})
}

func TestIndicators(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "ip:192.0.2.7", "192.0.2.7/24": "cidr:192.0.2.0/24", "ip:2001:DB8::7": "ip:2001:db8::7",
		"cidr:::ffff:10.0.0.0/104": "cidr:10.0.0.0/8", "mac:02-00-00-00-00-AB": "mac:02:00:00:00:00:ab", "port:tcp/443": "port:443/tcp", "port:53": "port:53",
		"uid:007": "uid:7", "cgroup:/a//b/": "cgroup:/a/b", "pid:12@34": "pid:12@34", "container:web": "container:web", "interface:eth0": "interface:eth0",
		"ip:999.1.1.1": "", "ip:fe80::1%eth0": "", "port:0": "", "port:70000": "", "port:1/sctp": "", "uid:-1": "", "uid:4294967295": "", "cgroup:a": "", "pid:0": "",
		"interface:../x": "", "interface:abcdefghijklmnop": "", "domain:": "", "x:y": "", "container:a\nb": "", "cidr:::ffff:0:0/90": "",
	} {
		i, err := threat.ParseIndicator(in)
		if want == "" {
			if !errors.Is(err, threat.ErrInvalid) {
				t.Errorf("%q is %v (%v)", in, i, err)
			}
		} else if err != nil || i.String() != want {
			t.Errorf("%q is %v (%v), not %s", in, i, err, want)
		}
	}
}

func TestWhatIsStoredIsChecked(t *testing.T) {
	now := time.Now()
	ok := []threat.Indicator{{Type: threat.IP, Value: "192.0.2.7"}}
	many := make([]threat.Indicator, threat.MaxIndicators+1)
	for i := range many {
		many[i] = threat.Indicator{Type: threat.UID, Value: fmt.Sprint(i)}
	}
	for name, bad := range map[string]threat.Threat{
		"no indicator": {Kind: "x"}, "no kind": {Indicators: ok}, "kind": {Kind: "a b", Indicators: ok}, "id": {ID: "../x", Kind: "x", Indicators: ok},
		"long": {Kind: "x", Reason: strings.Repeat("x", threat.MaxText+1), Indicators: ok}, "many": {Kind: "x", Indicators: many},
		"state": {Kind: "x", State: "gone", Indicators: ok}, "bytes": {Kind: "x", Reason: "\xff", Indicators: ok},
	} {
		s := state.New(t.TempDir(), state.Options{})
		err := s.Update(context.Background(), func(tx *state.Tx) error { _, err := threat.Add(tx, bad, now); return err })
		if !errors.Is(err, threat.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// put writes a record as another program, or a damaged disk, could have.
func put(tx *state.Tx, key, value string) error {
	b, err := tx.CreateBucketIfNotExists([]byte("threats"))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), []byte(value))
}

func TestStoredForms(t *testing.T) {
	const good = `{"v":1,"id":"a","kind":"x","indicators":[{"type":"uid","value":"5"}],"severity":"low","source":"","reason":"","first_seen":"2026-01-01T00:00:00Z","last_seen":"2026-01-01T00:00:00Z","state":"active"`
	for record, readable := range map[string]bool{
		good + `}`:                 true,
		good + `,"later":{"x":1}}`: true, // a member that a later version adds
		`{"v":2,"id":"a"}`:         false,
		`{"id":"a"}`:               false,
		good:                       false,
		strings.Replace(good, `"id":"a"`, `"id":"b"`, 1) + `}`: false,
		strings.Replace(good, `"uid"`, `"later"`, 1) + `}`:     false,
	} {
		s := state.New(t.TempDir(), state.Options{})
		update(t, s, func(tx *state.Tx) error {
			if err := put(tx, "a", record); err != nil {
				return err
			}
			_, err := threat.Get(tx, "a")
			var damaged *state.DecodeError
			if readable != (err == nil) || err != nil && (failure.KindOf(err) != failure.Untrustworthy || !errors.As(err, &damaged)) {
				t.Errorf("%s: %v", record, err)
			}
			return nil
		})
	}
}

func TestProcessStart(t *testing.T) {
	mine, err := threat.ProcessStart(os.Getpid())
	parents, err2 := threat.ProcessStart(os.Getppid())
	if err != nil || err2 != nil || mine == 0 || mine < parents {
		t.Errorf("%d %v, parent %d %v", mine, err, parents, err2)
	}
	if _, err := threat.ProcessStart(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is not there: %v", err)
	}
}

func FuzzStored(f *testing.F) {
	f.Add(`{"v":1,"id":"a","kind":"x","indicators":[{"type":"uid","value":"5"}],"severity":"low","state":"active"}`)
	f.Add(`{"v":9}`)
	f.Add(`[`)
	s := state.New(f.TempDir(), state.Options{})
	f.Fuzz(func(t *testing.T, record string) {
		undone := errors.New("undone")
		err := s.Update(context.Background(), func(tx *state.Tx) error {
			if err := put(tx, "a", record); err != nil {
				return undone
			}
			got, err := threat.Get(tx, "a")
			if err == nil {
				// What can be read can be stored again.
				threat.Remove(tx, "a")
				if _, err := threat.Add(tx, *got, time.Now()); err != nil {
					t.Errorf("%q: %v", record, err)
				}
			}
			return undone
		})
		if !errors.Is(err, undone) {
			t.Error(err)
		}
	})
}
