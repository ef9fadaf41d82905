package app

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/spelling"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is an error with status 2 that says which word was probably meant
// and where to read on.
func usageError(cmd *cobra.Command, meant, format string, args ...any) error {
	hint := "see: " + cmd.CommandPath() + " --help"
	if meant != "" {
		hint = "did you mean " + meant + "? " + hint
	}
	return failure.Hint(failure.Errorf(failure.Usage, format, args...), hint)
}

// UsageError is what a command returns when its flags or arguments do not fit
// together: status 2, nothing was done.
func UsageError(format string, args ...any) error {
	return failure.Errorf(failure.Usage, format, args...)
}

// argumentError turns what a check of the arguments found into a usage error.
func (a *App) argumentError(cmd *cobra.Command, err error) error {
	if err == nil || failure.KindOf(err) != failure.Failed {
		return err
	}
	// cobra.NoArgs calls an argument too many an unknown command.
	if args := cmd.Flags().Args(); len(args) > 0 && strings.HasPrefix(err.Error(), "unknown command ") {
		return usageError(cmd, "", "takes no arguments, and got %q", args[0])
	}
	// cobra counts; what is wanted is in the usage line.
	if _, wanted, ok := strings.Cut(strings.TrimSuffix(cmd.Use, " [flags]"), " "); ok {
		return usageError(cmd, "", "expects %s, and got %s", wanted, ui.Plural(int64(cmd.Flags().NArg()), "argument", "arguments"))
	}
	return usageError(cmd, "", "%w", err)
}

// groupArgs refuses a verb that the noun does not have.
func (a *App) groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return UnknownCommand(cmd, args[0])
}

// UnknownCommand is the usage error about a command that a noun does not have.
func UnknownCommand(cmd *cobra.Command, typed string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	meant := spelling.Nearest(typed, names)
	if meant != "" {
		meant = fmt.Sprintf("%q", meant)
	}
	return usageError(cmd, meant, "unknown command %q", typed)
}

// flagError says what is wrong with a flag. An unknown verb before it is the
// likelier mistake, and then the flags of the verb cannot be known.
func (a *App) flagError(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); a.SpecOf(cmd) == nil && len(args) > 0 {
		return UnknownCommand(cmd, args[0])
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if shorts := unknown.GetSpecifiedShortnames(); shorts != "" {
			return usageError(cmd, "", "unknown flag -%s", unknown.GetSpecifiedName())
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		meant := spelling.Nearest(unknown.GetSpecifiedName(), names)
		if meant != "" {
			meant = "--" + meant
		}
		return usageError(cmd, meant, "unknown flag --%s", unknown.GetSpecifiedName())
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return usageError(cmd, "", "flag --%s needs a value", missing.GetFlag().Name)
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		meant := ""
		var choice *wrongChoice
		if errors.As(err, &choice) {
			meant = spelling.Nearest(bad.GetValue(), choice.words)
		}
		why := errors.Unwrap(bad)
		if number, ok := errors.AsType[*strconv.NumError](why); ok {
			if why = errors.New("is no whole number"); errors.Is(number.Err, strconv.ErrRange) {
				why = errors.New("is out of range")
			}
		}
		return usageError(cmd, meant, "bad value %q for --%s: %v", shownValue(bad.GetFlag(), bad.GetValue()), bad.GetFlag().Name, why)
	}
	return usageError(cmd, "", "%w", err)
}

// shownValue keeps a secret out of a message.
func shownValue(f *pflag.Flag, value string) string {
	if f.Value.Type() == secretType {
		return "[redacted]"
	}
	return value
}
