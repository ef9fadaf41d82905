package integrity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/state"
)

// taken takes a baseline after a change of the tree.
func (b *bench) taken(name, content string) Entry {
	b.Helper()
	b.must(os.WriteFile(b.path("f"), []byte(content), 0o644))
	t, err := b.Take(context.Background(), TakeOptions{Name: name, Policy: b.pol, Scan: Scan{Tree: b.tree}})
	b.must(err)
	return t.Entry
}

// compared compares, and wants the text in a problem of trust; "" wants trust.
func (b *bench) compared(want string) *Report {
	b.Helper()
	r, err := b.Compare(context.Background(), CompareOptions{Name: "default"})
	b.must(err)
	var all []string
	for _, p := range r.Trust.Problems {
		all = append(all, p.What)
	}
	for _, a := range r.Trust.Anchors {
		if a.Problem != "" {
			all = append(all, a.Problem)
		}
	}
	if text := strings.Join(all, "\n"); want == "" && text != "" || !strings.Contains(text, want) {
		b.Errorf("problems %q, want %q", text, want)
	}
	if k := r.Trust.Kind(); want != "" && (k != failure.Untrustworthy || r.Kind(finding.Critical) < failure.Untrustworthy) || want == "" && k != failure.None {
		b.Errorf("kind %v", k)
	}
	return r
}

// edit writes into state.db what somebody can who is root.
func (b *bench) edit(fn func(tx *state.Tx) error) {
	b.Helper()
	b.must(b.Store.Update(context.Background(), fn))
}

// ruled counts the open findings of a rule.
func (b *bench) ruled(rule string) (n int) {
	b.Helper()
	b.must(b.Store.View(context.Background(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		for _, f := range list {
			if f.Rule == rule && f.State == finding.Open {
				n++
			}
		}
		return err
	}))
	return n
}

// An older baseline that once was valid is put in the place of the current one.
func TestOlderBaselinePutInPlace(t *testing.T) {
	for name, attack := range map[string]func(b *bench, older, newer Entry){
		"current changed": func(b *bench, older, newer Entry) {
			b.edit(func(tx *state.Tx) error { return tx.Bucket(currentBucket).Put([]byte("default"), []byte(older.ID)) })
		},
		"file and root exchanged": func(b *bench, older, newer Entry) {
			data, err := os.ReadFile(b.file(older))
			b.must(err)
			b.must(os.WriteFile(b.file(newer), data, 0o600))
			fake := newer
			fake.Root = older.Root
			v, err := json.Marshal(fake)
			b.must(err)
			b.edit(func(tx *state.Tx) error { return tx.Bucket(catalogBucket).Put([]byte(newer.ID), v) })
		},
		"newer one forgotten": func(b *bench, older, newer Entry) {
			b.edit(func(tx *state.Tx) error {
				return errors.Join(tx.Bucket(catalogBucket).Delete([]byte(newer.ID)), tx.Bucket(currentBucket).Put([]byte("default"), []byte(older.ID)))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, plainPolicy)
			older := b.taken("default", "the intruder's content")
			newer := b.taken("default", "clean")
			b.compared("")
			b.must(os.WriteFile(b.path("f"), []byte("the intruder's content"), 0o644))
			attack(b, older, newer)
			if r := b.compared("default"); len(r.Changes) != 0 && name != "current changed" {
				t.Logf("changes: %v", r.Changes)
			}
			if n := b.ruled("history-broken"); n == 0 {
				t.Error("there is no finding")
			}
			// Whoever looks into it and takes a new one is believed again.
			if name != "newer one forgotten" {
				return
			}
			b.taken("default", "clean again")
			b.must(os.Remove(b.file(newer)))
			b.compared("")
			if n := b.ruled("history-broken"); n != 0 {
				t.Error("the finding stays")
			}
		})
	}
}

// A baseline that nobody recorded, and one that is gone without a record.
func TestCatalogueEdited(t *testing.T) {
	b := newBench(t, plainPolicy)
	c := b.taken("default", "one")
	app := b.taken("app", "two")
	b.edit(func(tx *state.Tx) error {
		return errors.Join(tx.Bucket(catalogBucket).Delete([]byte(app.ID)), tx.Bucket(currentBucket).Delete([]byte("app")))
	})
	b.compared("of record 2 is gone from the catalogue, and no record says who removed it")
	fake := c
	fake.ID, fake.Name = "0123456789abcdef", "app"
	v, err := json.Marshal(fake)
	b.must(err)
	b.edit(func(tx *state.Tx) error {
		return errors.Join(tx.Bucket(catalogBucket).Put([]byte(fake.ID), v), tx.Bucket(currentBucket).Put([]byte("app"), []byte(fake.ID)))
	})
	b.compared("app@01234567 is in the catalogue, and the history does not know it")
}

// state.db is put back; the files beside it tell.
func TestStateReplaced(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.taken("default", "one")
	sum := filepath.Join(b.Store.Dir(), "state.sum") // which alone would tell
	old, err := os.ReadFile(b.Store.Path())
	b.must(err)
	oldSum, err := os.ReadFile(sum)
	b.must(err)
	newer := b.taken("default", "two")
	b.compared("")
	b.must(errors.Join(os.WriteFile(b.Store.Path(), old, 0o600), os.WriteFile(sum, oldSum, 0o600)))
	b.compared("state.db does not know the baseline in " + newer.ID + ".baseline, which is newer than its last record: was state.db replaced by an older one?")
	// Imported again, it is known, and a record says who did that.
	if _, err := b.Import(t.Context(), b.file(newer), ""); err != nil {
		t.Fatal(err)
	}
	b.compared("")
}

// Files that are announced, or left by a killed run, are no alarm.
func TestPendingFilesAreNoAlarm(t *testing.T) {
	b := newBench(t, plainPolicy)
	c := b.taken("default", "one")
	data, err := os.ReadFile(b.file(c))
	b.must(err)
	other := Entry{}
	other.ID, other.Name = "0123456789abcdef", "other"
	b.must(b.announce(t.Context(), other))
	b.must(os.WriteFile(b.file(other), data, 0o600))
	b.compared("")
}

// Baselines of a version that had no history are adopted, once.
func TestAdoption(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.taken("default", "one")
	b.taken("default", "two")
	forget := func() {
		b.edit(func(tx *state.Tx) error {
			return errors.Join(tx.DeleteBucket([]byte("integrity.history")), tx.DeleteBucket([]byte("integrity.history.meta")))
		})
	}
	forget()
	b.compared("all of its records are gone") // the keys show that there was a history
	b.must(os.RemoveAll(filepath.Join(b.Store.Dir(), "keys")))
	if r := b.compared(""); r.Trust.Adopted != 2 || r.Trust.Records != 2 {
		t.Errorf("%+v", r.Trust)
	}
	if r := b.compared(""); r.Trust.Adopted != 0 || r.Trust.Records != 2 {
		t.Errorf("%+v", r.Trust)
	}
	chain, err := b.History().Chain(t.Context())
	b.must(err)
	e, err := chain.Record(2)
	b.must(err)
	if e.Kind != history.Baseline || e.Reason != adopted {
		t.Errorf("%+v", e.Record)
	}
}

// A whole state directory is put back to an earlier copy: nothing in it is
// wrong, and only the anchor knows.
func TestRolledBack(t *testing.T) {
	b := newBench(t, plainPolicy)
	place := &anchor.File{Path: filepath.Join(t.TempDir(), "anchors")}
	b.Anchors = []anchor.Place{place}
	b.taken("default", "one")
	if _, err := b.PushAnchors(t.Context()); err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	b.must(os.CopyFS(filepath.Join(copied, "state"), os.DirFS(b.Store.Dir())))
	b.taken("default", "two")
	states, err := b.PushAnchors(t.Context())
	if err != nil || len(states) != 1 || !states[0].Kept || states[0].Counter != 2 {
		t.Fatalf("%+v %v", states, err)
	}
	b.compared("")

	back := &bench{TB: t, Engine: &Engine{Store: state.New(filepath.Join(copied, "state"), state.Options{}), Tool: "test"}, tree: b.tree, pol: b.pol}
	b.must(os.Chmod(filepath.Join(copied, "state", "keys", "integrity.key"), 0o600))
	b.must(os.WriteFile(b.path("f"), []byte("one"), 0o644))
	back.compared("") // without the anchor everything is fine
	back.Anchors = b.Anchors
	back.compared("it knows record 2, and the history ends with record 1: it was put back to an earlier state")
	if n := back.ruled("anchor-mismatch"); n != 1 {
		t.Errorf("%d findings", n)
	}
	// It goes on from there, and is still found out; nothing is written over
	// the evidence.
	back.taken("default", "three")
	before, err := os.ReadFile(place.Path)
	b.must(err)
	if states, err := back.PushAnchors(t.Context()); err != nil || states[0].Verdict != history.Rewritten {
		t.Errorf("%+v %v", states, err)
	}
	back.compared("its record 2 is another one: the history was rewritten")
	if s, err := back.KeepAnchor(t.Context(), place, false); err != nil || s.Kind() != failure.Untrustworthy || s.Kept {
		t.Errorf("%+v %v", s, err)
	}
	if after, err := os.ReadFile(place.Path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the anchor was written over: %v", err)
	}
	// Restored on purpose: said with --force, and all lines stay.
	if s, err := back.KeepAnchor(t.Context(), place, true); err != nil || !s.Kept {
		t.Errorf("%+v %v", s, err)
	}
	back.compared("")
	if after, err := os.ReadFile(place.Path); err != nil || !bytes.HasPrefix(after, before) {
		t.Errorf("%s %v", after, err)
	}
}

// An older anchor in the place of a newer one is evidence as well: only --force
// writes over it. One that is gone is kept again when somebody asks for it.
func TestOlderAnchorPutInPlace(t *testing.T) {
	b := newBench(t, plainPolicy)
	place := &anchor.File{Path: filepath.Join(t.TempDir(), "anchors")}
	b.Anchors = []anchor.Place{place}
	keep := func(force bool, want history.Verdict) {
		t.Helper()
		if s, err := b.KeepAnchor(t.Context(), place, force); err != nil || s.Verdict != want || s.Kept != (want == history.Matches) {
			t.Errorf("%+v %v", s, err)
		}
	}
	b.taken("default", "one")
	keep(false, history.Matches)
	older, err := os.ReadFile(place.Path)
	b.must(err)
	b.taken("default", "two")
	keep(false, history.Matches)
	b.must(os.WriteFile(place.Path, older, 0o644))
	b.compared("it knew record 2, and now only record 1: somebody put it back")
	keep(false, history.Rewritten)
	if now, err := os.ReadFile(place.Path); err != nil || !bytes.Equal(now, older) {
		t.Errorf("the evidence was written over: %v", err)
	}
	keep(true, history.Matches)
	b.compared("")
	b.must(os.Remove(place.Path))
	keep(false, history.Matches)
	b.compared("")
}

// A place that cannot be reached is never a clean result; what was missed is
// kept there by the next check.
func TestAnchorUnreachable(t *testing.T) {
	b := newBench(t, plainPolicy)
	dir := filepath.Join(t.TempDir(), "mount")
	b.must(os.Mkdir(dir, 0o755))
	place := &anchor.File{Path: filepath.Join(dir, "anchors")}
	b.Anchors = []anchor.Place{place}
	b.taken("default", "one")
	b.compared("")
	b.must(os.Rename(dir, dir+".gone"))
	b.taken("default", "two")
	states, err := b.PushAnchors(t.Context())
	if err != nil || states[0].Kept || states[0].Kind() != failure.Incomplete {
		t.Errorf("%+v %v", states, err)
	}
	r, err := b.Compare(t.Context(), CompareOptions{Name: "default"})
	if err != nil || r.Kind(finding.Info) != failure.Incomplete {
		t.Errorf("%+v %v", r.Trust, err)
	}
	// The mount point is there again, and what should be mounted there is not.
	b.must(os.Mkdir(dir, 0o755))
	if r, err = b.Compare(t.Context(), CompareOptions{Name: "default"}); err != nil || r.Kind(finding.Info) != failure.Incomplete || !strings.Contains(r.Trust.Anchors[0].Problem, "is it mounted?") {
		t.Errorf("%+v %v", r.Trust, err)
	}
	b.must(errors.Join(os.Remove(dir), os.Rename(dir+".gone", dir)))
	if r := b.compared(""); !r.Trust.Anchors[0].Kept || r.Trust.Anchors[0].Counter != 2 {
		t.Errorf("%+v", r.Trust.Anchors)
	}
	// Somebody cuts the file of anchors.
	text, err := os.ReadFile(place.Path)
	b.must(err)
	line := bytes.IndexByte(text, '\n') + 1
	b.must(os.WriteFile(place.Path, text[:line], 0o644))
	b.compared("it knew record 2, and now only record 1: somebody put it back")
}

// Several processes take baselines of several names and keep anchors: none is
// ever accused, and the places end with the last record.
func TestAnchorsOfManyProcesses(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.must(os.WriteFile(b.path("f"), []byte("x"), 0o644))
	places := []anchor.Place{&anchor.File{Path: filepath.Join(t.TempDir(), "anchors")}}
	b.Anchors = places
	b.taken("default", "x")
	done := make(chan error)
	for _, name := range []string{"a", "b", "c", "anchors"} { // which is also a lock's name
		go func() {
			// All want the same lock, on a disk that may be busy with other things.
			e := &Engine{Store: state.New(b.Store.Dir(), state.Options{LockTimeout: 5 * time.Minute}), Tool: "test", Anchors: places}
			done <- func() error {
				for range 4 {
					if _, err := e.Take(t.Context(), TakeOptions{Name: name, Policy: b.pol, Scan: Scan{Tree: b.tree}}); err != nil {
						return err
					}
					states, err := e.PushAnchors(t.Context())
					if err != nil {
						return err
					}
					if states[0].Kind() != failure.None {
						return errors.New(states[0].Problem)
					}
				}
				return nil
			}()
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if r := b.compared(""); r.Trust.Records != 17 || r.Trust.Anchors[0].Counter != 17 {
		t.Errorf("%+v", r.Trust)
	}
}

// The catalogue's copy of a header says where the tree is, what could not be
// read in it, and how much there is: with that altered, a check would look at
// another tree, or nowhere.
func TestHeaderInCatalogueAltered(t *testing.T) {
	for name, alter := range map[string]func(b *bench, c *Entry){
		"another tree": func(b *bench, c *Entry) { c.Tree = b.TempDir() },
		"not read":     func(b *bench, c *Entry) { c.Unread = [][]byte{[]byte("/")} },
		"no entries":   func(_ *bench, c *Entry) { c.Entries = 0 },
		"began later":  func(_ *bench, c *Entry) { c.Started = c.Started.Add(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, plainPolicy)
			c := b.taken("default", "one")
			b.compared("")
			alter(b, &c)
			v, err := json.Marshal(c)
			b.must(err)
			b.edit(func(tx *state.Tx) error { return tx.Bucket(catalogBucket).Put([]byte(c.ID), v) })
			// The tree is compared all the same, by what the file says.
			b.must(os.WriteFile(b.path("f"), []byte("two"), 0o644))
			if r := b.compared("in the catalogue says something else than its file: it was altered"); len(r.Changes) != 1 {
				t.Errorf("changes: %v", r.Changes)
			}
			if b.ruled("history-broken") != 1 {
				t.Error("there is no finding")
			}
			if _, err := b.Open(c); failure.KindOf(err) != failure.Untrustworthy {
				t.Error(err)
			}
		})
	}
	b := newBench(t, plainPolicy)
	c := b.taken("default", "one")
	c.Aspects = []string{"network"}
	if s, err := b.FactsOf(c); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("aspects without facts: %v, %v", s, err)
	}
}

// A baseline that somebody took away is not one that nobody ever took.
func TestTakenAway(t *testing.T) {
	b := newBench(t, plainPolicy)
	if _, err := b.Find(t.Context(), "default"); !errors.Is(err, ErrNoBaseline) {
		t.Error(err)
	}
	b.taken("default", "one")
	b.taken("app", "one")
	if _, err := b.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	b.edit(func(tx *state.Tx) error { return tx.DeleteBucket(currentBucket) })
	if _, err := b.Find(t.Context(), "app"); !errors.Is(err, ErrNoBaseline) {
		t.Error(err)
	}
	for what, do := range map[string]func() error{
		"check": func() error { _, err := b.Compare(t.Context(), CompareOptions{Name: "default"}); return err },
		"a baseline if there is none": func() error {
			_, err := b.Take(t.Context(), TakeOptions{Name: "default", Policy: b.pol, Scan: Scan{Tree: b.tree}, IfMissing: true})
			return err
		},
	} {
		if err := do(); failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), "no record says who removed it") {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.taken("default", "looked into")
	b.compared("")
	// Nor is it when the history went with it.
	b.edit(func(tx *state.Tx) error {
		return errors.Join(tx.DeleteBucket(catalogBucket), tx.DeleteBucket([]byte("integrity.history")), tx.DeleteBucket([]byte("integrity.history.meta")))
	})
	if _, err := b.Find(t.Context(), "default"); failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), "all of its records are gone") {
		t.Error(err)
	}
}

// TestOpenCurrentIsProven: what goes by the current baseline without a check,
// such as a watch, does not believe a catalogue that points to an older one.
func TestOpenCurrentIsProven(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "old")
	old := b.take().Entry
	b.put("f", "new")
	b.take()
	o, err := b.OpenCurrent(t.Context(), "default")
	b.must(err)
	o.Close()
	b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
		return tx.Bucket(currentBucket).Put([]byte("default"), []byte(old.ID))
	}))
	if _, err := b.OpenCurrent(t.Context(), "default"); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("an older baseline was put in the place of the current one: %v", err)
	}
}
