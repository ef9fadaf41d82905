package update

import (
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/update/store"
)

func TestTheWorstDifferenceDecides(t *testing.T) {
	for kinds, want := range map[string]failure.Kind{
		"":                        failure.None,
		"edited drifted added":    failure.None,
		"edited changed":          failure.No,
		"mode":                    failure.No,
		"removed type":            failure.No,
		"damaged changed":         failure.Untrustworthy,
		"unread":                  failure.Incomplete,
		"changed unread damaged":  failure.Incomplete,
		"changed damaged drifted": failure.Untrustworthy,
	} {
		v := new(Verified)
		for _, k := range strings.Fields(kinds) {
			v.Differences = append(v.Differences, store.Difference{Kind: k})
		}
		if got := v.Kind(); got != want {
			t.Errorf("%q is %v, want %v", kinds, got, want)
		}
	}
	v := &Verified{Replaced: store.ErrReplaced}
	v.Differences = []store.Difference{{Kind: store.Changed}}
	if got := v.Kind(); got != failure.Untrustworthy {
		t.Errorf("an installation that is used no more is %v", got)
	}
}

func TestEveryPathHasAScope(t *testing.T) {
	long := "/" + strings.Repeat("x", 4000)
	if a, b := scope("tree", long), scope("tree", long+"y"); len(a) > finding.MaxScope || a == b {
		t.Errorf("%q and %q", a, b)
	}
	if got := scope("tree", "/opt/app"); got != "tree:/opt/app" {
		t.Errorf("%q", got)
	}
}
