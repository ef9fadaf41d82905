package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

func TestPublishingSignsWhatIsNeeded(t *testing.T) {
	w := newWorld(t)
	signed := func(p *Publication) string { return strings.Join(p.Signed, " ") }
	if p := w.publish(); signed(p) != "timestamp" || len(p.Added)+len(p.Removed)+len(p.Due) != 0 {
		t.Errorf("nothing is staged: %+v", p)
	}
	w.add("1.2", 3, []byte("third"))
	if p := w.publish(); signed(p) != "timestamp snapshot targets" || !slices.Equal(p.Added, []string{"platform-1.2.tar.zst", "platform-1.2.tar.zst.minisig"}) {
		t.Errorf("a package was staged: %+v", p)
	}
	w.clock = w.clock.Add(16 * 24 * time.Hour) // half of the snapshot's time is over, and the timestamp has expired
	if p := w.publish(); signed(p) != "timestamp snapshot" {
		t.Errorf("the snapshot is old: %+v", p)
	}
	w.clock = w.clock.Add(180 * 24 * time.Hour) // half of the root's, and all of the others'
	p, err := w.pub.Publish(w.ctx, PublishOptions{Signers: w.signers, Lifetime: time.Hour})
	if err != nil || signed(p) != "timestamp snapshot targets" || len(p.Due) != 1 || p.Due[0].Role.Name != "root" || p.Due[0].Urgent {
		t.Errorf("%+v, %v", p, err)
	}
	if end := p.Roles[1].Expires; !end.Equal(w.clock.Add(time.Hour)) {
		t.Errorf("the timestamp is good until %v", end)
	}
	if _, err := w.pub.Publish(w.ctx, PublishOptions{Signers: w.signers, Root: true}); err != nil {
		t.Fatal(err)
	}
	if f, err := w.host().Refresh(w.ctx); err != nil || f.Roles[0].Version != 2 || f.Roles[0].Expires.Before(w.clock.Add(364*24*time.Hour)) {
		t.Errorf("%+v, %v", f, err)
	}
}

// Cron has the timestamp's key alone. It goes on, and says what will be due.
func TestPublishingWithTheTimestampKeyAlone(t *testing.T) {
	w := newWorld(t)
	only := func(role string) ([]trust.Signer, error) {
		if role != "timestamp" {
			return nil, errors.New("the key is in a safe")
		}
		return w.signers(role)
	}
	w.clock = w.clock.Add(26 * 24 * time.Hour)
	p, err := w.pub.Publish(w.ctx, PublishOptions{Signers: only})
	if err != nil || len(p.Due) != 1 || p.Due[0].Role.Name != "snapshot" || !p.Due[0].Urgent || !strings.Contains(p.Due[0].Reason.Error(), "in a safe") {
		t.Fatalf("%+v, %v", p, err)
	}
	w.add("1.2", 3, []byte("third"))
	if _, err := w.pub.Publish(w.ctx, PublishOptions{Signers: only}); err == nil || !strings.Contains(err.Error(), "key of targets: the key is in a safe") {
		t.Errorf("a package cannot be published without the key of targets: %v", err)
	}
	if list := w.available(w.refreshed()); len(list) != 2 {
		t.Error(list)
	}
	_, err = w.pub.Publish(w.ctx, PublishOptions{Signers: func(string) ([]trust.Signer, error) { return []trust.Signer{newKey(t)}, nil }})
	if !errors.Is(err, ErrWrongKey) || failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("a key of nobody: %v", err)
	}
}

func TestWhatCannotBeStaged(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		mustWrite(t, filepath.Join(dir, name), []byte(content))
		return filepath.Join(dir, name)
	}
	r := func(version string, sequence uint64) *trust.Release { rel := release(version, sequence); return &rel }
	bad := 100.5
	for name, tc := range map[string]struct {
		pkg  string
		o    AddOptions
		want error
		kind failure.Kind
	}{
		"no signature":                {file("a.tar", "x"), AddOptions{}, nil, failure.Untrustworthy},
		"the name of a published one": {file("platform-1.0.tar.zst", "other"), AddOptions{Release: r("9", 9)}, ErrExists, failure.Busy},
		"its version":                 {file("b.tar", "x"), AddOptions{Release: r("1.0", 9)}, ErrExists, failure.Busy},
		"its sequence":                {file("c.tar", "x"), AddOptions{Release: r("9", 1)}, ErrExists, failure.Busy},
		"a hidden name":               {file(".d.tar", "x"), AddOptions{Release: r("9", 9)}, nil, failure.Usage},
		"a name with a space":         {file("d d.tar", "x"), AddOptions{Release: r("9", 9)}, nil, failure.Usage},
		"a percentage above 100":      {file("e.tar", "x"), AddOptions{Release: r("9", 9), Percent: &bad}, nil, failure.Usage},
		"a directory":                 {dir, AddOptions{Release: r("9", 9)}, nil, failure.Usage},
		"an advisory with a space":    {file("f.tar", "x"), AddOptions{Release: r("9", 9), Advisories: []string{"CVE 1"}}, nil, failure.Usage},
	} {
		_, err := w.pub.Add(w.ctx, tc.pkg, tc.o)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) || failure.KindOf(err) != tc.kind {
			t.Errorf("%s: %v, status %d", name, err, failure.KindOf(err).Status())
		}
	}
	if r, err := w.pub.Report(); err != nil || len(r.Offers) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := w.pub.Init(w.ctx, InitOptions{Keys: map[string][]trust.Signer{"root": {w.keys["root"]}, "targets": {w.keys["root"]}, "snapshot": {w.keys["root"]}, "timestamp": {w.keys["root"]}}}); !errors.Is(err, ErrExists) {
		t.Errorf("a second repository in one place: %v", err)
	}
}

func TestRemovedFilesGoWithTheNextPublicationButOne(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, remoteTarget("platform-1.0.tar.zst", w.available(w.refreshed())[0].Hashes, true))
	foreign := filepath.Join(w.dir, "targets", "README")
	mustWrite(t, foreign, []byte("not ours"))
	if _, err := w.pub.Remove("platform", "1.0"); err != nil {
		t.Fatal(err)
	}
	w.publish()
	if _, err := os.Stat(path); err != nil {
		t.Error("hosts may be downloading it")
	}
	if list := w.available(w.refreshed()); len(list) != 1 {
		t.Error(list)
	}
	w.add("1.2", 3, []byte("third"))
	w.publish()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is still there")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("somebody else's file is gone")
	}
	if _, err := w.pub.Remove("platform", "1.0"); !errors.Is(err, ErrNoPackage) || failure.KindOf(err) != failure.No {
		t.Error(err)
	}
}

func TestARolloutGrows(t *testing.T) {
	w := newWorld(t)
	for _, percent := range []float64{0.01, 12.34, 100, 0} {
		if _, _, err := w.pub.SetRollout("platform", "1.1", percent); err != nil {
			t.Fatal(err)
		}
		p := w.publish()
		if len(p.Added) != 1 {
			t.Errorf("%+v", p)
		}
		if got := w.available(w.refreshed())[1].Rollout; got != (Rollout{percent, "platform-1.1"}) {
			t.Errorf("%v: hosts see %+v", percent, got)
		}
	}
	if _, _, err := w.pub.SetRollout("platform", "9", 1); !errors.Is(err, ErrNoPackage) {
		t.Error(err)
	}
}

// A threshold of the root keys has to sign, of the old ones and of the new.
func TestRootsWithAThreshold(t *testing.T) {
	w := newWorld(t)
	a, b, c, d := newKey(t), newKey(t), newKey(t), newKey(t)
	w.dir = filepath.Join(t.TempDir(), "r")
	w.pub = OpenPublisher(w.dir, w.now)
	one := []trust.Signer{w.keys["timestamp"]}
	opts := InitOptions{Keys: map[string][]trust.Signer{"root": {a, a}, "targets": one, "snapshot": one, "timestamp": one}, Threshold: 2}
	if err := w.pub.Init(w.ctx, opts); failure.KindOf(err) != failure.Usage {
		t.Errorf("one key twice is not two: %v", err)
	}
	opts.Keys["root"] = []trust.Signer{a, b, c}
	if err := w.pub.Init(w.ctx, opts); err != nil {
		t.Fatal(err)
	}
	w.source = w.dir
	w.refreshed()
	before := tree(t, w.dir)
	for name, o := range map[string]RotateOptions{ // a counts for the old root, d for the new one, and each lacks a second
		"old and new alone":    {Old: a, New: d},
		"a stranger beside it": {Old: a, New: d, Root: []trust.Signer{newKey(t)}},
		"one of two":           {OldID: mustID(t, a), New: d, Root: []trust.Signer{b}},
	} {
		o.Roles = []string{"root"}
		_, err := w.pub.Rotate(w.ctx, o)
		if failure.KindOf(err) != failure.NotAllowed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !maps.Equal(before, tree(t, w.dir)) {
		t.Error("the repository changed")
	}
	if _, err := w.pub.Rotate(w.ctx, RotateOptions{Roles: []string{"root"}, OldID: mustID(t, a)[:12], New: d, Root: []trust.Signer{b, c}}); err != nil {
		t.Fatal(err)
	}
	if f, err := w.host().Refresh(w.ctx); err != nil || f.Roles[0].Version != 2 {
		t.Errorf("%+v, %v", f, err)
	}
}

func mustID(t *testing.T, s trust.Signer) string {
	t.Helper()
	id, err := keyID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// While keys are replaced, hosts that are new, that know the last root and that
// know the first one can refresh at any moment.
func TestNoMomentIsBadWhileKeysAreReplaced(t *testing.T) {
	w := newWorld(t)
	w.source = w.dir
	pin := w.pin()
	w.refreshed()
	// What is on the disk after each step of a rotation: every write is a rename.
	for _, role := range []string{"targets", "snapshot", "timestamp", "root"} {
		before := tree(t, w.dir)
		fresh := newKey(t)
		if _, err := w.pub.Rotate(w.ctx, RotateOptions{Roles: []string{role}, Old: w.keys[role], New: fresh, Root: []trust.Signer{w.keys["root"]}, Signers: w.signers}); err != nil {
			t.Fatal(role, err)
		}
		old := w.keys[role]
		w.keys[role] = fresh
		after := tree(t, w.dir)
		for n, files := range stages(before, after) {
			dir := filepath.Join(t.TempDir(), "stage")
			for name, content := range files {
				if err := os.MkdirAll(filepath.Dir(dir+name), 0o755); err != nil {
					t.Fatal(err)
				}
				mustWrite(t, dir+name, []byte(content))
			}
			known := *w
			known.state = copyDir(t, w.state)
			if _, err := known.hostWith(Options{Source: dir, Root: pin}).Refresh(w.ctx); err != nil {
				t.Errorf("%s, after %d files, a host that knows the last root: %v", role, n, err)
			}
			newcomer := *w
			newcomer.state = t.TempDir()
			if _, err := newcomer.hostWith(Options{Source: dir, Root: pin}).Refresh(w.ctx); err != nil {
				t.Errorf("%s, after %d files, a new host: %v", role, n, err)
			}
			// The publisher, killed there, goes on with the keys that it remembers.
			half := OpenPublisher(dir, w.now)
			_, err := half.Publish(w.ctx, PublishOptions{Signers: func(r string) ([]trust.Signer, error) {
				if r == role {
					return []trust.Signer{old, fresh}, nil
				}
				return w.signers(r)
			}})
			if err != nil {
				t.Errorf("%s, after %d files: publishing: %v", role, n, err)
			}
		}
		w.publish()
		w.refreshed()
	}
}

// stages are the contents of a repository after each of the files that changed,
// in the order in which a rotation writes them.
func stages(before, after map[string]string) []map[string]string {
	order := func(name string) int {
		switch {
		case strings.HasPrefix(name, "/.publisher/"):
			return 0
		case strings.HasSuffix(name, ".targets.json"):
			return 1
		case strings.HasSuffix(name, ".snapshot.json"):
			return 2
		case strings.HasSuffix(name, "/timestamp.json"):
			return 3
		}
		return 4
	}
	var changed []string
	for name, content := range after {
		if before[name] != content {
			changed = append(changed, name)
		}
	}
	slices.SortFunc(changed, func(a, b string) int { return order(a) - order(b) })
	now := maps.Clone(before)
	list := []map[string]string{maps.Clone(now)}
	for _, name := range changed {
		now[name] = after[name]
		list = append(list, maps.Clone(now))
	}
	return list
}

// A lost key leaves a gap; the publisher comes out of it on either side.
func TestALostKey(t *testing.T) {
	w := newWorld(t)
	w.source = w.dir
	w.refreshed()
	before := tree(t, w.dir)
	fresh := newKey(t)
	r, err := w.pub.Rotate(w.ctx, RotateOptions{Roles: []string{"timestamp"}, OldID: mustID(t, w.keys["timestamp"]), New: fresh, Root: []trust.Signer{w.keys["root"]}, Signers: w.signers})
	if err != nil || !r.Gap {
		t.Fatalf("%+v, %v", r, err)
	}
	w.refreshed()
	// Killed in the gap: the root is there, the timestamp is the old one.
	mustWrite(t, filepath.Join(w.dir, "metadata", "timestamp.json"), []byte(before["/metadata/timestamp.json"]))
	_, err = w.host().Refresh(w.ctx)
	refused(t, err, CodeSignature, failure.Untrustworthy)
	w.keys["timestamp"] = fresh
	w.publish()
	w.refreshed()
	for _, bad := range []string{"", "1234", strings.Repeat("0", 64)} {
		_, err := w.pub.Rotate(w.ctx, RotateOptions{Roles: []string{"timestamp"}, OldID: bad, New: newKey(t), Root: []trust.Signer{w.keys["root"]}, Signers: w.signers})
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Killed at any moment, publishing leaves something that hosts accept, and goes
// on the next time.
func TestPublishingIsKilled(t *testing.T) {
	if dir := os.Getenv("REPO_TEST_PUBLISH"); dir != "" {
		publishForEver(t, dir)
		return
	}
	w := newWorld(t)
	w.source = w.dir
	keys := t.TempDir()
	for role, k := range w.keys {
		data, err := os.ReadFile(k.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(keys, role), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	kills, last := 0, int64(0)
	for range 30 {
		ctx, cancel := context.WithCancel(w.ctx)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPublishingIsKilled$")
		cmd.Env = append(os.Environ(), "REPO_TEST_PUBLISH="+w.dir, "REPO_TEST_KEYS="+keys)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var one [1]byte
		if _, err := out.Read(one[:]); err != nil { // it has begun
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond)
		cancel()
		_ = cmd.Wait()
		kills++
		f, err := w.host().Refresh(w.ctx)
		if err != nil {
			t.Fatalf("after %d kills: %v", kills, err)
		}
		if v := f.Roles[1].Version; v < last {
			t.Fatalf("after %d kills the timestamp has version %d after %d", kills, v, last)
		} else {
			last = v
		}
	}
	w.publish()
	c := w.refreshed()
	for _, target := range w.available(c) {
		if err := c.Download(w.ctx, target, filepath.Join(t.TempDir(), "x"), nil); err != nil {
			t.Errorf("%s: %v", target.Path, err)
		}
	}
	t.Logf("%d kills, timestamp %d, %d packages", kills, last, len(w.available(c)))
}

// publishForEver is the process that is killed.
func publishForEver(t *testing.T, dir string) {
	// The clock of the test stands at a day that may have passed.
	clock := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	p := OpenPublisher(dir, func() time.Time { return clock })
	keys := func(role string) ([]trust.Signer, error) {
		s, err := trust.OpenSigner(t.Context(), filepath.Join(os.Getenv("REPO_TEST_KEYS"), role), nil)
		return []trust.Signer{s}, err
	}
	pkg := t.TempDir()
	fmt.Println("begun")
	var n atomic.Uint64
	n.Store(uint64(time.Now().UnixNano()))
	for {
		rel := release(fmt.Sprint("n", n.Add(1)), n.Load())
		path := filepath.Join(pkg, "platform-"+rel.Version+".tar")
		mustWrite(t, path, noise(3000))
		if _, err := p.Add(t.Context(), path, AddOptions{Release: &rel}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), PublishOptions{Signers: keys}); err != nil {
			t.Fatal(err)
		}
	}
}
