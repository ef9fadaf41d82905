package change

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// full is a change to which everything has happened that can.
func full(t testing.TB) *Change {
	t.Helper()
	_, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &Change{
		ID: "C-7Q2FM3", Kind: Downgrade, Name: "platform", Version: "2.3.9", Digest: digestA, Risk: Critical, Reason: "incident 42", Rollback: "go back",
		From: start, Until: start.Add(time.Hour), Emergency: true, Host: "web1", Requester: who(0, 1000, sshA), Requested: start, Required: 2,
		Uses: []Use{{At: start, Outcome: RolledBack, Undone: start.Add(1)}}, Expired: start.Add(time.Hour), Overdue: start.Add(Grace), Reported: RuleUnapproved,
	}
	c.Requester.Person, c.Requester.LoginUser, c.Requester.TTY, c.Requester.Remote = "alice", "alice", "/dev/pts/1", "192.0.2.7"
	c.Approvals = []Approval{{By: sudo(1001), At: start, Comment: "tested"}}
	signature := minisign.Sign(key, c.Message())
	c.Approvals = append(c.Approvals, Approval{By: sudo(1000), At: start, Signed: &Signed{Key: key.Public().(minisign.PublicKey).String(), Text: string(signature)}})
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRecordComesBack(t *testing.T) {
	want := full(t)
	b, err := encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode([]byte(want.ID), b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encode(got)
	if err != nil || string(again) != string(b) {
		t.Errorf("%s\n%s\n%v", b, again, err)
	}
}

// A record that was written past the rules must show, whatever else it says.
func TestRecordWrittenPastTheRules(t *testing.T) {
	for about, edit := range map[string]func(c *Change){
		"approved by who asked":            func(c *Change) { c.Approvals[0].By = sudo(1000) },
		"approved by the key of who asked": func(c *Change) { c.Approvals[0].By = who(0, 1009, sshA) },
		"approved twice":                   func(c *Change) { c.Approvals = append(c.Approvals, c.Approvals[0]) },
		"signed twice":                     func(c *Change) { c.Approvals = append(c.Approvals, c.Approvals[1]) },
		"another package than was signed":  func(c *Change) { c.Digest = digestB },
		"another window than was signed":   func(c *Change) { c.Until = c.Until.Add(time.Hour) },
		"another kind than was signed":     func(c *Change) { c.Kind = Update },
		"no emergency, as was signed":      func(c *Change) { c.Emergency = false },
		"no signature":                     func(c *Change) { c.Approvals[1].Signed.Text = "" },
		"no approvals required":            func(c *Change) { c.Required = 0 },
		"another ID":                       func(c *Change) { c.ID = "C-7Q2FM4" },
		"no digest":                        func(c *Change) { c.Digest = "" },
		"an outcome that is none":          func(c *Change) { c.Uses[0].Outcome = "fine" },
		"a time that cannot be":            func(c *Change) { c.Requested = time.Time{} },
		"long":                             func(c *Change) { c.Approvals[0].Comment = strings.Repeat("x", MaxRecord) },
	} {
		c := full(t)
		edit(c)
		b, err := json.Marshal(stored{form.Version, *c})
		if err != nil {
			t.Fatal(err)
		}
		var damage *state.DecodeError
		if _, err = decode([]byte("C-7Q2FM3"), b); !errors.As(err, &damage) || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", about, err)
		}
	}
	for about, text := range map[string]string{
		"newer":         `{"v":2}`,
		"no version":    `{"id":"C-7Q2FM3"}`,
		"cut off":       `{"v":1,"id":"C-7Q2`,
		"unknown":       `{"v":1,"id":"C-7Q2FM3","frozen":true}`,
		"another type":  `{"v":1,"id":7}`,
		"nothing":       ``,
		"what is no ID": `{"v":1,"id":"x"}`,
	} {
		var damage *state.DecodeError
		if _, err := decode([]byte("C-7Q2FM3"), []byte(text)); !errors.As(err, &damage) || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", about, err)
		}
	}
}

// A damaged record keeps nothing from being seen: it fails what reads it.
func TestDamagedStore(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), nil)
	d.must(d.update(func(tx *state.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(c.ID), []byte("{}")) }))
	for about, fn := range map[string]func(tx *state.Tx) error{
		"get":       func(tx *state.Tx) error { _, err := Get(tx, c.ID); return err },
		"list":      func(tx *state.Tx) error { _, err := List(tx, Filter{}, d.now); return err },
		"sweep":     func(tx *state.Tx) error { _, err := Sweep(tx, d.now); return err },
		"authorize": func(tx *state.Tx) error { return Authorize(tx, c.ID, Wanted{Digest: digestA}, d.now) },
	} {
		if err := d.store.View(context.Background(), fn); failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v", about, err)
		}
	}
}

// What only reads writes nothing, and knows when something is to be written.
func TestStale(t *testing.T) {
	d := newDesk(t)
	d.request(sudo(1000), nil)
	stale := func() (is bool) {
		d.must(d.store.View(context.Background(), func(tx *state.Tx) (err error) {
			if _, err := Sweep(tx, d.now); err != nil {
				t.Errorf("sweep in a view: %v", err)
			}
			is, err = Stale(tx, d.now)
			return err
		}))
		return is
	}
	if stale() {
		t.Error("stale although nothing has happened")
	}
	d.now = start.Add(25 * time.Hour)
	if !stale() {
		t.Error("expired, and nothing to write")
	}
	d.sweep()
	if stale() {
		t.Error("stale after it was swept")
	}
}

// The oldest changes that are over make room; those that matter never do.
func TestRoom(t *testing.T) {
	d := newDesk(t)
	kept := d.request(sudo(1000), func(c *Change) { c.Emergency = true })
	d.apply(kept)
	d.now = start.Add(time.Second)
	first := d.request(sudo(1000), nil)
	d.must(d.withdraw(first, sudo(1000)))
	d.now = start.Add(2 * time.Second)
	second := d.request(sudo(1000), nil)
	d.must(d.withdraw(second, sudo(1000)))
	d.must(d.update(func(tx *state.Tx) error {
		if err := makeRoom(tx, d.now); err != nil {
			return err
		}
		if _, err := Get(tx, first.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("the oldest is there: %v", err)
		}
		if err := makeRoom(tx, d.now); err != nil {
			return err
		}
		if _, err := Get(tx, kept.ID); err != nil {
			t.Errorf("what waits for approval is gone: %v", err)
		}
		if err := makeRoom(tx, d.now); failure.KindOf(err) != failure.Failed {
			t.Errorf("nothing is over: %v", err)
		}
		return nil
	}))
}

func FuzzDecode(f *testing.F) {
	b, err := encode(full(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1,"id":"C-7Q2FM3","kind":"other","name":"x","risk":"low","reason":"r","from":"2026-11-22T10:00:00Z","until":"2026-11-23T10:00:00Z","requester":{"uid":0,"login_uid":1000},"requested":"2026-11-22T10:00:00Z","approvals_required":1}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decode([]byte("C-7Q2FM3"), b)
		if err != nil {
			return
		}
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		c.settle(start)
		c.settle(start.AddDate(1, 0, 0))
		_, _, _ = c.Subject(), c.Message(), c.InForce(start)
		if c.Reported != "" && len(c.Uses) > 0 {
			_ = c.finding(start)
		}
		again, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode([]byte("C-7Q2FM3"), again); err != nil {
			t.Fatalf("what was read cannot be written: %v\n%s", err, again)
		}
	})
}

func FuzzParsePeople(f *testing.F) {
	f.Add([]byte("people:\n  - name: alice\n    accounts: [alice, 1000]\n    keys: [" + sshA + "]\n"))
	f.Add([]byte("people: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePeople(b, func(string) (string, bool) { return "7", true })
		if err == nil {
			p.personOf(&Identity{Keys: []string{sshA}})
		} else if !errors.Is(err, ErrPeople) {
			t.Fatal(err)
		}
	})
}

func FuzzParseSSHAuth(f *testing.F) {
	f.Add([]byte("publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvUWYzKMAfMLvqPQ0rCb8XmxEw0ZD1FwHhUYVdxTxkY\n"))
	f.Add([]byte("password\nkeyboard-interactive/pam\n"))
	f.Add([]byte("publickey x AAAAAA=="))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ParseSSHAuth(b)
		if err != nil {
			return
		}
		for _, k := range keys {
			if err := parseFingerprint(k); err != nil {
				t.Fatalf("%q %v", k, err)
			}
		}
	})
}

func FuzzSignature(f *testing.F) {
	_, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	people, err := ParsePeople(fmt.Appendf(nil, "people: [{name: carol, keys: [%q]}]", key.Public()), nil)
	if err != nil {
		f.Fatal(err)
	}
	message := []byte("message")
	f.Add([]byte("untrusted comment: x\n"))
	f.Add(minisign.Sign(key, []byte("another")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := people.findSigner(b, message); err == nil {
			t.Fatalf("taken: %+v", s)
		}
	})
}
