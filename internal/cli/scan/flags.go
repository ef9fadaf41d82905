package scan

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	moments "github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/spf13/pflag"
)

// onTerminal is how many rows a terminal is given where --limit does not say.
const onTerminal = 50

// limitFlag adds --limit. Its help says in words what it is by default.
func limitFlag(fs *pflag.FlagSet, limit *int) {
	*limit = -1
	fs.Func("limit", "print at most `N` rows, the most urgent ones; 0: all (default 50 on a terminal, all elsewhere)", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		if n < 0 {
			return errors.New("must be 0, for all, or more")
		}
		*limit = n
		return nil
	})
}

// rowLimit is how many rows are printed; 0: all.
func rowLimit(a *app.App, limit int) int {
	switch {
	case limit >= 0:
		return limit
	case a.Streams.OutTTY:
		return onTerminal
	}
	return 0
}

// textFlag adds a flag that takes a text which is not empty. To an empty one, such as
// that of a variable that nobody set, most of these flags would do nothing: a waiver
// would accept, or a list show, more than was meant.
func textFlag(fs *pflag.FlagSet, value *string, name, usage string) {
	fs.Var((*text)(value), name, usage)
}

type text string

func (t *text) String() string { return string(*t) }
func (t *text) Type() string   { return "string" }

func (t *text) Set(s string) error {
	if s == "" {
		return errors.New("it is empty: give it a value, or leave the flag out")
	}
	*t = text(s)
	return nil
}

// completeList completes the last one of words that commas separate, without those
// that are there already.
func completeList(words ...string) func(context.Context, []string, string) []string {
	return func(_ context.Context, _ []string, typed string) (out []string) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		for _, w := range words {
			if !slices.Contains(strings.Split(before, ","), w) {
				out = append(out, before+w)
			}
		}
		return out
	}
}

// pastFlag reads a flag that is a moment before now. A day stands for its first
// moment, or with end for its last, which may be yet to come.
func pastFlag(name, word string, now time.Time, end bool) (time.Time, error) {
	t, ok := moments.Past(word, now, end)
	switch {
	case !ok:
		return t, app.UsageError("bad value %q for --%s: a span such as 7d, or a date such as 2026-05-01", word, name)
	case end && t.After(now) && t.Sub(now) <= 25*time.Hour: // today; a day may have 25 hours
		return now, nil
	case t.After(now), !end && t.Equal(now):
		return t, app.UsageError("bad value %q for --%s: that is not in the past", word, name)
	}
	return t, nil
}

// assetArgument is the asset that somebody named, "" where none was. An empty name is
// none: it is what a variable has that nobody set, and would mean everything.
func assetArgument(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	if args[0] == "" {
		return "", app.UsageError("the name of the asset is empty: give it one, or leave it out")
	}
	return args[0], nil
}
