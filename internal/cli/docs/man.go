package docs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newMan(a *app.App) *cobra.Command {
	return newGenerator(a, "man", "Write a man page for every command",
		"They are in the man(7) language, for section 1, and for section 5 the configuration file.", `
mobileops docs man /usr/local/share/man/man1
`, func(root *cobra.Command) ([]page, error) { return manPages(a, root), nil })
}

func manPages(a *app.App, root *cobra.Command) (pages []page) {
	for _, cmd := range commands(root) {
		pages = append(pages, page{manName(cmd.CommandPath()) + ".1", manPage(a, cmd)})
	}
	return append(pages, page{"mobileops.yaml.5", manConfiguration()})
}

func manName(path string) string { return strings.ReplaceAll(path, " ", "-") }

// roff escapes text for man(7): every hyphen is one that can be pasted.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

// folded is a paragraph, in lines that are short enough for every reader and
// are not taken for a request.
func folded(s string) string {
	lines := strings.Split(ui.Fold(roff(s), 78, ""), "\n")
	for i := range lines {
		lines[i] = unrequested(lines[i])
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

func unrequested(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}

// quoted is an argument of a request.
func quoted(s string) string { return `"` + strings.ReplaceAll(roff(s), `"`, `\(dq`) + `"` }

type manWriter struct{ strings.Builder }

func (w *manWriter) section(name string) { fmt.Fprintf(w, ".SH %s\n", name) }

// entry is a tagged paragraph: a flag, a status, a file.
func (w *manWriter) entry(tag, text string) {
	fmt.Fprintf(w, ".TP\n.B %s\n%s", roff(tag), folded(text))
}

// prose writes paragraphs; indented lines are kept as they are.
func (w *manWriter) prose(text string) {
	var paragraph, kept []string
	first := true
	flush := func() {
		if len(paragraph)+len(kept) > 0 && !first {
			w.WriteString(".PP\n")
		}
		first = first && len(paragraph)+len(kept) == 0
		if len(paragraph) > 0 {
			w.WriteString(folded(strings.Join(paragraph, "\n")))
		}
		if len(kept) > 0 {
			w.kept(kept...)
		}
		paragraph, kept = nil, nil
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		switch {
		case line == "":
			flush()
		case line[0] == ' ':
			kept = append(kept, strings.TrimPrefix(line, "  "))
		default:
			if len(kept) > 0 {
				flush()
			}
			paragraph = append(paragraph, line)
		}
	}
	flush()
}

// kept writes lines as they are, indented.
func (w *manWriter) kept(lines ...string) {
	w.WriteString(".RS 4\n.EX\n")
	for _, line := range lines {
		fmt.Fprintln(w, unrequested(roff(line)))
	}
	w.WriteString(".EE\n.RE\n")
}

func manHead(w *manWriter, name, section, short string) {
	fmt.Fprintf(w, ".\\\" %s\n.TH %s %s \"\" \"mobileops\" \"mobileops manual\"\n", generated, quoted(strings.ToUpper(name)), section)
	w.section("NAME")
	w.WriteString(folded(name + " - " + lowerFirst(short)))
}

// lowerFirst makes a sentence fit behind a dash.
func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

func manPage(a *app.App, cmd *cobra.Command) string {
	h := a.HelpOf(cmd)
	w := new(manWriter)
	manHead(w, manName(h.Path), "1", h.Short)
	w.section("SYNOPSIS")
	fmt.Fprintf(w, ".B %s\n", roff(h.Usage))
	w.section("DESCRIPTION")
	w.prose(h.Long)
	if len(h.Aliases) > 0 {
		fmt.Fprintf(w, ".PP\nAlso known as %s.\n", roff(strings.Join(h.Aliases, ", ")))
	}
	if len(h.Verbs) > 0 {
		w.section("COMMANDS")
		for _, v := range h.Verbs {
			w.entry(v.Name, v.Short+". See "+manName(h.Path+" "+v.Name)+"(1).")
		}
	}
	if len(h.Flags) > 0 {
		w.section("OPTIONS")
		for _, f := range h.Flags {
			w.entry(strings.TrimSpace(f.Typed), sentence(f.Usage))
		}
	}
	w.section(quoted("GLOBAL OPTIONS"))
	for _, f := range h.Globals {
		w.entry(strings.TrimSpace(f.Typed), sentence(f.Usage))
	}
	w.section(quoted("EXIT STATUS"))
	if cmd.HasParent() && len(h.Statuses) > 0 {
		for _, s := range h.Statuses {
			w.entry(strconv.Itoa(s.Code), sentence(s.Text))
		}
	} else {
		for _, s := range failure.Table() {
			w.entry(strconv.Itoa(s.Status), sentence(s.Meaning))
		}
		w.WriteString(".PP\nWhen several apply, the one lower in this list wins.\n")
	}
	if !cmd.HasParent() {
		w.section("ENVIRONMENT")
		for _, e := range environment() {
			w.entry(e[0], sentence(e[1]))
		}
		w.WriteString(".PP\nEvery key of the configuration has a variable of its own; see mobileops.yaml(5).\n")
	}
	if len(h.Files) > 0 {
		w.section("FILES")
		for _, f := range h.Files {
			w.entry(f.Path, sentence(f.Use))
		}
	}
	if len(h.Examples) > 0 {
		w.section("EXAMPLES")
		for i, e := range h.Examples {
			if i > 0 {
				w.WriteString(".PP\n")
			}
			if e.Comment != "" {
				w.WriteString(folded(sentence(e.Comment)))
			}
			if e.Command != "" {
				w.kept(e.Command)
			}
		}
	}
	w.section(quoted("SEE ALSO"))
	see := []string{"mobileops.yaml(5)"}
	if cmd.HasParent() {
		see = append([]string{manName(cmd.Parent().CommandPath()) + "(1)"}, see...)
	}
	fmt.Fprintln(w, roff(strings.Join(see, ", ")))
	return w.String()
}

// sentence makes of what stands in a list a sentence of its own.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if strings.ContainsRune(".!?…", rune(s[len(s)-1])) {
		return upperFirst(s)
	}
	return upperFirst(s) + "."
}

func upperFirst(s string) string {
	if s[0] >= 'a' && s[0] <= 'z' && !strings.HasPrefix(s, "mobileops") {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

func manConfiguration() string {
	w := new(manWriter)
	manHead(w, "mobileops.yaml", "5", "configuration of mobileops")
	w.section("DESCRIPTION")
	w.prose(`The configuration is a YAML file. Root's is /etc/mobileops/config.yaml, that of others is $XDG_CONFIG_HOME/mobileops/config.yaml, usually below ~/.config. A flag goes before the environment, that before the file, and the file before the default.

An unknown key is an error. Root follows no file that others can write.

mobileops config init writes a file in which every key is explained.`)
	w.section("KEYS")
	for _, k := range config.Keys() {
		def := k.Default
		if def == "" {
			def = "depends on the user"
		}
		w.entry(k.Name, fmt.Sprintf("%s Default: %s. Environment: %s. Example: %s", k.Doc, def, k.Env(), k.Example))
	}
	w.section(quoted("SEE ALSO"))
	w.WriteString("mobileops(1), mobileops\\-config(1)\n")
	return w.String()
}
