package isolation

import (
	"errors"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// TestAnInterfaceThatWentMeanwhile is what kernels before 6.16 say of it.
func TestAnInterfaceThatWentMeanwhile(t *testing.T) {
	gone := Interface{Index: 999_999, Name: "gone0", Ethernet: true}
	p, err := Prepare(Options{}, "a test")
	if err != nil {
		t.Fatal(err)
	}
	p.plan.around.interfaces = append(p.plan.around.interfaces, gone)
	isThere := func() bool {
		return slices.ContainsFunc(p.plan.around.interfaces, func(i Interface) bool { return i.Name == gone.Name })
	}
	commits := 0
	old := func(*nft.Batch) error {
		if commits++; isThere() {
			return &nft.Error{What: "add chain netdev " + TableName + " ingress_999999", Errno: unix.ENOENT}
		}
		return nil
	}
	if err := p.give(old); err != nil || commits != 2 || isThere() {
		t.Errorf("%v after %d attempts", err, commits)
	}
	for _, never := range []error{
		&nft.Error{What: "add chain netdev " + TableName + " ingress_1", Errno: unix.EOPNOTSUPP},
		&nft.Error{What: "add chain inet " + TableName + " arriving", Errno: unix.ENOENT},
		&nft.Error{What: "add chain netdev " + TableName + " ingress_1", Errno: unix.ENOENT},
	} {
		commits = 0
		err := p.give(func(*nft.Batch) error { commits++; return never })
		if !errors.Is(err, never) || commits > 10 {
			t.Errorf("%v after %d attempts, want %v", err, commits, never)
		}
	}
}
