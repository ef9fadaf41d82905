package docs

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/spf13/cobra"
)

func newMarkdown(a *app.App) *cobra.Command {
	return newGenerator(a, "markdown", "Write the reference of every command in Markdown",
		"Its README.md lists the commands and the exit statuses.", `
mobileops docs markdown docs/reference
`, func(root *cobra.Command) ([]page, error) { return markdownPages(a, root), nil })
}

func markdownPages(a *app.App, root *cobra.Command) []page {
	pages := []page{{"README.md", markdownIndex(a, root)}, {"configuration.md", markdownConfiguration()}}
	for _, cmd := range commands(root)[1:] {
		pages = append(pages, page{markdownName(cmd), markdownPage(a, cmd)})
	}
	return pages
}

// markdownName is "integrity-check.md" for mobileops integrity check.
func markdownName(cmd *cobra.Command) string {
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return manName(path) + ".md"
}

const markdownHead = "<!-- " + generated + " -->\n"

// cell makes text fit into a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func markdownIndex(a *app.App, root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(markdownHead + "# Reference\n\nWhat every command says about itself. `mobileops COMMAND --help` shows the same.\n\n| command | |\n|---|---|\n")
	for _, cmd := range commands(root)[1:] {
		if a.SpecOf(cmd) != nil {
			fmt.Fprintf(&b, "| [`%s`](%s) | %s |\n", cmd.CommandPath(), markdownName(cmd), cell(cmd.Short))
		}
	}
	b.WriteString("\nSee [configuration.md](configuration.md) for the configuration file.\n\n## Exit statuses\n\n| status | meaning |\n|---|---|\n")
	for _, s := range failure.Table() {
		fmt.Fprintf(&b, "| %d | %s |\n", s.Status, cell(s.Meaning))
	}
	b.WriteString("\nWhen several apply, the one lower in this list wins.\n\n## Global flags\n\n")
	markdownFlags(&b, a.HelpOf(root).Globals)
	b.WriteString("\n## Environment\n\n| variable | meaning |\n|---|---|\n")
	for _, e := range environment() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(e[0], ", ", "`, `"), cell(e[1]))
	}
	return b.String()
}

func markdownFlags(b *strings.Builder, flags []app.Flag) {
	b.WriteString("| flag | meaning |\n|---|---|\n")
	for _, f := range flags {
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.TrimSpace(f.Typed), cell(f.Usage))
	}
}

func markdownPage(a *app.App, cmd *cobra.Command) string {
	h := a.HelpOf(cmd)
	var b strings.Builder
	fmt.Fprintf(&b, "%s# %s\n\n%s\n\n```\n%s\n```\n", markdownHead, h.Path, markdownProse(h.Long), h.Usage)
	if len(h.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso known as `%s`.\n", strings.Join(h.Aliases, "`, `"))
	}
	if len(h.Examples) > 0 {
		b.WriteString("\n## Examples\n\n```sh\n")
		for _, e := range h.Examples {
			if e.Comment != "" {
				fmt.Fprintf(&b, "# %s\n", e.Comment)
			}
			if e.Command != "" {
				fmt.Fprintln(&b, e.Command)
			}
		}
		b.WriteString("```\n")
	}
	if len(h.Verbs) > 0 {
		b.WriteString("\n## Commands\n\n| command | |\n|---|---|\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "| [`%s`](%s) | %s |\n", c.Name(), markdownName(c), cell(c.Short))
			}
		}
	}
	if len(h.Flags) > 0 {
		b.WriteString("\n## Flags\n\n")
		markdownFlags(&b, h.Flags)
	}
	b.WriteString("\nThe [global flags](README.md#global-flags) work too.\n")
	if len(h.Statuses) > 0 {
		b.WriteString("\n## Exit status\n\n| status | meaning |\n|---|---|\n")
		for _, s := range h.Statuses {
			fmt.Fprintf(&b, "| %d | %s |\n", s.Code, cell(s.Text))
		}
	}
	if len(h.Files) > 0 {
		b.WriteString("\n## Files\n\n| path | |\n|---|---|\n")
		for _, f := range h.Files {
			fmt.Fprintf(&b, "| `%s` | %s |\n", f.Path, cell(f.Use))
		}
	}
	return b.String()
}

// markdownProse makes code blocks of indented lines, and keeps what looks like
// a tag from being taken for one.
func markdownProse(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			if i > 0 && lines[i-1] != "" && !strings.HasPrefix(lines[i-1], "    ") {
				lines[i-1] += "\n"
			}
			lines[i] = "    " + strings.TrimPrefix(line, "  ")
			continue
		}
		lines[i] = strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`).Replace(line)
	}
	return strings.Join(lines, "\n")
}

func markdownConfiguration() string {
	var b strings.Builder
	b.WriteString(markdownHead + `# Configuration

A YAML file: root's is ` + "`/etc/mobileops/config.yaml`, that of others is `$XDG_CONFIG_HOME/mobileops/config.yaml`, usually below `~/.config`" + `.
A flag goes before the environment, that before the file, and the file before the default.
An unknown key is an error. Root follows no file that others can write.

| key | meaning | default | environment | example |
|---|---|---|---|---|
`)
	for _, k := range config.Keys() {
		def := "depends on the user"
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` | `%s` |\n", k.Name, cell(k.Doc), def, k.Env(), k.Example)
	}
	b.WriteString("\nThe file that `mobileops config init` writes:\n\n```yaml\n" + config.Template() + "```\n")
	return b.String()
}
