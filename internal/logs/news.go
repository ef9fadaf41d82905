package logs

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mobileops/mobileops/internal/logs/source"
)

// news tells what changed for the worse, or for the better again, while nobody
// waits for the report of a collector: each reason once, however many files
// have it.
type news struct {
	notice func(format string, args ...any)
	errors map[string]bool  // reasons that were told and are not over
	gaps   map[string]int64 // how many were told, by instance
}

// tell compares how it stands with what was told before.
func (n *news) tell(list []source.Status, problems []source.Problem) {
	if n.gaps == nil {
		n.errors, n.gaps = map[string]bool{}, map[string]int64{}
	}
	first, count := map[string]string{}, map[string]int{}
	for _, p := range problems {
		if count[p.Reason]++; count[p.Reason] == 1 {
			first[p.Reason] = p.Path
		}
	}
	for i := range list {
		st := &list[i]
		key := st.Source + "\x00" + st.Path
		if st.GapCount > n.gaps[key] && len(st.Gaps) > 0 {
			n.notice("%s: records were lost before they were read: %s", st.Path, st.Gaps[len(st.Gaps)-1].Reason)
		}
		if st.GapCount > 0 {
			n.gaps[key] = st.GapCount
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(count)) {
		if n.errors[reason] {
			continue
		}
		n.errors[reason] = true
		more := ""
		if count[reason] > 1 {
			more = fmt.Sprintf(" (and %d more)", count[reason]-1)
		}
		n.notice("%s%s: %s", first[reason], more, reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(n.errors)) {
		if count[reason] == 0 {
			delete(n.errors, reason)
			n.notice("over: %s", reason)
		}
	}
}
