package docs

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/cobra"
)

func newCompletions(a *app.App) *cobra.Command {
	return newGenerator(a, "completions", "Write the completion script of every shell",
		"They are what mobileops completion prints, under the names that the shells look for.", `
mobileops docs completions completions
`, completionPages)
}

// Shells are the shells for which there is a completion script.
func Shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

// CompletionScript returns the script that makes a shell complete mobileops.
// All of them ask the binary itself, so they need no renewal when commands
// change.
func CompletionScript(root *cobra.Command, shell string) (string, error) {
	var b bytes.Buffer
	var err error
	switch shell {
	case "bash":
		if err = root.GenBashCompletionV2(&b, true); err == nil {
			return bashAlone(b.String()), nil
		}
	case "zsh":
		err = root.GenZshCompletion(&b)
	case "fish":
		if err = root.GenFishCompletion(&b, true); err == nil {
			return fishQuoted(b.String())
		}
	case "powershell":
		err = root.GenPowerShellCompletionWithDesc(&b)
	default:
		err = failure.Errorf(failure.Usage, "no completion for the shell %q", shell)
	}
	return b.String(), err
}

// fallbacks are shell functions for hosts without the package bash-completion.
//
//go:embed bash_alone.sh
var fallbacks string

// bashAlone makes cobra's script work without the package bash-completion.
// The functions come before the last part of it, which registers the script.
func bashAlone(script string) string {
	script = strings.ReplaceAll(script, " _filedir", " __mobileops_filedir")
	script = strings.ReplaceAll(script, "\"_filedir", "\"__mobileops_filedir")
	const register = "\nif [[ $(type -t compopt) = \"builtin\" ]]; then\n    complete "
	before, after, ok := strings.Cut(script, register)
	if !ok {
		return script + fallbacks
	}
	return before + fallbacks + register + after
}

// fishQuoted makes cobra's script quote the words before the one that is
// completed. fish gives them without their quotes, and the script evaluates
// them: a file called "x;reboot", or a word that a plugin offers, would be run.
func fishQuoted(script string) (string, error) {
	const request = "    set -l requestComp \"MOBILEOPS_ACTIVE_HELP=0 $args[1] __complete $args[2..-1] $lastArg\"\n"
	const quoted = "    set -l words (string escape -- $args)\n" +
		"    set -l requestComp \"MOBILEOPS_ACTIVE_HELP=0 $words[1] __complete $words[2..-1] $lastArg\"\n"
	before, after, ok := strings.Cut(script, request)
	if !ok {
		return "", failure.Errorf(failure.Failed, "the completion script for fish is not what cobra wrote once; look whether it quotes words now")
	}
	return before + quoted + after, nil
}

func completionPages(root *cobra.Command) (pages []page, err error) {
	for _, shell := range Shells() {
		script, err := CompletionScript(root, shell)
		if err != nil {
			return nil, err
		}
		name := map[string]string{"bash": "mobileops.bash", "zsh": "_mobileops", "fish": "mobileops.fish", "powershell": "mobileops.ps1"}[shell]
		if name == "" {
			return nil, fmt.Errorf("no file name for %s", shell)
		}
		pages = append(pages, page{name, script})
	}
	return pages, nil
}
