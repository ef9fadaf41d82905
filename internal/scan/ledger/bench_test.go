package ledger

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

// manyItems are vulnerabilities of a large, old system.
func manyItems(n int) []Sighting {
	list := make([]Sighting, n)
	for i := range list {
		s := Sighting{
			Class: Vulnerability, ID: fmt.Sprintf("CVE-2024-%05d", i), Aliases: []string{fmt.Sprintf("DSA-%d-1", 5000+i%300)}, Type: "debian",
			Package: fmt.Sprintf("libpackage%d", i%700), Installed: []string{"3.0.11-1~deb12u2"}, Status: "affected",
			PURL:     fmt.Sprintf("pkg:deb/debian/libpackage%d@3.0.11-1~deb12u2?arch=amd64&distro=debian-12.5", i%700),
			Severity: Severities()[i%5], SeveritySource: "debian", CVSS: &CVSS{Score: float64(i%100)/10 + 0.1, Source: "nvd", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
			EPSS:  &EPSS{Score: float64(i%1000) / 1000, Percentile: float64(i%100) / 100, Date: noon},
			Title: "openssl: denial of service by excessive time spent checking invalid RSA public keys",
			URL:   fmt.Sprintf("https://avd.aquasec.com/nvd/cve-2024-%05d", i), References: []string{"https://www.openssl.org/news/secadv/20240115.txt", "https://access.redhat.com/security/cve/CVE-2024-1"},
			DataSource: "Debian Security Tracker", Published: noon.Add(-1000 * time.Hour),
		}
		if i%3 == 0 {
			s.Fixed = []string{"3.0.15-1~deb12u1"}
		}
		if i%500 == 0 {
			s.KEV = &KEV{Added: noon, Due: noon.Add(21 * 24 * time.Hour)}
		}
		list[i] = s
	}
	return list
}

// cpu is the processor time that this process took: on a machine that others use,
// the clock on the wall tells more about them.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var host = Asset{ID: "host:web1", Kind: protocol.Rootfs, Name: "web1"}

func BenchmarkObserve(b *testing.B) {
	const n = 10_000
	items := manyItems(n)
	another := manyItems(n)
	for i := range another {
		another[i].EPSS.Score += 0.0001
	}
	observe := func(b *testing.B, store *state.Store, at time.Time, items []Sighting) (lease time.Duration) {
		o := Observation{Asset: host, At: at, Scanners: protocol.Scanners()[:1], Complete: true, Items: items}
		if err := o.Prepare(); err != nil {
			b.Fatal(err)
		}
		begin := cpu()
		defer func() { lease = cpu() - begin }()
		err := store.Update(context.Background(), func(tx *state.Tx) error {
			c, err := Ledger{Policy: defaultPolicy()}.Observe(tx, o)
			if err == nil && len(c.New)+c.Still != n {
				b.Errorf("%d new, %d still", len(c.New), c.Still)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		return lease
	}
	b.Run("first", func(b *testing.B) {
		var within time.Duration
		for b.Loop() {
			within += observe(b, state.New(b.TempDir(), state.Options{}), noon, items)
		}
		b.ReportMetric(float64(within.Milliseconds())/float64(b.N), "cpu-ms-leased/op")
	})
	for _, c := range []struct {
		name  string
		step  time.Duration
		items [2][]Sighting
	}{
		{"unchanged", time.Minute, [2][]Sighting{items, items}},
		{"unchanged-next-day", 25 * time.Hour, [2][]Sighting{items, items}},
		{"epss-of-all-changed", time.Minute, [2][]Sighting{another, items}},
	} {
		b.Run(c.name, func(b *testing.B) {
			store := state.New(b.TempDir(), state.Options{})
			observe(b, store, noon, items)
			at, n := noon, 0
			var within time.Duration
			for b.Loop() {
				at = at.Add(c.step)
				within += observe(b, store, at, c.items[n%2])
				n++
			}
			b.ReportMetric(float64(within.Milliseconds())/float64(b.N), "cpu-ms-leased/op")
		})
	}
	store := state.New(b.TempDir(), state.Options{})
	observe(b, store, noon, items)
	read := func(name string, fn func(tx *state.Tx) error) {
		b.Run(name, func(b *testing.B) {
			begin := cpu()
			for b.Loop() {
				if err := store.View(context.Background(), fn); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-begin).Milliseconds())/float64(b.N), "cpu-ms-leased/op")
		})
	}
	l := Ledger{Policy: defaultPolicy()}
	read("list", func(tx *state.Tx) error { _, err := l.List(tx, Filter{Asset: host.ID}, noon); return err })
	read("diff", func(tx *state.Tx) error { _, err := l.Diff(tx, host.ID, noon, noon.Add(day)); return err })
	read("assets", func(tx *state.Tx) error { _, err := l.Assets(tx); return err })
}
