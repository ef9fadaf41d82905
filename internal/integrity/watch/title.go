package watch

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity"
)

const (
	maxTitleProgram = 48 // bytes of a program's name
	maxTitleAspects = 6  // attributes that are named
)

// titleOf says what happened to a file and who did it, so that the finding of a
// watch is told from that of a check on the same file.
func titleOf(c *integrity.Change, p *Process) string {
	verb := map[integrity.ChangeKind]string{integrity.Added: "Added", integrity.Removed: "Removed", integrity.Moved: "Moved"}[c.Kind]
	if verb == "" {
		verb = "Changed"
	}
	title := verb + " by " + titleWho(p)
	var names []string
	for _, a := range c.Attributes {
		if !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	if more := len(names) - maxTitleAspects; more > 0 {
		names = append(names[:maxTitleAspects], strconv.Itoa(more)+" more")
	}
	if len(names) > 0 && (c.Kind == integrity.Changed || c.Kind == integrity.Moved) {
		title += ": " + strings.Join(names, ", ")
	}
	if c.Class == integrity.Suspicious {
		title = "Suspicious: " + c.Reason + "; " + strings.ToLower(title[:1]) + title[1:]
	}
	return title
}

// titleWho names a process in a few words. Its name is what whoever made the
// program chose.
func titleWho(p *Process) string {
	switch {
	case p == nil:
		return "an unknown process"
	case p.PID == 0:
		return "another namespace or the kernel"
	case !p.Known():
		return fmt.Sprintf("pid %d, which had ended", p.PID)
	}
	name := path.Base(p.Program())
	if len(name) > maxTitleProgram {
		name = name[:maxTitleProgram] + "..."
	}
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` {
		name = quoted
	}
	if p.UID >= 0 {
		name += fmt.Sprintf(" (uid %d)", p.UID)
	}
	return name
}
