package repo

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

// Whatever happens to a local file, the host heals by itself, and afterwards an
// old publication is refused as if nothing had happened.
func TestTornLocalMetadataHealsAndForgetsNothing(t *testing.T) {
	files := map[string]string{ // file of the newest publication → its name in the one before
		"timestamp.json": "timestamp.json", "3.snapshot.json": "2.snapshot.json", "3.targets.json": "2.targets.json", "2.root.json": "1.root.json",
	}
	damage := map[string]func(w *world, name string, old []byte) error{
		"torn": func(w *world, name string, _ []byte) error {
			st, err := os.Stat(name)
			if err != nil {
				return err
			}
			return os.Truncate(name, st.Size()/2)
		},
		"garbage": func(w *world, name string, _ []byte) error { return os.WriteFile(name, noise(500), 0o600) },
		"zeros":   func(w *world, name string, _ []byte) error { return os.WriteFile(name, make([]byte, 4096), 0o600) },
		"empty":   func(w *world, name string, _ []byte) error { return os.WriteFile(name, nil, 0o600) },
		"missing": func(w *world, name string, _ []byte) error { return os.Remove(name) },
		"older":   func(w *world, name string, old []byte) error { return os.WriteFile(name, old, 0o600) },
		"directory": func(w *world, name string, _ []byte) error {
			_ = os.Remove(name)
			return os.MkdirAll(filepath.Join(name, "x"), 0o700)
		},
		"link": func(w *world, name string, _ []byte) error {
			_ = os.Remove(name)
			return os.Symlink("/dev/zero", name)
		},
		"all gone": func(w *world, name string, _ []byte) error { return os.RemoveAll(filepath.Dir(name)) },
	}
	for what, harm := range damage {
		for name, before := range files {
			t.Run(what+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.refreshed()
				pin := w.pin()
				old := copyDir(t, w.dir)
				oldFile, err := os.ReadFile(filepath.Join(old, "metadata", before))
				if err != nil {
					t.Fatal(err)
				}
				w.add("1.2", 3, []byte("third"))
				if _, err := w.pub.Publish(w.ctx, PublishOptions{Signers: w.signers, Root: true}); err != nil {
					t.Fatal(err)
				}
				w.refreshed()
				if err := harm(w, w.local(name), oldFile); err != nil {
					t.Fatal(err)
				}
				// The attack comes first, while the file is damaged ...
				attack := w.hostWith(Options{Source: old, Root: pin})
				if _, err := attack.Refresh(w.ctx); CodeOf(err) != CodeRollback {
					t.Fatalf("the old publication, with a damaged file here: %v", err)
				}
				// ... and again after it has healed.
				c := w.refreshed()
				if list := w.available(c); len(list) != 3 {
					t.Fatalf("%d packages", len(list))
				}
				if list := w.available(w.host()); len(list) != 3 {
					t.Fatalf("it has not healed: %d packages offline", len(list))
				}
				attack = w.hostWith(Options{Source: old, Root: pin})
				_, err = attack.Refresh(w.ctx)
				refused(t, err, CodeRollback, failure.Untrustworthy)
			})
		}
	}
}

// Both damages and attacks offline: what is here in pieces is not shown.
func TestDamagedMetadataIsNotShownOffline(t *testing.T) {
	for _, name := range []string{"timestamp.json", "2.snapshot.json", "2.targets.json"} {
		w := newWorld(t)
		w.refreshed()
		w.srv.Close()
		if err := os.Truncate(w.local(name), 20); err != nil {
			t.Fatal(err)
		}
		_, err := w.host().Available(w.ctx)
		refused(t, err, CodeNever, failure.NotReady)
	}
}

// A record that cannot be read is no reason to begin anew.
func TestADamagedRecordIsNoWayBack(t *testing.T) {
	w := newWorld(t)
	w.refreshed()
	s := state.New(w.state, state.Options{})
	for _, bad := range []string{"{torn", `{"schema":"mobileops.update.repository/v9"}`} {
		err := s.Update(w.ctx, func(tx *state.Tx) error {
			b := tx.Bucket([]byte(bucket))
			k, _ := b.Cursor().First()
			return b.Put(k, []byte(bad))
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.host().Refresh(w.ctx)
		refused(t, err, CodeRecord, failure.Untrustworthy)
		_, err = w.host().Available(w.ctx)
		refused(t, err, CodeRecord, failure.Untrustworthy)
	}
	f, err := os.OpenFile(s.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(noise(4096), 4096); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err = w.host().Refresh(w.ctx); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("a damaged state.db: %v", err)
	}
}

// Who pins a newer root of the same repository still has what was accepted;
// another repository begins anew, and does not make the first forgotten.
func TestTheRecordFollowsTheRepository(t *testing.T) {
	w := newWorld(t)
	pin := w.pin()
	old := copyDir(t, w.dir)
	if _, err := w.pub.Publish(w.ctx, PublishOptions{Signers: w.signers, Root: true}); err != nil {
		t.Fatal(err)
	}
	w.refreshed()
	second, err := os.ReadFile(filepath.Join(w.dir, "metadata", "2.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The attacker has the old timestamp, and the new root.
	mustWrite(t, filepath.Join(old, "metadata", "2.root.json"), second)
	if err := os.RemoveAll(filepath.Join(w.state, "update")); err != nil {
		t.Fatal(err)
	}
	_, err = w.hostWith(Options{Source: old, Root: second}).Refresh(w.ctx)
	if e := refused(t, err, CodeRollback, failure.Untrustworthy); e.Role != "timestamp" {
		t.Error(e)
	}
	other := newWorld(t)
	other.state = w.state
	if list := other.available(other.refreshed()); len(list) != 2 {
		t.Error(list)
	}
	_, err = w.hostWith(Options{Source: old, Root: pin}).Refresh(w.ctx)
	refused(t, err, CodeRollback, failure.Untrustworthy)
	if _, err := w.hostWith(Options{Source: w.dir, Root: second}).Refresh(w.ctx); err != nil {
		t.Error(err)
	}
}

// A stolen timestamp key can sign the highest version there is. The publisher
// comes back by replacing the key.
func TestComingBackFromTheHighestVersion(t *testing.T) {
	w := newWorld(t)
	good, err := os.ReadFile(filepath.Join(w.dir, "metadata", "timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	forge(w, "timestamp.json", func(m *tufTimestamp) { m.Signed.Version = 1<<53 - 1 }, w.keys["timestamp"])
	w.refreshed()
	mustWrite(t, filepath.Join(w.dir, "metadata", "timestamp.json"), good)
	_, err = w.host().Refresh(w.ctx)
	refused(t, err, CodeRollback, failure.Untrustworthy)
	fresh := newKey(t)
	if _, err := w.pub.Rotate(w.ctx, RotateOptions{Roles: []string{"timestamp"}, Old: w.keys["timestamp"], New: fresh, Root: []trust.Signer{w.keys["root"]}, Signers: w.signers}); err != nil {
		t.Fatal(err)
	}
	w.keys["timestamp"] = fresh
	w.publish()
	if list := w.available(w.refreshed()); len(list) != 2 {
		t.Error(list)
	}
	// And from here on nothing lower again.
	_, err = w.hostWith(Options{Source: copyWithout(t, w), Root: w.pin()}).Refresh(w.ctx)
	refused(t, err, CodeRollback, failure.Untrustworthy)
}

// copyWithout is the repository with a timestamp one version older, by the
// right key.
func copyWithout(t *testing.T, w *world) string {
	o := *w
	o.dir = copyDir(t, w.dir)
	forge(&o, "timestamp.json", func(m *tufTimestamp) { m.Signed.Version-- }, w.keys["timestamp"])
	return o.dir
}

// Many processes check at the same time while the publisher publishes.
func TestManyChecksAtOnce(t *testing.T) {
	w := newWorld(t)
	w.source = w.dir
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for last := int64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				c := w.host()
				f, err := c.Refresh(w.ctx)
				if CodeOf(err) == CodeRollback { // another process was faster; the next round sees it
					continue
				}
				if err != nil {
					t.Errorf("check: %v", err)
					return
				}
				if v := f.Roles[1].Version; v < last {
					t.Errorf("version %d after %d", v, last)
				} else {
					last = v
				}
			}
		})
	}
	for n := range 10 {
		w.add("2."+string(rune('0'+n)), uint64(10+n), []byte{byte(n)})
		w.publish()
	}
	close(stop)
	wg.Wait()
	if list := w.available(w.refreshed()); len(list) != 12 {
		t.Errorf("%d packages", len(list))
	}
}

// Metadata that cannot be kept is not used: what was accepted would be
// forgotten.
func TestNothingIsKeptWithoutRoom(t *testing.T) {
	w := newWorld(t)
	w.refreshed()
	w.add("1.2", 3, []byte("third"))
	w.publish()
	c := w.host()
	c.local.dir = "/dev/full/metadata"
	_, err := c.Refresh(w.ctx)
	refused(t, err, CodeDisk, failure.Failed)
	if list := w.available(w.host()); len(list) != 2 {
		t.Error(list)
	}
}

// A repository without consistent snapshots, as other tools write it, is read,
// too.
func TestPlainNames(t *testing.T) {
	w := newWorld(t)
	forge(w, "1.root.json", func(m *tufRoot) { m.Signed.ConsistentSnapshot = false }, w.keys["root"])
	pin := w.pin()
	for from, to := range map[string]string{"2.snapshot.json": "snapshot.json", "2.targets.json": "targets.json"} {
		if err := os.Rename(filepath.Join(w.dir, "metadata", from), filepath.Join(w.dir, "metadata", to)); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(w.dir, "targets", "platform-1.0.tar.zst"), []byte("first"))
	c := w.hostWith(Options{Source: w.srv.URL, Root: pin})
	if _, err := c.Refresh(w.ctx); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "x")
	if err := c.Download(w.ctx, w.available(c)[0], dst, nil); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(time.Hour)
	if list := w.available(w.hostWith(Options{Source: w.srv.URL, Root: pin})); len(list) != 2 {
		t.Error("not readable offline")
	}
}
