package docs

import (
	"bytes"
	"fmt"

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
		err = root.GenBashCompletionV2(&b, true)
	case "zsh":
		err = root.GenZshCompletion(&b)
	case "fish":
		err = root.GenFishCompletion(&b, true)
	case "powershell":
		err = root.GenPowerShellCompletionWithDesc(&b)
	default:
		err = failure.Errorf(failure.Usage, "no completion for the shell %q", shell)
	}
	return b.String(), err
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
