package dhcp

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func sample(n int, state State) *Lease {
	return &Lease{Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), State: state, Client: "01aa", MAC: mac(n), Port: "mo-p-web", Name: "web",
		Since: start, Until: start.Add(time.Hour), place: -1}
}

func write(t *testing.T, list ...*Lease) (string, []byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.leases")
	j, old, err := openJournal(name)
	if err != nil || len(old) != 0 {
		t.Fatal(old, err)
	}
	j.add(list)
	if err := errors.Join(j.commit(), j.close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, data
}

func TestEveryCutOfTheFileIsReadAsFarAsItGoes(t *testing.T) {
	name, data := write(t, sample(1, Bound), sample(2, Bound), sample(1, Ended))
	ends := []int{}
	for i, b := range data {
		if b == '\n' {
			ends = append(ends, i+1)
		}
	}
	for cut := range len(data) + 1 {
		if err := os.WriteFile(name, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, list, err := openJournal(name)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		want := 0
		for _, e := range ends[1:] {
			if cut >= e {
				want++
			}
		}
		if want == 3 {
			want = 2
			if list[0].State != Ended {
				t.Errorf("the newest record does not count: %+v", list[0])
			}
		}
		if len(list) != want {
			t.Errorf("cut at %d: %d leases, want %d", cut, len(list), want)
		}
		// And it goes on.
		j.add([]*Lease{sample(3, Bound)})
		if err := errors.Join(j.commit(), j.close()); err != nil {
			t.Fatal(err)
		}
		if list, err := ReadLeases(name, start); err != nil || len(list) != want+1 {
			t.Errorf("cut at %d, and one added: %d leases, %v", cut, len(list), err)
		}
	}
}

func TestDamageIsSaid(t *testing.T) {
	name, data := write(t, sample(1, Bound), sample(2, Bound), sample(3, Bound))
	for _, at := range []int{0, 3, len(fileHeader), len(fileHeader) + 5, len(fileHeader) + 30} {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := openJournal(name)
		var damage *CorruptError
		if !errors.As(err, &damage) || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("byte %d changed: %v", at, err)
		}
		if after, _ := os.ReadFile(name); !bytes.Equal(after, bad) {
			t.Errorf("byte %d changed: the file was written to", at)
		}
	}
}

func TestTheFileStaysSmall(t *testing.T) {
	d := newDesk(t, nil)
	for range 4000 {
		d.lease(1)
	}
	st, err := os.Stat(d.s.cfg.File)
	if err != nil || st.Size() > 2*compactSize || st.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes, mode %v after 4000 renewals: %v", st.Size(), st.Mode(), err)
	}
	before := d.s.Leases()
	d.restart()
	if after := d.s.Leases(); len(after) != 1 || after[0].Address != before[0].Address || !after[0].Until.Equal(before[0].Until) {
		t.Errorf("%+v became %+v", before, after)
	}
}
