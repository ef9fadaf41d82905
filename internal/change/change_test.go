package change

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// start is when the tests begin.
var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// digestA and digestB are those of two packages.
var digestA, digestB = strings.Repeat("a1", 64), strings.Repeat("b2", 64)

// who is somebody with a uid and a login uid; -1: none.
func who(uid int, login int64, keys ...string) Identity {
	return Identity{Actor: audit.Actor{UID: uid, LoginUID: login}, Keys: keys}
}

// sudo is root that was reached from a login.
func sudo(login int64) Identity { return who(0, login) }

// desk is a store with changes, and a clock.
type desk struct {
	t      *testing.T
	store  *state.Store
	people *People
	now    time.Time
}

func newDesk(t *testing.T) *desk {
	return &desk{t: t, store: state.New(t.TempDir(), state.Options{}), now: start}
}

func (d *desk) update(fn func(tx *state.Tx) error) error {
	d.t.Helper()
	return d.store.Update(context.Background(), fn)
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// request asks for a change with a window of a day, after edit altered it.
func (d *desk) request(by Identity, edit func(c *Change)) *Change {
	d.t.Helper()
	c := Change{Kind: Update, Name: "platform", Version: "2.4.1", Digest: digestA, Risk: Medium, Reason: "CVE-2026-1", Until: d.now.Add(24 * time.Hour), Required: 1, Requester: by}
	if edit != nil {
		edit(&c)
	}
	var stored *Change
	d.must(d.update(func(tx *state.Tx) (err error) {
		stored, err = Request(tx, c, d.people, d.now)
		return err
	}))
	return stored
}

func (d *desk) approve(c *Change, by Identity) error {
	return d.update(func(tx *state.Tx) error {
		_, err := Approve(tx, c.ID, Consent{By: by}, d.people, d.now)
		return err
	})
}

func (d *desk) sign(c *Change, by Identity, signature []byte) error {
	return d.update(func(tx *state.Tx) error {
		_, err := Approve(tx, c.ID, Consent{By: by, Signature: signature}, d.people, d.now)
		return err
	})
}

func (d *desk) reject(c *Change, by Identity) error {
	return d.update(func(tx *state.Tx) error {
		_, err := Reject(tx, c.ID, by, "no", d.people, d.now)
		return err
	})
}

func (d *desk) withdraw(c *Change, by Identity) error {
	return d.update(func(tx *state.Tx) error {
		_, err := Withdraw(tx, c.ID, by, "", d.people, d.now)
		return err
	})
}

func (d *desk) authorize(c *Change, edit func(w *Wanted)) (err error) {
	w := Wanted{Digest: digestA, Name: "platform", Version: "2.4.1"}
	if edit != nil {
		edit(&w)
	}
	d.must(d.store.View(context.Background(), func(tx *state.Tx) error {
		err = Authorize(tx, c.ID, w, d.now)
		return nil
	}))
	return err
}

func (d *desk) apply(c *Change) {
	d.t.Helper()
	d.must(d.update(func(tx *state.Tx) error {
		_, err := Applied(tx, c.ID, d.now)
		return err
	}))
}

// sweep returns the rules of the findings that hold, and checks that exactly
// these are open in the store.
func (d *desk) sweep() string {
	d.t.Helper()
	var rules []string
	d.must(d.update(func(tx *state.Tx) error {
		found, err := Sweep(tx, d.now)
		if err != nil {
			return err
		}
		open, err := finding.List(tx, finding.Filter{States: []finding.State{finding.Open}}, d.now)
		if len(open) != len(found) {
			d.t.Errorf("%d findings are open, %d hold", len(open), len(found))
		}
		for _, f := range found {
			if f.Severity != finding.High || f.Source != Source {
				d.t.Errorf("%+v", f)
			}
			rules = append(rules, f.Rule)
		}
		return err
	}))
	return strings.Join(rules, " ")
}

func (d *desk) get(c *Change) (got *Change) {
	d.t.Helper()
	d.must(d.store.View(context.Background(), func(tx *state.Tx) (err error) {
		got, err = Get(tx, c.ID)
		return err
	}))
	return got
}

// wants fails unless err is of a kind and says so with status 4, unless it is
// about being busy.
func wants(t *testing.T, about string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", about, err, want)
	}
	if want != nil && failure.KindOf(err) != failure.KindOf(want) {
		t.Errorf("%s: kind %v of %v", about, failure.KindOf(err), err)
	}
}

func parsePeople(t *testing.T, text string) *People {
	t.Helper()
	p, err := ParsePeople([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	sshA = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	sshB = "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA"
)

// Whoever asked must not approve, however they come; and somebody else must be
// able to.
func TestWhoAskedCannotApprove(t *testing.T) {
	people := `
people:
  - {name: alice, accounts: [1000, alice-admin], keys: ["` + sshA + `"]}
  - {name: bob, accounts: ["1001"]}
`
	named := func(uid int, login int64, user, loginUser string) Identity {
		i := who(uid, login)
		i.User, i.LoginUser = user, loginUser
		return i
	}
	remote := func(i Identity, r string) Identity { i.Remote = r; return i }
	for _, tc := range []struct {
		about     string
		people    string
		requester Identity
		approver  Identity
		want      error
	}{
		{"two logins with sudo", "", sudo(1000), sudo(1001), nil},
		{"two users of a state of theirs", "", who(1000, 1000), who(1001, 1001), nil},
		{"the same", "", sudo(1000), sudo(1000), ErrSamePerson},
		{"asked as herself, approves with sudo", "", who(1000, 1000), sudo(1000), ErrSamePerson},
		{"sudo su to a second account: the login uid stays", "", sudo(1000), who(1001, 1000), ErrSamePerson},
		{"su to root: the login uid stays", "", who(1000, 1000), sudo(1000), ErrSamePerson},
		{"asked in bob's account, approves in her own", "", who(1001, 1000), sudo(1000), ErrSamePerson},
		{"asked in bob's account, and bob approves", "", who(1001, 1000), sudo(1001), ErrSamePerson},
		{"approves in the account of who asked", "", sudo(1001), who(1001, 1000), ErrSamePerson},
		{"second account, same key of SSH", "", Identity{Actor: audit.Actor{UID: 0, LoginUID: 1000}, Keys: []string{sshA}}, who(0, 1001, sshB, sshA), ErrSamePerson},
		{"two accounts, two keys", "", who(0, 1000, sshA), who(0, 1001, sshB), nil},
		{"the same gateway is not the same person", "", remote(sudo(1000), "192.0.2.7"), remote(sudo(1001), "192.0.2.7"), nil},
		{"sshd behind a proxy knows no address", "", remote(sudo(1000), "UNKNOWN"), remote(sudo(1001), "UNKNOWN"), nil},
		{"the same identity of an API", "", remote(sudo(1000), "spiffe://x/alice"), remote(sudo(1001), "spiffe://x/alice"), ErrSamePerson},
		{"second account in the file of people, by name", people, sudo(1000), named(0, 2000, "root", "alice-admin"), ErrSamePerson},
		{"asked from the second account", people, named(2000, 2000, "alice-admin", "alice-admin"), sudo(1000), ErrSamePerson},
		{"somebody else's account, but her key", people, sudo(1000), who(0, 1002, sshA), ErrSamePerson},
		{"another person of the file", people, sudo(1000), sudo(1001), nil},
		{"somebody whom the file does not name", people, sudo(1000), sudo(1009), nil},
		{"root without a login, asked by root without one", "", who(0, -1), who(0, -1), ErrSamePerson},
		{"root without a login", "", sudo(1000), who(0, -1), ErrUntold},
		{"root's own login", "", sudo(1000), who(0, 0), ErrUntold},
		{"both log in as root", "", who(0, 0), who(0, 0), ErrSamePerson},
		{"both log in as root, with other keys: those come from the environment", "", who(0, 0, sshA), who(0, 0, sshB), ErrSamePerson},
		{"root's login is a person's by the file", "people: [{name: carol, accounts: [root, 0]}]", sudo(1000), who(0, 0), nil},
		{"systemd-run drops the login uid", "", sudo(1000), who(1001, -1), ErrUntold},
		{"systemd-run drops the login uid of somebody in the file", people, sudo(1000), who(1001, -1), ErrUntold},
		{"no login uids at all on this host", "people: [{name: a, accounts: [1000]}]", who(1000, -1), who(1001, -1), nil},
		{"no login uids at all, the same account", "", who(1000, -1), who(1000, -1), ErrSamePerson},
		{"no login uids at all, and root", "", who(1000, -1), who(0, -1), ErrUntold},
		{"a service asks", "people: [{name: ci, accounts: [990]}]", who(990, -1), sudo(1000), nil},
		{"root's login, then the account of somebody in the file", people, sudo(1000), who(1001, 0), ErrUntold},
		{"root's login, with the key of somebody in the file", "people: [{name: b, keys: ['" + sshB + "']}]", sudo(1000), who(0, 0, sshB), ErrUntold},
	} {
		d := newDesk(t)
		if tc.people != "" {
			d.people = parsePeople(t, tc.people)
		}
		c := d.request(tc.requester, nil)
		err := d.approve(c, tc.approver)
		wants(t, tc.about, err, tc.want)
		if got := d.get(c).At(d.now); err == nil && got != StateApproved || err != nil && got != StateRequested {
			t.Errorf("%s: it is %s after %v", tc.about, got, err)
		}
	}
}

// Where it cannot be told who asked, one more must agree: then at least one of
// them did not ask.
func TestUnknownRequesterCostsOneMoreApproval(t *testing.T) {
	for _, root := range []Identity{who(0, -1), who(0, 0), who(0, -1, sshA), who(990, -1)} {
		d := newDesk(t)
		c := d.request(root, nil)
		if !c.Untold || c.Required != 2 {
			t.Errorf("%+v", c)
		}
		d.must(d.approve(c, sudo(1000)))
		wants(t, "after one approval", d.authorize(c, nil), ErrNotApproved)
		wants(t, "twice", d.approve(c, sudo(1000)), ErrTwice)
		if root.UID == 0 {
			wants(t, "a user that root made up", d.approve(c, who(1005, -1)), ErrUntold)
		}
		d.must(d.approve(c, sudo(1001)))
		d.must(d.authorize(c, nil))
	}
	d := newDesk(t)
	d.people = parsePeople(t, `people: [{name: ci, keys: ["`+sshA+`"]}, {name: bot, accounts: [0]}]`)
	for _, known := range []Identity{sudo(1000), who(0, 0)} {
		if c := d.request(known, nil); c.Untold {
			t.Errorf("untold: %+v", known)
		}
	}
	if c := d.request(who(0, -1, sshA), nil); !c.Untold || c.Requester.Person != "bot and ci" {
		t.Errorf("a key that the environment names: %+v", c)
	}
	if c := d.request(who(0, -1), nil); !c.Untold {
		t.Error("a process without a login, as systemd-run makes it for everybody, counted as the person whose account root is")
	}
}

func TestTwoApprovalsAreOfTwoPeople(t *testing.T) {
	two := func(c *Change) { c.Required = 2 }
	for _, tc := range []struct {
		about  string
		second Identity
		want   error
	}{
		{"somebody else", sudo(1002), nil},
		{"the same", sudo(1001), ErrTwice},
		{"the same in another account", who(1002, 1001), ErrTwice},
		{"the same by the file", sudo(1011), ErrTwice},
		{"the same key", who(0, 1003, sshB), ErrTwice},
		{"no login", who(1002, -1), ErrUntold},
		{"who asked", sudo(1000), ErrSamePerson},
	} {
		d := newDesk(t)
		d.people = parsePeople(t, `people: [{name: bob, accounts: [1001, 1011]}]`)
		c := d.request(sudo(1000), two)
		d.must(d.approve(c, who(0, 1001, sshB)))
		wants(t, "one of two", d.authorize(c, nil), ErrNotApproved)
		wants(t, tc.about, d.approve(c, tc.second), tc.want)
		if tc.want == nil {
			d.must(d.authorize(c, nil))
			wants(t, "a third", d.approve(c, sudo(1004)), ErrEnough)
		} else {
			wants(t, tc.about, d.authorize(c, nil), ErrNotApproved)
		}
	}
}

func TestChangeAuthorisesOnlyWhatItSays(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), func(c *Change) {
		c.From, c.Until, c.Host = start.Add(time.Hour), start.Add(5*time.Hour), "web1.example.org"
	})
	wants(t, "before approval", d.authorize(c, nil), ErrWindow)
	d.must(d.approve(c, sudo(1001)))
	wants(t, "before the window", d.authorize(c, nil), ErrWindow)
	d.now = start.Add(time.Hour)
	for _, tc := range []struct {
		about string
		edit  func(w *Wanted)
		want  error
	}{
		{"as asked", nil, nil},
		{"another package", func(w *Wanted) { w.Digest = digestB }, ErrOther},
		{"no digest", func(w *Wanted) { w.Digest = "" }, ErrOther},
		{"another name", func(w *Wanted) { w.Name = "x" }, ErrOther},
		{"another version", func(w *Wanted) { w.Version = "2.4.0" }, ErrOther},
		{"not known what it is called", func(w *Wanted) { w.Name, w.Version = "", "" }, nil},
		{"a downgrade", func(w *Wanted) { w.Downgrade = true }, ErrOther},
		{"no package", func(w *Wanted) { w.Other = true }, ErrOther},
		{"here", func(w *Wanted) { w.Host = "WEB1.example.org" }, nil},
		{"here, and the domain is not known", func(w *Wanted) { w.Host = "web1" }, nil},
		{"another host", func(w *Wanted) { w.Host = "web2.example.org" }, ErrHost},
		{"another host, and the domain is not known", func(w *Wanted) { w.Host = "web" }, ErrHost},
		{"the same name elsewhere", func(w *Wanted) { w.Host = "web1.example.com" }, ErrHost},
	} {
		wants(t, tc.about, d.authorize(c, tc.edit), tc.want)
	}
	d.must(d.store.View(context.Background(), func(tx *state.Tx) error {
		return nil
	}))
	d.apply(c)
	if got := d.get(c).At(d.now); got != StateApplied {
		t.Errorf("it is %s", got)
	}
	wants(t, "once more on this host", d.authorize(c, nil), nil)
	d.now = start.Add(5*time.Hour - 1)
	wants(t, "in the last moment", d.authorize(c, nil), nil)
	d.now = start.Add(5 * time.Hour)
	wants(t, "after the window", d.authorize(c, nil), ErrExpired)
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %s", rules)
	}

	d.now = start
	down := d.request(sudo(1000), func(c *Change) { c.Kind = Downgrade })
	d.must(d.approve(down, sudo(1001)))
	wants(t, "a downgrade that was asked for", d.authorize(down, func(w *Wanted) { w.Downgrade = true }), nil)

	other := d.request(sudo(1000), func(c *Change) { c.Kind, c.Digest, c.Name, c.Version = Other, "", "rotate the keys", "" })
	d.must(d.approve(other, sudo(1001)))
	isOther := func(w *Wanted) { *w = Wanted{Other: true, Name: "rotate the keys"} }
	wants(t, "what is no package", d.authorize(other, isOther), nil)
	wants(t, "a package", d.authorize(other, nil), ErrOther)
	d.apply(other)
	wants(t, "a second time", d.authorize(other, isOther), ErrUsed)
}

func TestRejectedAndWithdrawnAuthoriseNothing(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), nil)
	wants(t, "who asked rejects", d.reject(c, sudo(1000)), ErrSamePerson)
	wants(t, "another withdraws", d.withdraw(c, sudo(1001)), ErrNotYours)
	d.must(d.approve(c, sudo(1001)))
	d.must(d.reject(c, sudo(1002)))
	wants(t, "rejected after it was approved", d.authorize(c, nil), ErrRefused)
	wants(t, "approved after it was rejected", d.approve(c, sudo(1003)), ErrOver)
	wants(t, "rejected again", d.reject(c, sudo(1003)), ErrOver)

	c = d.request(sudo(1000), nil)
	d.must(d.approve(c, sudo(1001)))
	d.must(d.withdraw(c, who(1000, 1000)))
	wants(t, "withdrawn", d.authorize(c, nil), ErrRefused)
	wants(t, "approved after it was withdrawn", d.approve(c, sudo(1003)), ErrOver)

	c = d.request(sudo(1000), nil)
	d.must(d.approve(c, sudo(1001)))
	d.apply(c)
	wants(t, "withdrawn after it was applied", d.withdraw(c, sudo(1000)), ErrOver)
	wants(t, "rejected after it was approved and applied", d.reject(c, sudo(1002)), ErrOver)

	c = d.request(sudo(1000), nil)
	d.now = d.now.Add(24 * time.Hour)
	wants(t, "approved after its window", d.approve(c, sudo(1001)), ErrExpired)
	wants(t, "withdrawn after its window", d.withdraw(c, sudo(1000)), ErrOver)
}

func TestEmergencyIsAppliedFirst(t *testing.T) {
	emergency := func(c *Change) { c.Emergency = true }
	d := newDesk(t)
	c := d.request(sudo(1000), emergency)
	wants(t, "at once", d.authorize(c, nil), nil)
	d.apply(c)
	d.now = start.Add(Grace - 1)
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %s before the deadline", rules)
	}
	wants(t, "her own", d.approve(c, sudo(1000)), ErrSamePerson)
	wants(t, "her own, from her other account", d.approve(c, who(1001, 1000)), ErrSamePerson)
	d.now = start.Add(Grace)
	if rules := d.sweep(); rules != RuleUnapproved {
		t.Errorf("findings %q", rules)
	}
	if got := d.sweep(); got != RuleUnapproved {
		t.Errorf("swept again: %q", got)
	}
	wants(t, "again, after 24 hours", d.authorize(c, nil), ErrExpired)
	// The window is over, and it must be possible to approve nevertheless.
	d.now = start.Add(48 * time.Hour)
	d.must(d.approve(c, sudo(1001)))
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %s after it was approved", rules)
	}

	// Approved in time.
	d = newDesk(t)
	c = d.request(sudo(1000), emergency)
	d.apply(c)
	d.must(d.approve(c, sudo(1001)))
	d.now = start.Add(30 * time.Hour)
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %s although it was approved in time", rules)
	}

	// Rejected, and undone.
	d = newDesk(t)
	c = d.request(sudo(1000), emergency)
	d.apply(c)
	d.must(d.reject(c, sudo(1001)))
	if rules := d.sweep(); rules != RuleRejected {
		t.Errorf("findings %q", rules)
	}
	d.must(d.update(func(tx *state.Tx) error {
		_, err := Undone(tx, c.ID, d.now)
		return err
	}))
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %s after it was rolled back", rules)
	}

	// A long window is no licence to go without approval.
	d = newDesk(t)
	c = d.request(sudo(1000), func(c *Change) { c.Emergency, c.Until = true, start.Add(30*24*time.Hour) })
	d.now = start.Add(Grace)
	wants(t, "a day later", d.authorize(c, nil), ErrNotApproved)
	d.must(d.approve(c, sudo(1001)))
	wants(t, "approved", d.authorize(c, nil), nil)

	// An emergency permits no downgrade that it does not name.
	d = newDesk(t)
	c = d.request(sudo(1000), emergency)
	wants(t, "a downgrade", d.authorize(c, func(w *Wanted) { w.Downgrade = true }), ErrOther)
}

// What was done although the change did not permit it is kept, and told.
func TestAppliedWithoutConsentIsTold(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), nil)
	d.apply(c)
	if rules := d.sweep(); rules != RuleUnauthorised {
		t.Errorf("findings %q", rules)
	}
	if u := d.get(c).Uses[0]; !strings.Contains(u.Unauthorised, "not approved") {
		t.Errorf("%+v", u)
	}
	d.must(d.approve(c, sudo(1001)))
	if rules := d.sweep(); rules != RuleUnauthorised {
		t.Errorf("approval afterwards made it as if nothing had been: %q", rules)
	}
	d.apply(c)
	if rules := d.sweep(); rules != "" {
		t.Errorf("findings %q after it was applied anew", rules)
	}
	for range MaxUses + 5 {
		d.apply(c)
	}
	if got := d.get(c); len(got.Uses) != MaxUses || got.Uses[0].Unauthorised == "" {
		t.Errorf("%d uses, the first %+v", len(got.Uses), got.Uses[0])
	}
}

func TestClockThatGoesBack(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), func(c *Change) { c.Until = start.Add(time.Hour) })
	d.must(d.approve(c, sudo(1001)))
	d.now = start.Add(2 * time.Hour)
	d.sweep()
	d.now = start.Add(time.Minute)
	wants(t, "expired, and the clock was set back into its window", d.authorize(c, nil), ErrExpired)
	if got := d.get(c).At(d.now); got != StateExpired {
		t.Errorf("it is %s", got)
	}
	d.now = start
	c = d.request(sudo(1000), nil)
	d.must(d.approve(c, sudo(1001)))
	d.now = start.Add(-time.Hour)
	wants(t, "before it was requested", d.authorize(c, nil), ErrClock)
	d.now = start.Add(-time.Minute)
	wants(t, "a clock that was corrected by a minute", d.authorize(c, nil), ErrWindow)

	// The deadline cannot be put off.
	d = newDesk(t)
	c = d.request(sudo(1000), func(c *Change) { c.Emergency = true })
	d.apply(c)
	d.now = start.Add(25 * time.Hour)
	if rules := d.sweep(); rules != RuleUnapproved {
		t.Errorf("findings %q", rules)
	}
	d.now = start.Add(time.Hour)
	if rules := d.sweep(); rules != RuleUnapproved {
		t.Errorf("findings %q after the clock was set back", rules)
	}
	d = newDesk(t)
	c = d.request(sudo(1000), func(c *Change) { c.Emergency = true })
	d.apply(c)
	d.now = start.Add(-365 * 24 * time.Hour)
	if rules := d.sweep(); rules != RuleUnapproved {
		t.Errorf("findings %q in the year before", rules)
	}
	d.must(d.approve(c, sudo(1001)))
}

func TestRequestsThatAreRefused(t *testing.T) {
	for about, edit := range map[string]func(c *Change){
		"no reason":                  func(c *Change) { c.Reason = "  " },
		"no digest":                  func(c *Change) { c.Digest = "" },
		"half a digest":              func(c *Change) { c.Digest = c.Digest[:64] },
		"no hexadecimal":             func(c *Change) { c.Digest = "zz" + c.Digest[2:] },
		"unknown kind":               func(c *Change) { c.Kind = "upgrade" },
		"unknown risk":               func(c *Change) { c.Risk = "huge" },
		"other without a name":       func(c *Change) { c.Kind, c.Name = Other, "" },
		"window that ended":          func(c *Change) { c.From, c.Until = start.Add(-2*time.Hour), start.Add(-time.Hour) },
		"window that ends first":     func(c *Change) { c.From = start.Add(48 * time.Hour) },
		"window of years":            func(c *Change) { c.Until = start.AddDate(3, 0, 0) },
		"long reason":                func(c *Change) { c.Reason = strings.Repeat("x", MaxText+1) },
		"plan that is not UTF-8":     func(c *Change) { c.Rollback = "\xff" },
		"no approvals":               func(c *Change) { c.Required = 0 },
		"more approvals than people": func(c *Change) { c.Required = MaxApprovals + 1 },
		"many keys":                  func(c *Change) { c.Requester.Keys = make([]string, MaxKeys+1) },
	} {
		d := newDesk(t)
		c := Change{Kind: Update, Name: "platform", Digest: digestA, Risk: Medium, Reason: "x", Until: start.Add(time.Hour), Required: 1, Requester: sudo(1000)}
		edit(&c)
		err := d.update(func(tx *state.Tx) error {
			_, err := Request(tx, c, nil, start)
			return err
		})
		wants(t, about, err, ErrInvalid)
	}
	// What was decided cannot be brought along.
	d := newDesk(t)
	c := d.request(sudo(1000), func(c *Change) {
		c.Approvals, c.ID, c.Uses = []Approval{{By: sudo(1001), At: start}}, "C-AAAAAA", []Use{{At: start, Outcome: Live}}
		c.Digest = strings.ToUpper(c.Digest)
	})
	if len(c.Approvals) != 0 || len(c.Uses) != 0 || c.ID == "C-AAAAAA" || c.Digest != digestA {
		t.Errorf("%+v", c)
	}
}

func TestIDs(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), nil)
	d.must(d.store.View(context.Background(), func(tx *state.Tx) error {
		for _, typed := range []string{c.ID, strings.ToLower(c.ID), c.ID[:4]} {
			if got, err := Get(tx, typed); err != nil || got.ID != c.ID {
				t.Errorf("%q: %v", typed, err)
			}
		}
		for _, typed := range []string{"", "C", "C-", c.ID[:3], c.ID + "0", "C-!!!!!!", strings.Repeat("C", 1000)} {
			_, err := Get(tx, typed)
			wants(t, typed, err, ErrNotFound)
		}
		return nil
	}))
	for range 200 {
		d.request(sudo(1000), nil)
	}
	d.must(d.store.View(context.Background(), func(tx *state.Tx) error {
		list, err := List(tx, Filter{States: []State{StateRequested}, Name: "platform"}, d.now)
		if len(list) != 201 || err != nil {
			t.Errorf("%d listed, %v", len(list), err)
		}
		return nil
	}))
}

// Two processes approve at once; one transaction after the other decides.
func TestApprovalsAtOnce(t *testing.T) {
	d := newDesk(t)
	c := d.request(sudo(1000), func(c *Change) { c.Required = 3 })
	done := make(chan error)
	for n := range 8 {
		go func() {
			store := state.New(d.store.Dir(), state.Options{LockTimeout: 5 * time.Minute}) // many want it, on a busy machine
			done <- store.Update(context.Background(), func(tx *state.Tx) error {
				_, err := Approve(tx, c.ID, Consent{By: sudo(int64(1001 + n/2))}, nil, d.now)
				return err
			})
		}()
	}
	good := 0
	for range 8 {
		if err := <-done; err == nil {
			good++
		} else if !errors.Is(err, ErrTwice) && !errors.Is(err, ErrEnough) {
			t.Error(err)
		}
	}
	if got := d.get(c); good != 3 || len(got.Approvals) != 3 {
		t.Errorf("%d approvals were taken, %d are stored", good, len(got.Approvals))
	}
}

func TestSignedApproval(t *testing.T) {
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	alices, alicesKey, _ := minisign.GenerateKey(rand.Reader)
	_, strange, _ := minisign.GenerateKey(rand.Reader)
	text := fmt.Sprintf("people:\n  - {name: carol, keys: [%q], accounts: [1005]}\n  - {name: alice, accounts: [1000], keys: [%q]}\n", pub, alices)
	d := newDesk(t)
	d.people = parsePeople(t, text)
	c := d.request(sudo(1000), nil)
	if strings.Count(string(c.Message()), "\n") != 15 || !bytes.Contains(c.Message(), []byte(digestA)) {
		t.Errorf("the message is:\n%s", c.Message())
	}
	other := d.request(sudo(1000), nil)
	if k := failure.KindOf(d.sign(c, sudo(1000), minisign.Sign(key, other.Message()))); k != failure.Untrustworthy {
		t.Errorf("another change's signature: kind %v", k)
	}
	if k := failure.KindOf(d.sign(c, sudo(1000), minisign.Sign(strange, c.Message()))); k != failure.NotAllowed {
		t.Errorf("an unknown key: kind %v", k)
	}
	if k := failure.KindOf(d.sign(c, sudo(1000), []byte("nonsense"))); k != failure.Untrustworthy {
		t.Errorf("no signature: kind %v", k)
	}
	wants(t, "her own key", d.sign(c, sudo(1001), minisign.Sign(alicesKey, c.Message())), ErrSamePerson)
	// Who asked may carry it: it is carol who approves.
	d.must(d.sign(c, sudo(1000), minisign.Sign(key, c.Message())))
	d.must(d.authorize(c, nil))
	if by := d.get(c).Approvals[0].Approver(d.people); !strings.HasPrefix(by, "carol, key ") {
		t.Errorf("approved by %q", by)
	}

	// Nobody signs twice, nor signs and then approves from an account.
	c = d.request(sudo(1000), func(c *Change) { c.Required = 2 })
	d.must(d.sign(c, sudo(1000), minisign.Sign(key, c.Message())))
	wants(t, "signed twice", d.sign(c, sudo(1001), minisign.Sign(key, c.Message())), ErrTwice)
	wants(t, "signed, then from her account", d.approve(c, sudo(1005)), ErrTwice)
	wants(t, "an account whose keys nobody knows", d.approve(c, sudo(1009)), ErrUntold)

	// Who asked may have the key, unless it is known whose keys they have.
	c = d.request(sudo(1009), nil)
	wants(t, "asked by somebody not in the file", d.sign(c, sudo(1001), minisign.Sign(key, c.Message())), ErrUntold)

	// A key of SSH that the environment names does not make them known.
	c = d.request(who(0, 1009, sshA), nil)
	d.people = parsePeople(t, text+"  - {name: dave, keys: ['"+sshA+"']}\n")
	wants(t, "asked by alice under another account, with dave's key", d.sign(c, sudo(1001), minisign.Sign(alicesKey, c.Message())), ErrUntold)

	// Where it cannot be told who asked, one signature more than usual.
	c = d.request(who(0, -1), nil)
	d.must(d.sign(c, sudo(1001), minisign.Sign(key, c.Message())))
	wants(t, "one signature", d.authorize(c, nil), ErrNotApproved)
	d.must(d.sign(c, sudo(1001), minisign.Sign(alicesKey, c.Message())))
	d.must(d.authorize(c, nil))

	d.people = nil
	c = d.request(sudo(1000), nil)
	if k := failure.KindOf(d.sign(c, sudo(1001), minisign.Sign(key, c.Message()))); k != failure.NotReady {
		t.Errorf("without a file of people: kind %v", k)
	}
}

func TestPeople(t *testing.T) {
	pub, _, _ := minisign.GenerateKey(rand.Reader)
	p, err := ParsePeople([]byte("people:\n- name: alice\n  accounts: [alice, 1000]\n  keys: ["+sshA+", "+pub.String()+"]\n"), func(name string) (string, bool) {
		return "4711", name == "alice"
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []Identity{sudo(1000), sudo(4711), who(5, 5, sshA), who(5, 5, pub.String())} {
		if got := p.Know(i).Person; got != "alice" {
			t.Errorf("%+v is %q", i, got)
		}
	}
	if got := p.Know(sudo(5)).Person; got != "" {
		t.Errorf("a stranger is %q", got)
	}
	for _, text := range []string{
		"people: 5", "folk: []", "people: [{name: a, account: [x]}]", "people: [{name: ''}]", "people: [{name: a}, {name: a}]",
		"people: [{name: a, accounts: [x]}, {name: b, accounts: [x]}]", "people: [{name: a, accounts: [7]}, {name: b, accounts: ['07']}]",
		"people: [{name: a, keys: ['" + sshA + "']}, {name: b, keys: ['" + sshA + "']}]",
		"people: [{name: a, keys: [D0461F376569D4EE]}]", "people: [{name: a, keys: ['SHA256:x']}]", "people: [{name: a, accounts: ['']}]",
		"---\npeople: []\n---\npeople: []\n", "people: [", strings.Repeat("#", maxPeopleFile+1),
		"people: [{name: a, accounts: [" + strings.Repeat("x,", maxOfPerson+1) + "x]}]",
	} {
		if p, err := ParsePeople([]byte(text), nil); !errors.Is(err, ErrPeople) {
			t.Errorf("%.60q: %+v, %v", text, p, err)
		}
	}
	path := filepath.Join(t.TempDir(), "people.yaml")
	if _, err := ReadPeople(path, 0, nil); failure.KindOf(err) != failure.NotReady {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("people: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPeople(path, 0, nil); os.Getuid() == 0 && err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPeople(path, 0, nil); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("a file that everybody can write: %v", err)
	}
	if _, err := ReadPeople(path, 1000, nil); err != nil {
		t.Errorf("read by somebody else than root: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
