package logs

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/source"
)

func TestNewsAreToldOnce(t *testing.T) {
	var got []string
	n := news{notice: func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }}
	for _, step := range []struct {
		problems []source.Problem
		list     []source.Status
		want     []string
	}{
		{nil, []source.Status{{Path: "/a"}, {Path: "/b"}}, nil},
		{[]source.Problem{{Path: "/a", Reason: "no room"}, {Path: "/b", Reason: "no room"}, {Path: "/c", Reason: "denied"}}, nil, []string{"/c: denied", "/a (and 1 more): no room"}},
		{[]source.Problem{{Path: "/a", Reason: "no room"}, {Path: "/c", Reason: "denied"}}, nil, nil},
		{[]source.Problem{{Path: "/c", Reason: "denied"}}, []source.Status{{Path: "/a", GapCount: 2, Gaps: []source.Gap{{Reason: "emptied"}}}}, []string{"/a: records were lost before they were read: emptied", "over: no room"}},
		{nil, []source.Status{{Path: "/a", GapCount: 2, Gaps: []source.Gap{{Reason: "emptied"}}}}, []string{"over: denied"}},
		{[]source.Problem{{Path: "/a", Reason: "no room"}}, nil, []string{"/a: no room"}},
	} {
		got = nil
		n.tell(step.list, step.problems)
		if !slices.Equal(got, step.want) {
			t.Errorf("%+v: told %q, want %q", step.problems, got, step.want)
		}
	}
}
