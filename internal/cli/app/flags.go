package app

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globalFlags are known to every command.
type globalFlags struct {
	config      string
	stateDir    string
	root        string
	lockTimeout string
	noColor     bool
}

// AddGlobalFlags gives the root command the flags that every command knows.
func (a *App) AddGlobalFlags(root *cobra.Command) {
	fs := root.PersistentFlags()
	fs.StringVar(&a.globals.config, "config", "", "read this configuration `FILE` instead of the usual one")
	fs.StringVar(&a.globals.stateDir, "state-dir", "", "keep state in `DIR`")
	fs.StringVar(&a.globals.root, "root", "", "look at the tree in `DIR` instead of /")
	fs.StringVar(&a.globals.lockTimeout, "lock-timeout", "", "wait at most `DURATION` for another process (default 10s)")
	fs.BoolVar(&a.globals.noColor, "no-color", false, "no colour, whatever the terminal can do")
	fs.BoolVarP(&a.Streams.Quiet, "quiet", "q", false, "print only what needs attention")
	Choice(root, fs, (*string)(&a.Streams.Format), "output", string(ui.Text),
		[]string{string(ui.Text), string(ui.JSON), string(ui.JSONL)}, "print results as `FORMAT`")
	a.BindFlag("state_dir", fs.Lookup("state-dir"))
	a.BindFlag("root", fs.Lookup("root"))
	a.BindFlag("lock_timeout", fs.Lookup("lock-timeout"))
	CompleteFiles(root, "config", "yaml", "yml")
	CompleteDirs(root, "state-dir")
	CompleteDirs(root, "root")
}

// BindFlag makes a flag override a configuration key when it is given, such as
// --jobs for "integrity.jobs". The value is checked as in the file.
func (a *App) BindFlag(key string, f *pflag.Flag) {
	if a.bound == nil {
		a.bound = make(map[string]*pflag.Flag)
	}
	a.bound[key] = f
	if f.Changed { // what was loaded without it, as hooks do, does not hold any more
		a.loaded, a.loadErr = nil, nil
	}
}

// Choice adds a flag that takes one of a few words, refuses any other, and
// completes them. The flag set is that of the command, persistent or not.
func Choice(cmd *cobra.Command, fs *pflag.FlagSet, value *string, name, def string, words []string, usage string) {
	*value = def
	fs.Var(&choice{value: value, words: words}, name, usage+": "+orList(words))
	CompleteValues(cmd, name, words...)
}

type choice struct {
	value *string
	words []string
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return "choice" }

func (c *choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	return &wrongChoice{c.words}
}

type wrongChoice struct{ words []string }

func (e *wrongChoice) Error() string { return "must be " + orList(e.words) }

func orList(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}

// Secret adds a flag whose value never reaches the audit record or a message.
func Secret(fs *pflag.FlagSet, value *string, name, usage string) {
	fs.Var((*secret)(value), name, usage)
}

const secretType = "secret"

type secret string

func (s *secret) String() string     { return string(*s) }
func (s *secret) Set(v string) error { *s = secret(v); return nil }
func (s *secret) Type() string       { return secretType }

// must turns a mistake in the declaration of a flag into a crash at the first
// run of any test.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("mobileops: flag declaration: %v", err))
	}
}
