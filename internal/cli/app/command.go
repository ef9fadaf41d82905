package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Spec describes a command that does something.
type Spec struct {
	Use   string // "check [--name NAME]"
	Short string // one sentence, no full stop
	Long  string // the sentence and what else must be known; paragraphs are folded, indented lines are not
	// Example holds one command a line, with what it does after " # "; at
	// least one cron or runbook line where that fits.
	Example string
	Aliases []string
	Args    cobra.PositionalArgs // nil: no arguments
	// Statuses are the exit statuses it can return, each with what it means
	// here. 0, 2, 3 and 130 are added where missing; where the state is used,
	// also 4, 5 and 8.
	Statuses []Status
	Files    []string // files it touches, each "path: what for"
	// Audited commands leave a record of who ran them, with what and what came of it.
	Audited bool
	Run     func(ctx context.Context, args []string) error
	// Complete offers completions for positional arguments. Without one,
	// nothing is offered; see Files and Dirs for paths.
	Complete func(ctx context.Context, args []string, toComplete string) []string
	// Hidden commands work and are documented nowhere.
	Hidden bool
}

// Status is one exit status and what it means for a command.
type Status struct {
	Code int
	Text string
}

// Command builds the cobra command for a Spec.
func (a *App) Command(s Spec) *cobra.Command {
	if s.Args == nil {
		s.Args = cobra.NoArgs
	}
	cmd := &cobra.Command{
		Use:                   s.Use,
		Aliases:               s.Aliases,
		Short:                 s.Short,
		Hidden:                s.Hidden,
		DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			return a.argumentError(cmd, s.Args(cmd, args))
		},
		PreRunE:           func(cmd *cobra.Command, _ []string) error { return flagsTogether(cmd) },
		RunE:              func(cmd *cobra.Command, args []string) error { return a.run(cmd, &s, args) },
		ValidArgsFunction: a.completion(s.Complete),
	}
	a.dress(cmd, &s)
	return cmd
}

// Group builds the command of a noun, which only holds verbs.
func (a *App) Group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   use,
		Short:                 short,
		DisableFlagsInUseLine: true,
		Args:                  a.groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A script whose verb is an empty variable must not look successful.
			writeHelp(a.Streams.Err, a, cmd)
			return failure.Silent(failure.Usage)
		},
	}
	a.dress(cmd, nil)
	cmd.AddCommand(verbs...)
	return cmd
}

// dress gives a command the help and the usage errors that all have.
func (a *App) dress(cmd *cobra.Command, s *Spec) {
	if s != nil {
		if a.specs == nil {
			a.specs = make(map[*cobra.Command]*Spec)
		}
		a.specs[cmd] = s
	}
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetFlagErrorFunc(a.flagError)
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(a.Streams.Out, a, cmd) })
}

// SpecOf returns the Spec that a command was built from, or nil for a noun.
func (a *App) SpecOf(cmd *cobra.Command) *Spec { return a.specs[cmd] }

// completeStatuses returns the statuses of a Spec and those that follow from it.
func completeStatuses(spec *Spec) []Status {
	all := slices.Clone(spec.Statuses)
	usual := []Status{
		{0, "done"},
		{2, "unknown flag or bad value; nothing was done"},
		{3, "failed; the message says at what"},
		{130, "interrupted"},
	}
	if spec.Audited || slices.ContainsFunc(spec.Files, func(f string) bool { return strings.Contains(f, "state.db") }) {
		usual = append(usual,
			Status{4, "the state or the configuration belongs to another user"},
			Status{5, "the state is damaged, or others than root can write root's configuration"},
			Status{8, "another process holds the state for longer than --lock-timeout"})
	}
	for _, s := range usual {
		if !slices.ContainsFunc(all, func(g Status) bool { return g.Code == s.Code }) {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(x, y Status) int { return cmp.Compare(x.Code, y.Code) })
	return all
}

// run runs a command and records it when it is audited.
func (a *App) run(cmd *cobra.Command, s *Spec, args []string) error {
	if a.globals.noColor {
		a.Streams.NoColor()
	}
	a.doing = commandName(cmd)
	started := time.Now()
	err := a.hooked(cmd, s, args)
	if !s.Audited || a.looked || failure.KindOf(err) == failure.Usage {
		return err // nothing was done
	}
	if _, unconfigured := a.Config(); err != nil && unconfigured != nil {
		return err // it failed before it began, and where its record belongs is not known
	}
	recorded, recordErr := a.record(cmd, args, started, err)
	if recordErr == nil {
		return err
	}
	if err != nil && !recorded && recordErr.Error() == err.Error() { // a damaged state, a full disk: say it once
		return failure.Wrap(failure.Worse(failure.Failed, failure.KindOf(err)),
			errors.Join(err, errors.New("this could not be recorded in the audit chain either, for the same reason")))
	}
	if !recorded {
		recordErr = failure.Errorf(failure.KindOf(recordErr), "what was done could not be recorded in the audit chain: %s", withoutPromise(recordErr))
	}
	kind := failure.Worse(failure.Worse(failure.KindOf(err), failure.Failed), failure.KindOf(recordErr))
	if err == nil || failure.IsSilent(err) {
		return failure.Wrap(kind, recordErr)
	}
	return failure.Wrap(kind, errors.Join(err, recordErr))
}

// Around runs something around every command, such as the hooks of plugins. args
// tells flags and arguments, without secrets. Most commands have no hooks, and
// finding secrets takes a fifth of what a short command takes.
type Around interface {
	// Before is called before a command runs. An error is that of the command,
	// which does not run.
	Before(ctx context.Context, command string, args func() []string) error
	// After is called with what came of it.
	After(ctx context.Context, command string, args func() []string, err error)
}

// SetAround has something run around every command.
func (a *App) SetAround(around Around) { a.around = around }

// hooked runs a command with what is set to run around it.
func (a *App) hooked(cmd *cobra.Command, s *Spec, args []string) error {
	if a.around == nil {
		return a.guarded(cmd.Context(), s, args)
	}
	given := func() []string { return redacted(cmd.Flags(), args) }
	if err := a.around.Before(cmd.Context(), a.doing, given); err != nil {
		return err
	}
	err := a.guarded(cmd.Context(), s, args)
	a.around.After(cmd.Context(), a.doing, given, err)
	return err
}

// withoutPromise is the text of an error of the record alone: its hint that
// nothing was changed is not true of what the command did, which is not to be run
// again either.
func withoutPromise(err error) string {
	text := err.Error()
	if hinted, ok := errors.AsType[*failure.Error](err); ok && strings.HasPrefix(hinted.Hint, "nothing was changed") {
		hint := strings.TrimSuffix(strings.TrimPrefix(hinted.Hint, "nothing was changed; "), " and run it again")
		text = strings.Replace(text, hinted.Hint, hint, 1)
	}
	return text
}

// guarded turns a panic into a failure with status 3: Go's own status for it
// is 2, which promises that nothing was done.
func (a *App) guarded(ctx context.Context, s *Spec, args []string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(a.Streams.Err, "%s", debug.Stack())
			err = failure.Errorf(failure.Failed, "internal error: %v", p)
		}
	}()
	return s.Run(ctx, args)
}

// recordTime bounds how long an interrupted command waits for another process
// to record that it was begun: who presses Ctrl-C wants the prompt back.
const recordTime = 2 * time.Second

// record chains the act to the audit record. It does so after an interrupt
// too: what was interrupted was begun. It can be recorded and there still be an
// error, when the head of the chain could not be signed.
func (a *App) record(cmd *cobra.Command, args []string, started time.Time, outcome error) (recorded bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	chain, err := a.Audit()
	if err != nil {
		return false, err
	}
	result := a.result
	if outcome != nil && !failure.IsSilent(outcome) {
		result = outcome.Error()
	}
	cmd.Flags().Visit(func(f *pflag.Flag) { // messages repeat what they complain about
		if v := f.Value.String(); f.Value.Type() == secretType && v != "" {
			result = strings.ReplaceAll(result, v, audit.Redacted)
		}
	})
	ctx := context.WithoutCancel(cmd.Context())
	if cmd.Context().Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, recordTime)
		defer cancel()
	}
	seq, err := chain.Append(ctx, audit.Act{
		Time:    started,
		Actor:   a.Actor(),
		Command: commandName(cmd),
		Args:    redacted(cmd.Flags(), args),
		Status:  failure.KindOf(outcome).Status(),
		Result:  result,
		Elapsed: time.Since(started),
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return false, failure.New(failure.Busy, "another process holds the state")
	}
	return seq > 0, err
}

// commandName is what stands after "mobileops": "integrity check".
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// redacted returns the flags that were given and the arguments, in a form that
// can be kept; audit.Redact says which secrets are left out.
func redacted(fs *pflag.FlagSet, args []string) []string {
	var given []string
	secrets := make(map[string]bool)
	fs.Visit(func(f *pflag.Flag) {
		secrets[f.Name] = f.Value.Type() == secretType
		word := "--" + f.Name
		if f.Value.Type() != "bool" || f.Value.String() != "true" {
			word += "=" + f.Value.String()
		}
		given = append(given, word)
	})
	return append(audit.Redact(given, secrets), audit.Redact(args, nil)...)
}

// flagsTogether refuses flags that exclude each other, in the words of a person.
func flagsTogether(cmd *cobra.Command) error {
	err := cmd.ValidateFlagGroups()
	if err == nil {
		return nil
	}
	// "if any flags in the group [a b] are set none of the others can be; [a b]
	// were all set"
	_, set, ok := strings.Cut(err.Error(), "; [")
	set, _, closed := strings.Cut(set, "]")
	if !ok || !closed {
		return UsageError("%v", err)
	}
	return UsageError("--%s exclude each other", strings.Join(strings.Fields(set), " and --"))
}
