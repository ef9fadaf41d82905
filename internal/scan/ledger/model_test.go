package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

// believed is what the model thinks of one item.
type believed struct {
	first, fixSince, resolvedAt time.Time
	open                        bool
	reopened                    int
	severity                    Severity
}

// TestTheModel observes random scans and compares with what a simple model says.
func TestTheModel(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := newMemo(t)
		model, ran := map[string]*believed{}, map[protocol.Scanner]bool{}
		at := noon
		for step := range 25 {
			at = at.Add(time.Duration(1+r.IntN(40)) * time.Hour)
			o := Observation{Asset: host, At: at, Complete: true}
			for _, s := range protocol.Scanners() {
				if r.IntN(4) > 0 {
					o.Scanners = append(o.Scanners, s)
				}
			}
			if len(o.Scanners) == 0 {
				continue
			}
			failed, skipped := map[string]bool{}, map[string]bool{}
			for d := range 4 {
				switch r.IntN(8) {
				case 0:
					o.Complete = false
					o.Unseen.Paths = append(o.Unseen.Paths, fmt.Sprintf("d%d", d))
					failed[fmt.Sprintf("d%d", d)] = true
				case 1:
					o.Unseen.SkipDirs = append(o.Unseen.SkipDirs, fmt.Sprintf("d%d", d))
					skipped[fmt.Sprintf("d%d", d)] = true
				}
			}
			o.Unseen.Older = r.IntN(5) == 0
			want := Changes{}
			sawNow := map[string]bool{}
			for n := range 60 {
				class, dir := Classes()[n%4], fmt.Sprintf("d%d", n/4%4)
				if !slices.Contains(o.Scanners, class.Scanner()) || failed[dir] || skipped[dir] || r.IntN(3) == 0 {
					continue
				}
				id := fmt.Sprintf("ID-%d", n)
				s := Sighting{Class: class, ID: id, Paths: []string{dir + "/file"}, Severity: Severities()[r.IntN(5)]}
				if class == Vulnerability {
					s.Type, s.Package, s.Installed = "npm", "left-pad", []string{fmt.Sprint(r.IntN(3))}
					if r.IntN(3) == 0 {
						s.Fixed = []string{"9"}
					}
				}
				o.Items = append(o.Items, s)
				sawNow[id] = true
				b := model[id]
				switch {
				case b == nil:
					b = &believed{first: at}
					model[id] = b
					if len(ran) > 0 && !ran[class.Scanner()] {
						want.Baseline = append(want.Baseline, Item{})
					} else {
						want.New = append(want.New, Item{})
					}
				case b.open:
					want.Still++
				default:
					b.reopened++
					want.Reopened = append(want.Reopened, Item{})
				}
				b.open, b.severity, b.resolvedAt = true, s.Severity, time.Time{}
				if len(s.Fixed) > 0 && b.fixSince.IsZero() {
					b.fixSince = at
				}
			}
			for n := range 60 {
				id, class, dir := fmt.Sprintf("ID-%d", n), Classes()[n%4], fmt.Sprintf("d%d", n/4%4)
				b := model[id]
				if b == nil || !b.open || sawNow[id] || !slices.Contains(o.Scanners, class.Scanner()) {
					continue
				}
				if failed[dir] || skipped[dir] || o.Unseen.Older && class == Vulnerability {
					want.Unseen++
					continue
				}
				b.open, b.resolvedAt = false, at
				want.Resolved = append(want.Resolved, Item{})
			}
			r.Shuffle(len(o.Items), func(i, j int) { o.Items[i], o.Items[j] = o.Items[j], o.Items[i] })
			got := m.observe(o)
			for _, s := range o.Scanners {
				ran[s] = true
			}
			sizes := func(c *Changes) string {
				return fmt.Sprint(len(c.New), len(c.Baseline), len(c.Reopened), len(c.Resolved), c.Still, c.Unseen)
			}
			if sizes(got) != sizes(&want) {
				t.Fatalf("seed %d step %d: %s, not %s", seed, step, sizes(got), sizes(&want))
			}
			open := 0
			for _, i := range m.list(Filter{}, at) {
				b := model[i.ID]
				if b == nil || !i.FirstSeen.Equal(b.first) || !i.FixSince.Equal(b.fixSince) || !i.ResolvedAt.Equal(b.resolvedAt) || (i.State == Open) != b.open || i.Reopened != b.reopened || i.Severity != b.severity {
					t.Fatalf("seed %d step %d: %+v, not %+v", seed, step, i, b)
				}
				if b.open {
					open++
				}
			}
			if got.Counts.Total() != open {
				t.Fatalf("seed %d step %d: %d counted, %d open", seed, step, got.Counts.Total(), open)
			}
			m.consistent(at)
		}
	}
}

// consistent fails when counts, items, scopes and findings do not fit each other.
func (m *memo) consistent(now time.Time) {
	m.Helper()
	m.view(func(tx *state.Tx) error {
		open := map[string]bool{}
		err := shelves(tx, "", func(s *shelf) error {
			var count tally
			items := 0
			err := s.each(func(r *record) error {
				i, err := r.item(s)
				if err != nil {
					return err
				}
				items++
				count.add(r.class, r.severity, r.standing, r.disposition)
				if r.standing != resolved {
					open[ruleOf(&i.Sighting)+" "+subjectOf(s.asset, r.key, r.Subject, r.Ecosystem, &i.Sighting)] = true
				}
				return nil
			})
			if got, want := fmt.Sprint(s.about.Counts, s.about.Items), fmt.Sprint(count.counts(), items); got != want {
				m.Errorf("%s counts %s, and has %s", s.asset, got, want)
			}
			runs, err2 := s.scans()
			if err == nil && (err2 != nil || len(runs) == 0 || !runs[len(runs)-1].At.Equal(s.about.Latest)) {
				m.Errorf("the latest of %d scans is not %s: %v", len(runs), s.about.Latest, err2)
			}
			return err
		})
		if err != nil {
			return err
		}
		list, err := finding.List(tx, finding.Filter{Sources: []string{FindingSource}}, now)
		for _, r := range list {
			if key := r.Rule + " " + r.Subject; (r.State != finding.Resolved) != open[key] {
				m.Errorf("the finding %s is %s", key, r.State)
			}
			delete(open, r.Rule+" "+r.Subject)
		}
		for key := range open {
			m.Errorf("%s has no finding", key)
		}
		return err
	})
}

// The variable that makes this test program observe until it is killed.
const observeUntilKilled = "MOBILEOPS_TEST_LEDGER_OBSERVES"

// TestKilledBetweenAndWithin kills processes that observe, at any moment, and finds
// a ledger in which everything fits.
func TestKilledBetweenAndWithin(t *testing.T) {
	if dir := os.Getenv(observeUntilKilled); dir != "" {
		store, l := state.New(dir, state.Options{}), Ledger{}
		r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
		for {
			var items []Sighting
			for n := range 300 {
				if r.IntN(3) > 0 {
					items = append(items, vuln(fmt.Sprintf("CVE-%d", n), "a", fmt.Sprint(r.IntN(3)), "", High))
				}
			}
			err := store.Update(context.Background(), func(tx *state.Tx) error {
				_, err := l.Observe(tx, Observation{Asset: host, At: time.Now(), Scanners: protocol.Scanners()[:1], Complete: true, Items: items})
				return err
			})
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			fmt.Println("observed")
		}
	}
	m := &memo{t, Ledger{}, nil}
	dir := t.TempDir()
	for n := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledBetweenAndWithin$")
		cmd.Env = append(os.Environ(), observeUntilKilled+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for seen := 0; seen < 3 && lines.Scan(); { // each has two thirds of the items
			if strings.HasPrefix(lines.Text(), "error") {
				t.Error(lines.Text())
			}
			seen++
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // into the middle of a transaction
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		m.store = state.New(dir, state.Options{})
		m.consistent(time.Now())
		if list := m.list(Filter{}, time.Now()); len(list) < 250 {
			t.Errorf("%s: %d items", strconv.Itoa(n), len(list))
		}
	}
}

// FuzzStored reads damaged items: an error or an item that can be stored again.
func FuzzStored(f *testing.F) {
	r := &record{memory: memory{Subject: "openssl", FirstSeen: noon, Events: []Event{{At: noon, What: SeverityChanged, From: "LOW", To: "HIGH"}}}}
	s := vuln("CVE-1", "openssl", "1", "2", High)
	stored, err := encodeSeen(&s)
	if err != nil {
		f.Fatal(err)
	}
	r.say(&s, stored)
	v, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v)
	f.Add(v[:20])
	f.Add([]byte{})
	f.Add([]byte("\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRecord(make([]byte, 16), b)
		if err != nil {
			return
		}
		if _, err := r.last(); err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(make([]byte, 16), again); err != nil {
			t.Fatal(err)
		}
	})
}
