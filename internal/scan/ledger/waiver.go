package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
	bolt "go.etcd.io/bbolt"
)

// Person is who decided something, and when.
type Person struct {
	By change.Identity `json:"by"`
	At time.Time       `json:"at"`
}

// Pattern says which items a waiver accepts: those that all of its members match.
// An empty member matches everything, but Item, Package and Path must not all be
// empty. A * in Item, Package and Asset stands for any characters; in Path it stands
// for any but a /, and ** for directories.
type Pattern struct {
	Class Class `json:"class,omitempty"`
	// Item is the id of a vulnerability, or an alias of it, a rule, a check, a licence.
	Item    string `json:"item,omitempty"`
	Package string `json:"package,omitempty"`
	Asset   string `json:"asset,omitempty"`
	// Path has to match every path where an item was found.
	Path string `json:"path,omitempty"`
	// Severity is the worst one that is accepted; empty: any.
	Severity Severity `json:"severity,omitempty"`
}

// String writes the pattern as people read it: "CVE-2026-1 of openssl on host:*".
func (p *Pattern) String() string {
	text := p.Item
	if text == "" || text == "*" {
		text = "everything"
		if p.Class != "" {
			text = "every " + string(p.Class)
		}
	}
	if p.Package != "" {
		text += " of " + p.Package
	}
	if p.Path != "" {
		text += " in " + p.Path
	}
	if p.Asset != "" {
		text += " on " + p.Asset
	}
	if p.Severity != "" {
		text += " up to " + string(p.Severity)
	}
	return text
}

// Waiver accepts items until a time.
type Waiver struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
	Pattern
	Owner   string    `json:"owner"`  // who answers for it
	Reason  string    `json:"reason"` // what is told to those who ask
	Until   time.Time `json:"until"`
	Created Person    `json:"created"`
	// Needed: it is not in force until somebody else approved it.
	Needed   bool    `json:"needs_approval,omitempty"`
	Approved *Person `json:"approved,omitempty"`
	Removed  *Person `json:"removed,omitempty"`
	Why      string  `json:"removed_because,omitempty"`
}

// WaiverState says how a waiver stands at a moment.
type WaiverState string

// The states of waivers.
const (
	InForce WaiverState = "in-force"
	Waiting WaiverState = "waiting" // for approval
	Expired WaiverState = "expired"
	Removed WaiverState = "removed"
)

// State returns how the waiver stands at a moment. At its end it stops.
func (w *Waiver) State(now time.Time) WaiverState {
	switch {
	case w.Removed != nil:
		return Removed
	case !now.Before(w.Until):
		return Expired
	case w.Needed && w.Approved == nil:
		return Waiting
	}
	return InForce
}

// decision names the waiver in the header of items.
func (w *Waiver) decision() decision { return nameOf("waiver " + w.ID) }

func nameOf(s string) (d decision) {
	sum := blake3.Sum256([]byte(s))
	copy(d[:], sum[:])
	return d
}

// check names what a waiver lacks.
func (w *Waiver) check(now time.Time) error {
	for _, field := range []struct{ what, text string }{
		{"an owner, who answers for it", w.Owner}, {"a reason, which is told to those who ask", w.Reason},
	} {
		if strings.TrimSpace(field.text) == "" {
			return fmt.Errorf("%w: a waiver needs %s", ErrInvalid, field.what)
		}
		if len(field.text) > MaxText {
			return fmt.Errorf("%w: %s, has %d bytes, more than %d", ErrInvalid, field.what, len(field.text), MaxText)
		}
	}
	switch {
	case w.Until.IsZero():
		return fmt.Errorf("%w: a waiver needs an end", ErrInvalid)
	case !w.Until.After(now):
		return fmt.Errorf("%w: the waiver would end on %s, which is in the past", ErrInvalid, w.Until.Format(time.RFC3339))
	case w.Until.Sub(now) > MaxWaiver:
		return fmt.Errorf("%w: the waiver would last longer than %d days: ask for it again when it ends", ErrInvalid, int(MaxWaiver/(24*time.Hour)))
	}
	return w.Pattern.check()
}

func (p *Pattern) check() error {
	anything := func(s string) bool { return strings.Trim(s, "*/") == "" }
	if anything(p.Item) && anything(p.Package) && anything(p.Path) {
		return fmt.Errorf("%w: a waiver of everything: name an id, a package or a path", ErrInvalid)
	}
	for _, s := range []string{p.Item, p.Package, p.Asset, p.Path} {
		if len(s) > MaxText || printable(s) != s {
			return fmt.Errorf("%w: a pattern has at most %d bytes, all of which can be printed, not %q", ErrInvalid, MaxText, clip(s, 128))
		}
	}
	if !doublestar.ValidatePattern(p.Path) {
		return fmt.Errorf("%w: the pattern %q of paths cannot be understood", ErrInvalid, p.Path)
	}
	if p.Class != "" && !slices.Contains(Classes(), p.Class) {
		return fmt.Errorf("%w: %q is no class of items", ErrInvalid, clip(string(p.Class), 64))
	}
	if p.Severity != "" && !slices.Contains(Severities(), p.Severity) {
		return fmt.Errorf("%w: %q is no severity", ErrInvalid, clip(string(p.Severity), 64))
	}
	return nil
}

// Waive stores a waiver and returns it with its id. It accepts what scans see from
// the next one of each asset on, or from Settle. When the policy wants approval, it
// waits for it.
func (l Ledger) Waive(tx *state.Tx, w Waiver, by change.Identity, now time.Time) (*Waiver, error) {
	now = storable(now)
	n := &Waiver{
		Version: version, Pattern: w.Pattern, Owner: strings.TrimSpace(w.Owner), Reason: w.Reason, Until: storable(w.Until),
		Created: Person{By: by, At: now}, Needed: l.Policy.Approval,
	}
	n.Path = strings.TrimPrefix(strings.TrimPrefix(n.Path, "./"), "/")
	if err := n.check(now); err != nil {
		return nil, err
	}
	b, err := top(tx, waiverBucket)
	if err != nil {
		return nil, err
	}
	all, err := readWaivers(b)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if s := o.State(now); o.Pattern == n.Pattern && (s == InForce || s == Waiting) {
			return nil, failure.Hint(failure.Errorf(failure.Busy, "%s is waived until %s already, by %s", o.Pattern.String(), o.Until.Format(time.DateOnly), o.ID),
				"take it back first: mobileops scan unwaive "+o.ID+" --reason TEXT")
		}
	}
	if err := dropOldWaivers(b, all, now); err != nil {
		return nil, err
	}
	content, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	for salt := uint64(0); ; salt++ {
		sum := blake3.Sum256(binary.LittleEndian.AppendUint64(content, salt))
		if n.ID = "W-" + hex.EncodeToString(sum[:4]); b.Get([]byte(n.ID)) == nil {
			break
		}
	}
	return n, n.save(b)
}

// dropOldWaivers makes room for another waiver: those that ended first go.
func dropOldWaivers(b *bolt.Bucket, all []*Waiver, now time.Time) error {
	if len(all) < MaxWaivers {
		return nil
	}
	ended := slices.DeleteFunc(slices.Clone(all), func(w *Waiver) bool { s := w.State(now); return s == InForce || s == Waiting })
	if len(ended) == 0 {
		return failure.Errorf(failure.Failed, "%d waivers are in force, and no more can be", len(all))
	}
	slices.SortFunc(ended, func(x, y *Waiver) int { return x.Until.Compare(y.Until) })
	return b.Delete([]byte(ended[0].ID))
}

func (w *Waiver) save(b *bolt.Bucket) error {
	v, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return b.Put([]byte(w.ID), v)
}

// Approve puts a waiver that waits into force. Whoever asked for it, or answers for
// it as its owner, is refused with change.ErrSamePerson, and who cannot be told from
// them with change.ErrUntold; people says which accounts are one person.
func (l Ledger) Approve(tx *state.Tx, id string, by change.Identity, people *change.People, now time.Time) (*Waiver, error) {
	now = storable(now)
	return decideWaiver(tx, id, func(w *Waiver) error {
		if s := w.State(now); s != Waiting {
			return failure.Errorf(failure.Busy, "nothing to approve: the waiver %s is %s", w.ID, strings.ReplaceAll(string(s), "-", " "))
		}
		by := people.Know(by)
		if err := people.Apart(people.Know(w.Created.By), by); err != nil {
			return err
		}
		if owns(w.Owner, by) {
			return failure.Hint(fmt.Errorf("%w: %s answers for it as its owner", change.ErrSamePerson, w.Owner), "somebody else approves it")
		}
		w.Approved = &Person{By: by, At: now}
		return nil
	})
}

// Unwaive takes back a waiver. Anybody may: it only makes things stricter. It
// stays in the history.
func (l Ledger) Unwaive(tx *state.Tx, id, reason string, by change.Identity, now time.Time) (*Waiver, error) {
	now = storable(now)
	if strings.TrimSpace(reason) == "" || len(reason) > MaxText {
		return nil, fmt.Errorf("%w: a reason of at most %d bytes is needed", ErrInvalid, MaxText)
	}
	return decideWaiver(tx, id, func(w *Waiver) error {
		if s := w.State(now); s == Removed || s == Expired {
			return failure.Errorf(failure.Busy, "nothing to take back: the waiver %s is %s", w.ID, s)
		}
		w.Removed, w.Why = &Person{By: by, At: now}, reason
		return nil
	})
}

func decideWaiver(tx *state.Tx, id string, apply func(*Waiver) error) (*Waiver, error) {
	b, err := top(tx, waiverBucket)
	if err != nil {
		return nil, err
	}
	w, err := readWaiver(id, b)
	if err != nil {
		return nil, err
	}
	if err := apply(w); err != nil {
		return nil, err
	}
	return w, w.save(b)
}

// ErrNoWaiver says that no waiver has such an id.
var ErrNoWaiver = failure.New(failure.No, "no such waiver")

func readWaiver(id string, b *bolt.Bucket) (*Waiver, error) {
	var v []byte
	if b != nil && id != "" && len(id) <= MaxName {
		v = b.Get([]byte(id))
	}
	if v == nil {
		return nil, failure.Hint(fmt.Errorf("%w: %q", ErrNoWaiver, clip(id, 64)), "see them: mobileops scan waivers")
	}
	return decodeWaiver([]byte(id), v)
}

func decodeWaiver(k, v []byte) (*Waiver, error) {
	w, what := new(Waiver), "waiver "+string(k)
	if err := form.Read(named(what), v, w); err != nil {
		return nil, err
	}
	if w.ID != string(k) {
		return nil, damaged(what, -1, "its id is %q", clip(w.ID, 64))
	}
	if err := w.check(w.Created.At); err != nil {
		return nil, damaged(what, -1, "%v", err)
	}
	if w.Approved != nil && errors.Is((*change.People)(nil).Apart(w.Created.By, w.Approved.By), change.ErrSamePerson) {
		return nil, damaged(what, -1, "it was approved by who asked for it")
	}
	return w, nil
}

func readWaivers(b *bolt.Bucket) (list []*Waiver, err error) {
	if b == nil {
		return nil, nil
	}
	err = b.ForEach(func(k, v []byte) error {
		w, err := decodeWaiver(k, v)
		list = append(list, w)
		return err
	})
	return list, err
}

// owns reports whether the owner of a waiver, a name in free words, is written
// like one of the names of who acts. Root that was reached from a login is
// nobody's name.
func owns(owner string, by change.Identity) bool {
	names := append(strings.Split(by.Person, " and "), by.LoginUser, by.Name())
	if by.LoginUID < 0 || by.LoginUID == int64(by.UID) {
		names = append(names, by.User)
	}
	for _, name := range names {
		if name != "" && strings.EqualFold(owner, name) {
			return true
		}
	}
	return false
}
