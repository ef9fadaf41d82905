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
		list []source.Status
		want []string
	}{
		{[]source.Status{{Path: "/a"}, {Path: "/b"}}, nil},
		{[]source.Status{{Path: "/a", Error: "no room"}, {Path: "/b", Error: "no room"}, {Path: "/c", Error: "denied"}}, []string{"/c: denied", "/a (and 1 more): no room"}},
		{[]source.Status{{Path: "/a", Error: "no room"}, {Path: "/c", Error: "denied"}}, nil},
		{[]source.Status{{Path: "/a", GapCount: 2, Gaps: []source.Gap{{Reason: "emptied"}}}, {Path: "/c", Error: "denied"}}, []string{"/a: records were lost before they were read: emptied", "over: no room"}},
		{[]source.Status{{Path: "/a", GapCount: 2, Gaps: []source.Gap{{Reason: "emptied"}}}}, []string{"over: denied"}},
		{[]source.Status{{Path: "/a", Error: "no room"}}, []string{"/a: no room"}},
	} {
		got = nil
		n.tell(step.list)
		if !slices.Equal(got, step.want) {
			t.Errorf("%+v: told %q, want %q", step.list, got, step.want)
		}
	}
}
