package vulndb

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/spf13/cobra"
)

func newRollback(a *app.App) *cobra.Command {
	var to int
	var java bool
	kind := func() vulndb.Kind {
		if java {
			return vulndb.Java
		}
		return vulndb.Vulnerabilities
	}
	cmd := a.Command(app.Spec{
		Use:   "rollback [--to N] [--java]",
		Short: "Go back to the database from before",
		Long: `Go back to the database from before, or to generation N. It is proved first, and one
rename makes it current. Scans under way go on with the one they have. Nothing is removed,
so it is undone in the same way. A database that is gone back to may be too old for scans.`,
		Example: `
mobileops vulndb rollback
mobileops vulndb list && mobileops vulndb rollback --to 5   # runbook: see first what there is
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the earlier generation is current"},
			{Code: 1, Text: "there is nothing to go back to, or no such generation"},
			{Code: 5, Text: "the earlier generation is damaged; nothing was changed"},
			{Code: 7, Text: "there is no database"},
			{Code: 8, Text: "another process changes the databases, or N is current already"},
		},
		Files:   []string{storeFiles, stateFile},
		Audited: true,
		Run: func(ctx context.Context, _ []string) error {
			if to < 0 {
				return app.UsageError("bad value %d for --to: the number of a generation (see mobileops vulndb list)", to)
			}
			s, _, progress, err := changer(a)
			if err != nil {
				return err
			}
			res, err := s.Rollback(ctx, kind(), to)
			progress.stop()
			if java && errors.Is(err, vulndb.ErrMissing) {
				return failure.Hint(failure.New(failure.NotReady, "there is no database of JAR files"), "get one: mobileops vulndb import FILE, or set vulndb.java_repository and mobileops vulndb pull")
			}
			if err != nil {
				return err
			}
			o := outcomeOf("", res, time.Now())
			o.Source = res.Origin
			a.SetResult("%s", o.line(time.Now()))
			return printOutcomes(a, "rollback", document{Outcomes: []outcome{o}})
		},
	})
	fs := cmd.Flags()
	fs.IntVar(&to, "to", 0, "go back to generation `N`")
	fs.BoolVar(&java, "java", false, "the database that knows JAR files")
	a.CompleteFlag(cmd, "to", func(ctx context.Context, _ []string, typed string) (words []string) {
		s, _, _, err := openStore(a)
		if err != nil {
			return nil
		}
		list, err := s.List(ctx, kind())
		if err != nil {
			return nil
		}
		for _, g := range list {
			if w := strconv.Itoa(g.Number); !g.Current && strings.HasPrefix(w, typed) {
				words = append(words, w+"\t"+g.UpdatedAt.Format("2006-01-02 15:04"))
			}
		}
		return words
	})
	return cmd
}
