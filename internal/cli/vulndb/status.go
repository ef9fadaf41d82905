package vulndb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newStatus(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "status",
		Short: "Show how old the vulnerability database is, what is in it and where it is from",
		Long: `Show how old the vulnerability database is, what is in it and where it is from; and of
when KEV and EPSS are. A database that is missing, or older than vulndb.max_age by what it
says of itself, is status 7, as it is for scans.`,
		Example: `
mobileops vulndb status
mobileops vulndb status --output json | jq .vulnerabilities.age_seconds
30 6 * * * root mobileops vulndb status --quiet   # cron: mails only when it is missing, too old or damaged
`,
		Statuses: []app.Status{
			{Code: 0, Text: "scans can use it"},
			{Code: 5, Text: "a database or a table is damaged"},
			{Code: 7, Text: "there is none, or it is too old"},
		},
		Files: []string{storeFiles, stateFile},
		Run:   func(ctx context.Context, _ []string) error { return runStatus(ctx, a) },
	})
}

// statusDocument is what status prints with --output json.
type statusDocument struct {
	Schema          string        `json:"schema"`
	Directory       string        `json:"directory"`
	Usable          bool          `json:"usable"` // scans take it
	Stale           bool          `json:"stale"`
	MaxAge          int64         `json:"max_age_seconds"` // 0: any age
	Vulnerabilities *record       `json:"vulnerabilities,omitempty"`
	Java            *record       `json:"java,omitempty"`
	KEV             *vulndb.Table `json:"kev,omitempty"`
	EPSS            *vulndb.Table `json:"epss,omitempty"`
	Generations     int           `json:"generations"`
	Problems        []string      `json:"problems"`
}

func runStatus(ctx context.Context, a *app.App) error {
	s, c, progress, err := openStore(a)
	if err != nil {
		return err
	}
	st, err := s.Status(ctx)
	progress.stop()
	if st == nil {
		return err
	}
	now := time.Now()
	if a.Streams.Format != ui.Text {
		doc := statusDocument{
			Schema: "mobileops.vulndb.status/v1", Directory: s.Dir(), Usable: err == nil, Stale: st.Stale, MaxAge: int64(c.Vulndb.MaxAge / time.Second),
			Vulnerabilities: recordOf(st.Vulnerabilities, now), Java: recordOf(st.Java, now), KEV: st.KEV, EPSS: st.EPSS, Generations: st.Generations, Problems: []string{},
		}
		doc.Problems = append(doc.Problems, st.Problems...)
		if perr := a.Streams.Document(doc); perr != nil {
			return perr
		}
		if err != nil {
			return failure.Silent(failure.KindOf(err))
		}
		return nil
	}
	if !a.Streams.Quiet {
		if perr := printStatus(a, st, now); perr != nil {
			return perr
		}
	}
	for _, p := range st.Problems {
		if err != nil && p != err.Error() { // that one is said in the end
			a.Streams.Notice("mobileops: vulndb status: %s", ui.Escape(p))
		}
	}
	return err
}

func printStatus(a *app.App, st *vulndb.Status, now time.Time) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s %s\n", name+":", fmt.Sprintf(format, args...))
	}
	if g := st.Vulnerabilities; g != nil {
		age := ui.Ago(g.UpdatedAt, now)
		if st.Stale {
			age = a.Streams.Theme().Warn(age + ", too old")
		}
		row("Database", "generation %d of %s, of %s (%s)", g.Number, ui.Count(int64(st.Generations)), g.UpdatedAt.Format("2006-01-02 15:04 UTC"), age)
		if !g.NextUpdate.IsZero() {
			row("Next update", "%s", g.NextUpdate.Format("2006-01-02 15:04 UTC"))
		}
		row("Taken in", "%s: %s%s", ui.Ago(g.Imported, now), ui.Escape(g.Origin), signer(g))
		row("Advisories", "%s of %s, %s", ui.Count(int64(g.Advisories)), ui.Plural(int64(g.Vulnerabilities), "vulnerability", "vulnerabilities"), ui.Bytes(g.Size))
		row("Ecosystems", "%s", counts(g.Ecosystems, 12))
		var names []string
		for _, s := range g.Sources {
			names = append(names, s.Name)
		}
		row("Sources", "%s", distinct(names, 12))
	} else {
		row("Database", "%s", a.Streams.Theme().Warn("none"))
	}
	if g := st.Java; g != nil {
		row("Java", "generation %d, of %s (%s), %s", g.Number, g.UpdatedAt.Format("2006-01-02 15:04 UTC"), ui.Ago(g.UpdatedAt, now), ui.Bytes(g.Size))
	} else {
		row("Java", "none; JAR files are known by what they say of themselves")
	}
	for _, t := range []struct {
		name string
		t    *vulndb.Table
	}{{"KEV", st.KEV}, {"EPSS", st.EPSS}} {
		if t.t == nil {
			row(t.name, "none (mobileops vulndb import FILE)")
			continue
		}
		row(t.name, "of %s, %s", t.t.Date.Format(time.DateOnly), ui.Plural(int64(t.t.Entries), "vulnerability", "vulnerabilities"))
	}
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

func signer(g *vulndb.Generation) string {
	if g.Signer == "" {
		return ""
	}
	return ", signed by " + ui.Escape(g.Signer)
}

// distinct lists names once each.
func distinct(names []string, most int) string {
	seen := map[string]bool{}
	var list []string
	for _, n := range names {
		if n != "" && !seen[n] {
			seen[n] = true
			list = append(list, ui.Escape(n))
		}
	}
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("%d more", len(list)-most))
	}
	return strings.Join(list, ", ")
}
