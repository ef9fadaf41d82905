package update

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/store"
)

// resultDocument is what commands that change which generation is current print
// with --output json.
type resultDocument struct {
	Schema     string            `json:"schema"`
	Generation *store.Generation `json:"generation"`
	From       int               `json:"from"`
	Live       bool              `json:"live"`
	Undone     string            `json:"undone,omitempty"` // why the host went back
	Seconds    float64           `json:"seconds"`          // until it was live, without health check and hooks
	Pruned     *store.Pruned     `json:"pruned,omitempty"`
	Error      string            `json:"error,omitempty"`
}

func printResult(a *app.App, st *store.Store, verb string, self bool, r *update.Result, failed error) error {
	s := a.Streams
	if s.Format == ui.JSON || s.Format == ui.JSONL {
		d := resultDocument{Schema: "mobileops.update." + verb + "/v1", Generation: r.Generation, From: r.From, Live: r.Live, Undone: r.Undone, Seconds: r.Took.Seconds()}
		if len(r.Pruned.Generations) > 0 {
			d.Pruned = &r.Pruned
		}
		if failed != nil {
			d.Error = failed.Error()
		}
		if s.Format == ui.JSON {
			return s.Document(d)
		}
		out := s.Lines()
		if err := out.Print(d); err != nil {
			return err
		}
		return out.Flush()
	}
	var b strings.Builder
	g := r.Generation
	if failed == nil && !s.Quiet {
		fmt.Fprintf(&b, "%s", outcome(r))
		switch {
		case r.From > 0 && r.Live:
			fmt.Fprintf(&b, ", before it %d", r.From)
		case r.From > 0:
			fmt.Fprintf(&b, ", and %d is current", r.From)
		}
		fmt.Fprintf(&b, " (%s)\n", ui.Duration(r.Took.Round(time.Millisecond)))
		if verb == "apply" || verb == "self" {
			fmt.Fprintf(&b, "  %s, %s; new are %s, %s\n", ui.Plural(int64(g.Stats.Files), "file", "files"), ui.Bytes(g.Stats.Bytes),
				ui.Plural(int64(g.Stats.NewFiles), "file", "files"), ui.Bytes(g.Stats.NewBytes))
		}
	}
	if r.Adopted && !s.Quiet {
		fmt.Fprintf(&b, "  the directory that was there is generation %d, every file where it was; the installation is a link now\n", r.From)
	}
	if failed == nil && verb != "rollback" { // what somebody has to look at, also with --quiet
		b.WriteString(attention(st, g, s.Quiet))
	}
	if failed == nil && !s.Quiet {
		if len(r.Pruned.Generations) > 0 {
			fmt.Fprintf(&b, "  removed %s, %s freed\n", ui.Plural(int64(len(r.Pruned.Generations)), "generation", "generations"), ui.Bytes(r.Pruned.Bytes))
		}
		switch {
		case !r.Live && r.Undone == "":
			fmt.Fprintf(&b, "make it live: mobileops update activate %d\n", g.Number)
		case verb == "rollback" && self:
			fmt.Fprintf(&b, "go forward again: mobileops rollback --self --to %d\n", r.From)
		case r.From > 0 && self:
			b.WriteString("undo it: mobileops rollback --self\n")
		case verb == "rollback":
			if from, err := st.Generation(r.From); err == nil && from.Origin != nil && g.Origin != nil && from.Origin.Digest == g.Origin.Digest {
				fmt.Fprintf(&b, "  generation %d holds %s, too: run it once more to go back to what was before that\n", r.From, ui.Escape(content(from)))
			}
			fmt.Fprintf(&b, "go forward again: mobileops update activate %d\n", r.From)
		case r.From > 0:
			b.WriteString("undo it: mobileops rollback\n")
		}
	}
	_, err := fmt.Fprint(s.Out, b.String())
	return err
}

// listed is how many paths are shown before the rest is counted.
const listed = 10

// attention says what of a generation somebody should look at.
func attention(st *store.Store, g *store.Generation, quiet bool) string {
	var b strings.Builder
	var conflicts, merged []string
	for _, c := range g.Settled {
		switch {
		case c.Outcome == merge.Conflicted && waits(st, g, c):
			line := c.Path
			if c.Reason != "" {
				line += ": " + c.Reason
			}
			conflicts = append(conflicts, line)
		case c.Outcome == merge.Merged:
			merged = append(merged, c.Path)
		}
	}
	paths(&b, conflicts, "in conflict: what was edited here was kept, and what the package brings is beside it as NAME"+store.Aside)
	paths(&b, g.Edited, fmt.Sprintf("changed here although of a package: as packaged again (the change is in generation %d)", g.Base))
	paths(&b, g.Left, fmt.Sprintf("of no package: left behind in generation %d", g.Base))
	if !quiet {
		paths(&b, merged, "merged with what was edited here")
	}
	return b.String()
}

func paths(b *strings.Builder, list []string, what string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "  %s %s\n", ui.Plural(int64(len(list)), "file", "files"), what)
	for i, p := range list {
		if i == listed {
			fmt.Fprintf(b, "    and %d more: mobileops update show\n", len(list)-i)
			break
		}
		fmt.Fprintf(b, "    %s\n", ui.Escape(p))
	}
}

// waits reports whether nobody has settled a conflict yet: what the package brought
// still lies beside what was edited.
func waits(st *store.Store, g *store.Generation, c store.Settled) bool {
	if c.Outcome != merge.Conflicted {
		return false
	}
	_, err := os.Lstat(filepath.Join(st.Tree(g.Number), c.Path+store.Aside))
	return err == nil
}

// conflicts is the outcome of a generation that is live with conflicts.
func conflicts(st *store.Store, r *update.Result) error {
	if r.Live && slices.ContainsFunc(r.Generation.Settled, func(c store.Settled) bool { return waits(st, r.Generation, c) }) {
		return failure.Silent(failure.Incomplete)
	}
	return nil
}
